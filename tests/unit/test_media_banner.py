"""The banner of input images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from source.media.banner import banner, stacked
from Wan2GP.media import Frame, write_image

RED, BLUE = (210, 30, 30), (30, 40, 200)


def picture(path: Path, colour: tuple[int, int, int], size: tuple[int, int]) -> Path:
    return write_image(path, np.full((size[1], size[0], 3), colour, np.uint8))


def at(shown: Frame, x: float, y: float = 0.5) -> tuple[int, ...]:
    return tuple(int(v) for v in shown[int(y * shown.shape[0]), int(x * shown.shape[1])])


def test_start_is_on_the_left_and_end_on_the_right_each_half_as_wide(tmp_path: Path) -> None:
    start, end = picture(tmp_path / "s.png", RED, (160, 90)), picture(tmp_path / "e.png", BLUE, (160, 90))
    shown = banner(start, end, (320, 180))
    assert shown.shape == (90, 320, 3)
    assert (shown[:, :160] == RED).all() and (shown[:, 160:] == BLUE).all()


def test_pictures_keep_their_aspect_and_the_taller_sets_the_height(tmp_path: Path) -> None:
    start, end = picture(tmp_path / "s.png", RED, (200, 50)), picture(tmp_path / "e.png", BLUE, (100, 100))
    shown = banner(start, end, (100, 80))
    assert shown.shape == (50, 100, 3)
    assert at(shown, 0.25) == RED and at(shown, 0.25, 0.1) == (0, 0, 0) and at(shown, 0.75, 0.02) == BLUE


def test_a_tall_picture_makes_no_banner_taller_than_the_video(tmp_path: Path) -> None:
    start = picture(tmp_path / "s.png", RED, (50, 500))
    shown = banner(start, None, (160, 90))
    assert shown.shape == (90, 160, 3)
    assert at(shown, 0.25) == RED and at(shown, 0.02) == (0, 0, 0) and at(shown, 0.75) == (0, 0, 0)


@pytest.mark.parametrize("size", [(62, 34), (100, 101), (33, 21)])
def test_the_height_is_even(tmp_path: Path, size: tuple[int, int]) -> None:
    shown = banner(picture(tmp_path / "s.png", RED, size), None, (66, 64))
    assert shown.shape[0] % 2 == 0 and shown.shape[1] == 66


def test_stacked_planes_are_both_pictures_one_above_the_other() -> None:
    above, below = (np.random.default_rng(n).integers(0, 256, (h * 3 // 2, 8), np.uint8) for n, h in ((0, 4), (1, 6)))
    both = stacked(above, below)
    assert both.shape == (15, 8)
    assert np.array_equal(both[:4], above[:4]) and np.array_equal(both[4:10], below[:6])
    chroma = both[10:].reshape(2, 5, 4)
    for plane in range(2):
        assert np.array_equal(chroma[plane, :2], above[4:].reshape(2, 2, 4)[plane])
        assert np.array_equal(chroma[plane, 2:], below[6:].reshape(2, 3, 4)[plane])
