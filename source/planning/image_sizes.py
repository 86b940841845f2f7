"""Sizes of still images. Pure arithmetic."""

from __future__ import annotations

from math import isqrt, sqrt

Size = tuple[int, int]

#: pixels of an image whose size nobody gave: those of 1024 x 1024
USUAL_AREA = 1024 * 1024
#: such an image's sides are multiples of this
USUAL_BLOCK = 8


def capped(size: Size, most: int) -> Size:
    """(width, height) whose longer side is at most `most` pixels, of the same aspect: s * most / longer, truncated.

    A size within the limit stays as it is; no side becomes less than 1.
    """
    longer = max(size)
    if longer <= most:
        return size
    width, height = (max(1, side * most // longer) for side in size)
    return width, height


def of_usual_area(size: Size) -> Size:
    """(width, height) of about 1024 x 1024 pixels in the aspect of `size`.

    Each side times sqrt(1048576 / (w h)), that is sqrt(1048576 w / h) and sqrt(1048576 h / w), floored to a multiple
    of 8 and at least 8.
    """
    width, height = size
    # On whole numbers: no rounding of a quotient costs a pixel.
    sides = isqrt(USUAL_AREA * width // height), isqrt(USUAL_AREA * height // width)
    wide, high = (max(USUAL_BLOCK, side // USUAL_BLOCK * USUAL_BLOCK) for side in sides)
    return wide, high


def of_megapixel(size: Size, block: int) -> Size:
    """(width, height) of about a megapixel in the aspect of `size`, both the nearest multiples of `block`."""
    factor = sqrt(USUAL_AREA / (size[0] * size[1]))
    across, down = (max(1, round(side * factor / block)) * block for side in size)
    return across, down


def size_text(size: Size) -> str:
    """(832, 480) -> "832x480"."""
    return f"{size[0]}x{size[1]}"
