"""Runs of the engine that somebody watches, in tests."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageSequence

from Wan2GP.previews import Preview, Watcher

PATIENCE_S = 60.0


@dataclass
class Seen:
    """What a watcher was shown. Its clock counts denoising steps that were reported, so it is told the first step that
    it wants to see, and not how long a step takes."""

    #: the number of the first step that is shown, counted from 1; and the next one so many steps later
    first: int = 1
    steps: int = 0
    shown: SimpleQueue[Preview] = field(default_factory=SimpleQueue)

    def __post_init__(self) -> None:
        self.watcher = Watcher(self.shown.put, interval_s=self.first - 1, clock=lambda: self.steps)

    def hear(self, command: str, data: Any = None, state: Any = None) -> None:
        """`on_event` of `run_engine`."""
        if command == "progress" and data[1] == "denoising" and data[0][0] > 0:
            self.steps += 1

    def next(self) -> Preview:
        """Waits for it."""
        return self.shown.get(timeout=PATIENCE_S)

    def nothing(self) -> bool:
        """Whether no picture is there, or on its way."""
        try:
            self.shown.get(timeout=0.2)
        except Empty:
            return True
        return False


def frames_of(preview: Preview) -> npt.NDArray[np.uint8]:
    """(F, H, W, 3) of the file."""
    with Image.open(io.BytesIO(preview.image)) as image:
        assert Image.MIME[image.format or ""] == preview.media_type
        return np.stack([np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)])


def shrunk(frames: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Each frame at `size` = (width, height), by the mean of what falls into a pixel."""
    return np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames]).astype(np.float32)
