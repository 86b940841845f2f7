"""Sizes of stills: limits, aspects, whole numbers."""

from __future__ import annotations

from math import sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from source.planning.image_sizes import USUAL_AREA, capped, of_usual_area, size_text

SIDES = st.integers(1, 20_000)
SIZES = st.tuples(SIDES, SIDES)


@pytest.mark.parametrize(
    ("size", "most", "found"),
    [
        ((1920, 1080), 1200, (1200, 675)),
        ((1080, 1920), 1200, (675, 1200)),
        ((2400, 1601), 1200, (1200, 800)),
        ((1200, 1200), 1200, (1200, 1200)),
        ((1201, 700), 1200, (1200, 699)),
        ((640, 480), 1200, (640, 480)),
        ((4096, 2304), 2512, (2512, 1413)),
    ],
)
def test_the_longer_side_is_limited_and_the_other_truncated(
    size: tuple[int, int], most: int, found: tuple[int, int]
) -> None:
    assert capped(size, most) == found


@given(SIZES, st.integers(16, 4096))
def test_no_side_is_above_the_limit_and_the_aspect_is_kept_to_within_a_pixel(size: tuple[int, int], most: int) -> None:
    found = capped(size, most)
    longer = max(size)
    assert max(found) == min(longer, most)
    if longer > most:
        for side, before in zip(found, size, strict=True):
            assert side == max(1, before * most // longer)
            assert 0 <= before * most / longer - side < 1 or side == 1
    assert capped(found, most) == found


@pytest.mark.parametrize(
    ("size", "found"),
    [
        ((1024, 1024), (1024, 1024)),
        ((64, 64), (1024, 1024)),
        ((3, 3), (1024, 1024)),
        ((16, 9), (1360, 768)),
        ((451, 300), (1248, 832)),
        ((9, 16), (768, 1360)),
        ((20_000, 1), (144_808, 8)),
    ],
)
def test_an_image_without_a_size_gets_the_usual_area(size: tuple[int, int], found: tuple[int, int]) -> None:
    assert of_usual_area(size) == found


@given(SIZES)
def test_the_usual_area_is_not_exceeded_and_the_sides_are_whole_blocks(size: tuple[int, int]) -> None:
    found = of_usual_area(size)
    assert all(side % 8 == 0 and side >= 8 for side in found)
    if min(found) > 8:
        assert found[0] * found[1] <= USUAL_AREA
    factor = sqrt(USUAL_AREA / (size[0] * size[1]))
    for side, before in zip(found, size, strict=True):
        assert side <= max(8, before * factor * (1 + 1e-9)) and (before * factor < side + 8 + 1e-6)


def test_a_size_is_written_width_first() -> None:
    assert size_text((832, 480)) == "832x480"
