"""Input photos."""

from __future__ import annotations

from pathlib import Path

from Wan2GP.media import Frame, read_image, resize


def load_fitted(path: str | Path, size: tuple[int, int]) -> Frame:
    """A photo at `size` = (width, height), RGB (H, W, 3) uint8: upright, stretched without letterbox or crop.

    Raises InvalidMedia when the file is missing, empty, damaged, too large, or not a picture.
    """
    return resize(read_image(path), size)
