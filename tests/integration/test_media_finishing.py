"""Finishing real clips: each effect measured against its formula, in one encode, with the exact frames."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from source.errors import GenerationCancelled, InvalidInput, InvalidMedia
from source.media.colour_match import ColourMatch
from source.media.finishing import Finishing, finish
from source.media.poster import poster
from Wan2GP.media import (
    Frame,
    VideoWriter,
    index_video,
    probe_video,
    read_frame,
    read_frames,
    read_image,
    read_planes,
    resize,
    write_image,
    write_video,
)

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
SIZE = (208, 120)
FRAMES = 21
LUMA = np.array([0.2126, 0.7152, 0.0722])


@pytest.fixture(scope="module")
def drawn() -> list[Frame]:
    return [resize(frame, SIZE) for frame in read_frames(SAMPLES / "bbb_416x240_49f.mp4", 0, FRAMES)]


@pytest.fixture(scope="module")
def lossless(drawn: list[Frame], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the engine hands it over."""
    return write_video(tmp_path_factory.mktemp("clips") / "raw.mkv", drawn, fps=16, codec="ffv1").path


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(float(np.mean((first.astype(float) - second) ** 2)), 1e-9)))


def quality(video: Path, wanted: list[Frame]) -> float:
    return float(np.mean([psnr(a, b) for a, b in zip(read_frames(video), wanted, strict=True)]))


def yuv(video: Path) -> list[np.ndarray]:
    with av.open(str(video)) as container:
        return [frame.to_ndarray() for frame in container.decode(video=0)]


def saturated(frame: np.ndarray, amount: float) -> np.ndarray:
    grey = (frame @ LUMA)[..., None]
    return np.clip(grey + amount * (frame - grey), 0, 255)


def brightened(frame: np.ndarray, amount: float) -> np.ndarray:
    return np.clip(frame * (1.0 + amount), 0, 255)


def encoded_once(frames: list[np.ndarray], path: Path) -> Path:
    return write_video(path, (np.rint(frame).astype(np.uint8) for frame in frames), fps=16).path


@pytest.mark.parametrize(
    ("saturation", "brightness"), [(1, 0), (0, 0), (0.5, 0), (1.6, 0), (1, -0.4), (1, 0.3), (0.7, 0.5), (1.3, -0.2)]
)
def test_tone_is_the_formula_to_within_one_encode(
    lossless: Path, drawn: list[Frame], tmp_path: Path, saturation: float, brightness: float
) -> None:
    """Tolerance: 0.5 dB of what one encode of the formula's own frames has, and a mean colour within 1 of 255."""
    made = finish(lossless, tmp_path / "out.mp4", Finishing(saturation=saturation, brightness=brightness))
    formula = [brightened(saturated(frame, saturation), brightness) for frame in drawn]
    assert (made.num_frames, made.width, made.height, made.fps) == (FRAMES, *SIZE, 16)
    one_encode = quality(encoded_once(formula, tmp_path / "once.mp4"), formula)
    assert quality(made.path, formula) > one_encode - 0.5
    for frame, wanted in zip(read_frames(made.path), formula, strict=True):
        assert np.abs(frame.mean((0, 1)) - wanted.mean((0, 1))).max() < 1.0


def test_positive_brightness_is_brighter_and_negative_darker(lossless: Path, tmp_path: Path) -> None:
    """The predecessor had two helpers of opposite sign."""
    means = []
    for brightness in (-0.3, 0.0, 0.3):
        made = finish(lossless, tmp_path / f"{brightness}.mp4", Finishing(brightness=brightness))
        means.append(read_frame(made.path, 5).mean())
    assert means[0] == pytest.approx(0.7 * means[1], abs=1.5) and means[2] > 1.2 * means[1]


