"""Small pictures of what is being made: a still, or a short animation."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image

MEDIA_TYPE = "image/webp"
#: frames of an animation, pixels of the longest side, and bytes of the file, at most
MOST_FRAMES, LONGEST_SIDE, MOST_BYTES = 8, 192, 15 * 1024
_FRAME_MS = 200
_QUALITIES = (60, 40, 20)


def preview_image(frames: npt.NDArray[np.uint8]) -> bytes:
    """(F, H, W, 3) RGB -> a WebP file of at most MOST_BYTES: one frame is a still, several are played in a loop.

    The longest side becomes LONGEST_SIDE. What takes too many bytes is written with fewer details, then with fewer
    frames, then smaller.
    """
    factor = LONGEST_SIDE / max(frames.shape[1:3])
    size = max(1, round(frames.shape[2] * factor)), max(1, round(frames.shape[1] * factor))
    pictures = [Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC) for frame in frames]
    return next(image for image in _attempts(pictures) if len(image) <= MOST_BYTES)


def _attempts(pictures: list[Image.Image]) -> Iterator[bytes]:
    """Smaller and smaller files."""
    while True:
        for quality in _QUALITIES:
            yield _encoded(pictures, quality)
        pictures = pictures[::2] if len(pictures) > 1 else [pictures[0].reduce(2)]


def _encoded(pictures: list[Image.Image], quality: int) -> bytes:
    file = io.BytesIO()
    animated = {"save_all": True, "append_images": pictures[1:], "duration": _FRAME_MS, "loop": 0}
    more = animated if len(pictures) > 1 else {}
    pictures[0].save(file, "WEBP", quality=quality, method=2, **more)
    return file.getvalue()
