"""Sizes of stills. Pure arithmetic."""

from __future__ import annotations

import math

MEGAPIXEL = 1024 * 1024


def of_megapixel(width: int, height: int, block: int) -> tuple[int, int]:
    """(width, height) of about a megapixel in the shape of the given one, both the nearest multiples of `block`."""
    factor = math.sqrt(MEGAPIXEL / (width * height))
    across, down = (max(1, round(side * factor / block)) * block for side in (width, height))
    return across, down
