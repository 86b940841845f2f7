"""What tests of control models share: where the weights of the pose model are, a moving square, an engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from fetched import fetched

from Wan2GP import wgp
from Wan2GP.media import Frame, write_video

ROOT = Path(__file__).resolve().parent.parent


def pose_checkpoints() -> Path:
    """The folder of checkpoints that holds the pose model."""
    return fetched("pose")


def use_engine(checkpoints: Path, outputs: Path) -> None:
    """Set the engine up for a test."""
    wgp.release_model()
    wgp.configure(checkpoints=checkpoints, save_path=outputs, device="cpu", definitions=[], loras=outputs / "loras")


def square(left: int, top: int, size: tuple[int, int] = (96, 64), side: int = 24) -> Frame:
    """A light square with some texture on a dark ground."""
    grain = np.random.default_rng(1).integers(150, 256, (side, side, 3), dtype=np.uint8)
    frame = np.full((size[1], size[0], 3), 20, np.uint8)
    frame[top : top + side, left : left + side] = grain
    return frame


def moving_square(path: Path, count: int, right: int = 3, down: int = 0, fps: int = 12) -> Path:
    """A lossless video of the square, which moves by so many pixels a frame."""
    frames = [square(10 + right * k, 10 + down * k) for k in range(count)]
    return write_video(path, frames, fps=fps, codec="ffv1").path