def test_brightened_colours_are_clipped_in_each_channel(tmp_path: Path) -> None:
    """(255, 200, 100) times 1.5 is (255, 255, 150): in yuv420p alone the clipped luma would take blue down by 28."""
    source = write_video(tmp_path / "a.mkv", [np.full((48, 64, 3), (255, 200, 100), np.uint8)], fps=8, codec="ffv1")
    made = finish(source.path, tmp_path / "b.mp4", Finishing(brightness=0.5))
    assert np.abs(read_frame(made.path, 0).mean((0, 1)) - (255, 255, 150)).max() < 3


def test_there_is_exactly_one_encode(lossless: Path, tmp_path: Path) -> None:
    """The decoded frames are those that a single encode of the changed planes gives, value for value."""
    finishing = Finishing(start=2, stop=19, saturation=0.8, brightness=-0.1, keyframes=frozenset({5, 13}))
    made = finish(lossless, tmp_path / "out.mp4", finishing)
    once = tmp_path / "once.mp4"
    with VideoWriter(once, fps=16, size=SIZE, keyframes={5, 13}) as writer:
        for planes in read_planes(index_video(lossless), 2, 19, SIZE):
            writer.write_planes(finishing.toned_planes(planes))
    assert made.num_frames == 17
    assert all(np.array_equal(a, b) for a, b in zip(yuv(made.path), yuv(once), strict=True))


def test_everything_at_once_loses_no_more_than_one_encode(lossless: Path, drawn: list[Frame], tmp_path: Path) -> None:
    """Five changes, each by itself and encoded after it, against one pass."""
    pictures = (SAMPLES / "coffee.jpg", SAMPLES / "rocket.jpg")
    steps = [
        Finishing(start=1, stop=20),
        Finishing(saturation=0.8),
        Finishing(brightness=0.15),
        Finishing(colour_match=pictures),
    ]
    whole = Finishing(start=1, stop=20, saturation=0.8, brightness=0.15, colour_match=pictures)
    plain = [np.rint(brightened(saturated(frame, 0.8), 0.15)).astype(np.uint8) for frame in drawn[1:20]]
    exact = write_video(tmp_path / "exact.mkv", plain, fps=16, codec="ffv1").path
    match = ColourMatch(*pictures, num_frames=19, size=SIZE)
    wanted = [match.frame(frame, index).copy() for index, frame in enumerate(read_frames(exact))]
    made = finish(lossless, tmp_path / "one.mp4", whole)
    source = lossless
    for number, step in enumerate(steps):
        source = finish(source, tmp_path / f"step{number}.mp4", step).path
    once = quality(encoded_once(list(wanted), tmp_path / "ideal.mp4"), wanted)
    assert quality(made.path, wanted) > once - 0.3
    assert quality(source, wanted) < quality(made.path, wanted) - 1


def test_frames_that_nothing_changes_are_as_good_as_one_encode(
    lossless: Path, drawn: list[Frame], tmp_path: Path
) -> None:
    made = finish(lossless, tmp_path / "out.mp4", Finishing(start=3, stop=18))
    once = write_video(tmp_path / "once.mp4", drawn[3:18], fps=16).path
    assert all(np.array_equal(a, b) for a, b in zip(yuv(made.path), yuv(once), strict=True))


def test_colours_are_matched_to_the_pictures_given(lossless: Path, tmp_path: Path) -> None:
    """The predecessor passed none, so its switch did nothing."""
    red, blue = (
        write_image(tmp_path / f"{name}.png", np.full((60, 104, 3), colour, np.uint8))
        for name, colour in (("red", (190, 60, 60)), ("blue", (60, 70, 190)))
    )
    made = finish(lossless, tmp_path / "out.mp4", Finishing(colour_match=(red, blue)))
    first, last = (read_frame(made.path, index).mean((0, 1)) for index in (0, FRAMES - 1))
    assert made.num_frames == FRAMES
    assert np.abs(first - (190, 60, 60)).max() < 15 and np.abs(last - (60, 70, 190)).max() < 15


