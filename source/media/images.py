"""Photos: which files are any, and input photos at the sizes that are asked for."""

from __future__ import annotations

from pathlib import Path

from source.errors import InvalidInput
from Wan2GP.media import Frame, probe_image, read_image, resize


def is_still(path: Path) -> bool:
    """Whether a file is a picture that does not move. A GIF is a video, be it of one frame."""
    try:
        return probe_image(path).format != "gif"
    except InvalidInput:
        return False


def load_fitted(path: str | Path, size: tuple[int, int]) -> Frame:
    """A photo at `size` = (width, height), RGB (H, W, 3) uint8: upright, stretched without letterbox or crop.

    Raises InvalidMedia when the file is missing, empty, damaged, too large, or not a picture.
    """
    return resize(read_image(path), size)


def contained(picture: Frame, box: tuple[int, int]) -> Frame:
    """`picture` as large as fits into `box` = (width, height), with its own aspect to within a pixel."""
    height, width = picture.shape[:2]
    scale = min(box[0] / width, box[1] / height)
    return resize(picture, (max(1, round(width * scale)), max(1, round(height * scale))))
