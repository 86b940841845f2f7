"""The colour match against the formula in floating point, and where it has nothing to hold on to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from source.errors import InvalidMedia
from source.media.colour_match import ColourMatch, weights
from Wan2GP.media import Frame, read_frames, read_image, resize, write_image

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
SIZE = (208, 120)
PICTURES = (SAMPLES / "coffee.jpg", SAMPLES / "astronaut.jpg")


@pytest.fixture(scope="module")
def clip() -> list[Frame]:
    return [resize(frame, SIZE) for frame in read_frames(SAMPLES / "bbb_416x240_49f.mp4", 0, 9)]


def plain(path: Path, colour: tuple[int, int, int]) -> Path:
    return write_image(path, np.full((40, 60, 3), colour, np.uint8))


def matched(clip: list[Frame], start: Path | None, end: Path | None) -> list[Frame]:
    match = ColourMatch(start, end, num_frames=len(clip), size=(clip[0].shape[1], clip[0].shape[0]))
    return [match.frame(frame, index).copy() for index, frame in enumerate(clip)]


def to_lab(frame: np.ndarray) -> np.ndarray:
    """Float LAB, L 0-100."""
    return np.asarray(cv2.cvtColor(frame.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), np.float64)


def transferred(frame: np.ndarray, reference: Frame) -> np.ndarray:
    """The mean and deviation of `reference` for those of `frame`, in floating point."""
    lab, target = to_lab(frame), to_lab(reference)
    mean, deviation = lab.mean((0, 1)), lab.std((0, 1))
    floors = np.array([0.1, 0.4, 0.4])
    ratio = np.maximum(target.std((0, 1)) / np.maximum(deviation, 1e-9), floors)
    ratio[deviation < 1e-3] = 0
    moved = (lab - mean) * ratio + target.mean((0, 1))
    return np.clip(cv2.cvtColor(moved.astype(np.float32), cv2.COLOR_LAB2RGB), 0, 1) * 255


def by_formula(frame: Frame, index: int, num_frames: int, start: Frame, end: Frame) -> np.ndarray:
    t = index / (num_frames - 1)
    own = 0.5 * t if t < 0.5 else 0.5 - 0.5 * t
    hsv = cv2.cvtColor(frame.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)
    hsv[..., 1] *= 0.5
    faded = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 255
    first, last = transferred(faded, start), transferred(faded, end)
    return (1 - t) * (1 - own) * first + t * (1 - own) * last + own * frame


def test_a_match_is_the_formula_within_the_coarseness_of_8_bits(clip: list[Frame]) -> None:
    """Tolerance: 1.5 levels of 255 in the mean and 12 for 99 of 100 values of every frame. A match that spreads colours
    spreads the steps of 8-bit LAB as well, most of all in dark and strong colours.
    """
    start, end = (resize(read_image(path), SIZE) for path in PICTURES)
    for index, frame in enumerate(matched(clip, *PICTURES)):
        off = np.abs(frame - by_formula(clip[index], index, len(clip), start, end))
        assert off.mean() < 1.5, index
        assert np.percentile(off, 99) < 12, index


def test_the_first_frame_has_the_colours_of_the_start_and_the_last_those_of_the_end(clip: list[Frame]) -> None:
    """The match of a predecessor never got its pictures, and so did nothing."""
    frames = matched(clip, *PICTURES)
    for frame, path in ((frames[0], PICTURES[0]), (frames[-1], PICTURES[1])):
        wanted = to_lab(resize(read_image(path), SIZE)).mean((0, 1))
        assert np.abs(to_lab(frame).mean((0, 1)) - wanted).max() < 3.0


def test_red_stays_red(clip: list[Frame], tmp_path: Path) -> None:
    red = plain(tmp_path / "red.png", (200, 40, 40))
    for frame in matched(clip, red, red)[:1]:
        assert frame[..., 0].mean() > frame[..., 2].mean() + 80


@pytest.mark.parametrize("index", [0, 3, 4, 8])
def test_weights_add_up_and_the_frame_itself_has_a_quarter_in_the_middle(index: int) -> None:
    start, end, own = weights(index, 9)
    assert start + end + own == pytest.approx(1)
    assert own == pytest.approx({0: 0, 3: 0.1875, 4: 0.25, 8: 0}[index])


def test_a_missing_picture_leaves_its_end_as_it_is(clip: list[Frame]) -> None:
    only_start, only_end = matched(clip, PICTURES[0], None), matched(clip, None, PICTURES[1])
    both = matched(clip, *PICTURES)
    assert np.array_equal(only_start[-1], clip[-1]) and np.array_equal(only_start[0], both[0])
    assert np.array_equal(only_end[0], clip[0]) and np.array_equal(only_end[-1], both[-1])
    assert all(np.array_equal(a, b) for a, b in zip(matched(clip, None, None), clip, strict=True))


def test_a_clip_of_one_frame_takes_the_start(clip: list[Frame]) -> None:
    (only,) = matched(clip[:1], *PICTURES)
    assert np.array_equal(only, matched(clip, PICTURES[0], None)[0])


@pytest.mark.parametrize(
    "drawn", [lambda: np.zeros((48, 64, 3), np.uint8), lambda: np.full((48, 64, 3), 255, np.uint8)]
)
def test_a_frame_without_any_spread_becomes_the_mean_of_the_picture(drawn: Callable[[], Frame], tmp_path: Path) -> None:
    (frame,) = matched([drawn()], plain(tmp_path / "plain.png", (90, 120, 60)), None)
    assert np.abs(frame.astype(int) - (90, 120, 60)).max() <= 2


def test_a_plain_picture_keeps_a_tenth_of_the_spread_of_light(clip: list[Frame], tmp_path: Path) -> None:
    grey = plain(tmp_path / "grey.png", (128, 128, 128))
    spread = [to_lab(frame)[..., 0].std() for frame in (clip[0], matched(clip, grey, None)[0])]
    assert spread[1] == pytest.approx(0.1 * spread[0], rel=0.35)


def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidMedia, match="gone"):
        ColourMatch(tmp_path / "gone.png", None, num_frames=3, size=SIZE)