def test_a_banner_makes_the_video_taller_and_leaves_its_pictures_as_they_are(
    lossless: Path, drawn: list[Frame], tmp_path: Path
) -> None:
    red = write_image(tmp_path / "red.png", np.full((90, 160, 3), (200, 30, 40), np.uint8))
    blue = write_image(tmp_path / "blue.png", np.full((90, 160, 3), (30, 40, 200), np.uint8))
    made = finish(lossless, tmp_path / "out.mp4", Finishing(banner=(red, blue)))
    assert (made.num_frames, made.width, made.height) == (FRAMES, 208, 120 + 58)
    for frame, wanted in zip(read_frames(made.path), drawn, strict=True):
        assert np.abs(frame[4:54, 4:100].mean((0, 1)) - (200, 30, 40)).max() < 4
        assert np.abs(frame[4:54, 108:204].mean((0, 1)) - (30, 40, 200)).max() < 4
        assert psnr(frame[58:], wanted) > 33


def test_keyframes_stand_where_they_were_asked_for(lossless: Path, tmp_path: Path) -> None:
    made = finish(lossless, tmp_path / "out.mp4", Finishing(keyframes=frozenset({4, 17})))
    assert {0, 4, 17} <= set(index_video(made.path).entry_points)


@pytest.mark.parametrize("tone", [{}, {"brightness": 0.1}])
def test_the_size_is_the_one_asked_for_and_even(lossless: Path, tmp_path: Path, tone: dict[str, float]) -> None:
    made = finish(lossless, tmp_path / "out.mp4", Finishing(size=(101, 77), **tone))  # type: ignore[arg-type]
    assert (made.width, made.height, made.num_frames) == (100, 76, FRAMES)


def test_a_clip_of_odd_size_is_finished_too(drawn: list[Frame], tmp_path: Path) -> None:
    odd = write_video(tmp_path / "odd.mkv", [frame[:119, :207] for frame in drawn[:3]], fps=16, codec="ffv1").path
    made = finish(odd, tmp_path / "out.mp4", Finishing(saturation=0.5))
    assert (made.width, made.height) == (206, 118)


def test_a_clip_of_one_frame_and_another_rate(drawn: list[Frame], tmp_path: Path) -> None:
    one = write_video(tmp_path / "one.mkv", drawn[:1], fps=16, codec="ffv1").path
    pictures = (SAMPLES / "coffee.jpg", None)
    made = finish(
        one, tmp_path / "out.mp4", Finishing(brightness=-1.0, colour_match=pictures), fps=Fraction(30000, 1001)
    )
    assert (made.num_frames, made.fps) == (1, Fraction(30000, 1001))


def test_progress_counts_frames_and_a_stop_leaves_no_file(lossless: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    finish(lossless, tmp_path / "a.mp4", Finishing(stop=5), progress=lambda done, total: told.append((done, total)))
    assert told == [(n, 5) for n in range(1, 6)]
    with pytest.raises(GenerationCancelled):
        finish(lossless, tmp_path / "b.mp4", Finishing(), cancelled=lambda: True)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("window", [(5, 5), (0, FRAMES + 1), (-1, 3)])
def test_frames_that_do_not_exist_are_refused(lossless: Path, tmp_path: Path, window: tuple[int, int]) -> None:
    with pytest.raises(InvalidInput, match="it has 21 frames"):
        finish(lossless, tmp_path / "out.mp4", Finishing(start=window[0], stop=window[1]))


@pytest.mark.parametrize("wrong", [{"saturation": -0.1}, {"saturation": float("nan")}, {"brightness": -1.5}])
def test_values_without_a_meaning_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidInput):
        Finishing(**wrong)  # type: ignore[arg-type]


def test_a_picture_that_cannot_be_read_is_named(lossless: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidMedia, match="gone"):
        finish(lossless, tmp_path / "out.mp4", Finishing(banner=(tmp_path / "gone.png", None)))


def test_a_poster_is_the_first_frame(lossless: Path, drawn: list[Frame], tmp_path: Path) -> None:
    assert psnr(read_image(poster(lossless, tmp_path / "poster.jpg")), drawn[0]) > 33
    assert probe_video(lossless).num_frames == FRAMES
