"""Images with a mask: painted for a model that reads green as "here", and what the mask spares put back afterwards.

A mask is (H, W) bool: true where something is to be drawn.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from Wan2GP.media import Frame, resize

Mask = NDArray[np.bool_]
#: (H, W) uint8
Brightness = NDArray[np.uint8]

GREEN = (0, 255, 0)
#: brightness from which a mask is white
WHITE = 128


def at_size(picture: Frame, size: tuple[int, int]) -> Frame:
    """`picture` (H, W, 3) at `size` = (width, height), by Lanczos with as many taps as shrinking needs; itself when it
    has that size."""
    if (picture.shape[1], picture.shape[0]) == size:
        return picture
    return np.array(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS), np.uint8)


def mask_at(brightness: Brightness, size: tuple[int, int]) -> Mask:
    """Where a mask of (H, W) brightness is white (128 and above) once it is brought to `size` = (width, height)."""
    return np.asarray(resize(brightness, size) >= WHITE)


def painted_green(picture: Frame, mask: Mask) -> Frame:
    """`picture` with pure green (0, 255, 0) where `mask` is true; both of one height and width."""
    painted: Frame = np.where(mask[..., None], np.array(GREEN, np.uint8), picture)
    return painted


def drawn_within(drawn: Frame, source: Frame, brightness: Brightness) -> Frame:
    """`drawn` where the mask is white, and elsewhere `source`, pixel for pixel, brought to the size of `drawn`.

    A source of that size is not resampled. Nothing is feathered: each pixel is one or the other.
    """
    size = (drawn.shape[1], drawn.shape[0])
    kept: Frame = np.where(mask_at(brightness, size)[..., None], drawn, at_size(source, size))
    return kept
