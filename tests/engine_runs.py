"""Running the engine in tests: one call with a fresh state and everything it reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from Wan2GP import wgp
from Wan2GP.media import read_frames, write_video


@dataclass
class Run:
    """What one call left behind."""

    returned: bool
    files: list[Path]
    events: list[tuple[str, Any]] = field(default_factory=list)

    def data(self, command: str) -> list[Any]:
        return [data for name, data in self.events if name == command]

    def frames(self) -> np.ndarray:
        """The decoded frames of the last file, (F, H, W, 3)."""
        return np.stack(list(read_frames(self.files[-1])))


def run_engine(on_event: Callable[[str, Any, dict[str, Any]], None] | None = None, **values: Any) -> Run:
    """`generate_media` with a fresh state; `on_event` sees each event and the state as it comes."""
    state: dict[str, Any] = {"gen": {}}
    events: list[tuple[str, Any]] = []

    def receive(command: str, data: Any = None) -> None:
        events.append((command, data))
        if on_event is not None:
            on_event(command, data, state)

    returned = wgp.generate_media(state=state, send_cmd=receive, **values)
    return Run(returned, [Path(file) for file in state["gen"]["file_list"]], events)


def picture(seed: int, width: int = 64, height: int = 48) -> np.ndarray:
    """A smooth random picture, RGB uint8."""
    import cv2

    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def grey_video(path: Path, levels: list[int], width: int = 64, height: int = 48) -> Path:
    """A lossless video of flat grey frames, such as a mask: 0 keeps, 255 draws."""
    frames = [np.full((height, width, 3), level, np.uint8) for level in levels]
    write_video(path, frames, fps=16, codec="ffv1")
    return path
