"""The banner of input images: start and end picture side by side, put on top of a video."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from source.media.images import contained
from Wan2GP.media import Frame, Planes, read_image


def banner(start: Path | None, end: Path | None, size: tuple[int, int]) -> Frame:
    """The banner of a video of `size` = (width, height): RGB (B, width, 3) uint8, B even.

    Each picture takes half the width and keeps its aspect. The taller one sets the height B, at most that of the video
    (it is made narrower then); what a picture leaves of its half is black, and so is the half of a missing one.
    Raises InvalidMedia for a picture that cannot be read.
    """
    width, height = size
    halves = (width // 2, width - width // 2)
    pictures = [
        contained(read_image(path), (half, height)) if path else None
        for path, half in zip((start, end), halves, strict=True)
    ]
    tallest = max((picture.shape[0] for picture in pictures if picture is not None), default=2)
    shown = np.zeros((-(-tallest // 2) * 2, width, 3), np.uint8)
    for picture, left, half in zip(pictures, (0, halves[0]), halves, strict=True):
        if picture is not None:
            _put_in_the_middle(picture, shown[:, left : left + half])
    return shown


def _put_in_the_middle(picture: Frame, area: Frame) -> None:
    top, left = (area.shape[0] - picture.shape[0]) // 2, (area.shape[1] - picture.shape[1]) // 2
    area[top : top + picture.shape[0], left : left + picture.shape[1]] = picture


def stacked(above: Planes, below: Planes) -> Planes:
    """Two yuv420p pictures of one width as one: (H * 3 / 2, W) uint8 each, both heights even."""
    width = above.shape[1]
    parts = [part for planes in zip(_planes(above), _planes(below), strict=True) for part in planes]
    return np.concatenate(parts).reshape(-1, width)


def _planes(picture: Planes) -> tuple[Planes, Planes, Planes]:
    """Y, U and V, each flat."""
    flat = picture.reshape(-1)
    luma = flat.size * 2 // 3
    chroma = luma // 4
    return flat[:luma], flat[luma : luma + chroma], flat[luma + chroma :]
