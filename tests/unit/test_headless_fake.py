"""The shipped fake: what it draws is measured, so that tests which use it may measure too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from headless.fake_frames import draw as drawn
from headless.generation import CancelToken, GenerationTask, ModelInfo, Progress
from headless.options import GenerationOptions
from headless.testing import FAKE_MODELS, FakeOrchestrator
from Wan2GP.errors import GenerationCancelled, InvalidInput, ModelUnavailable, UnknownModel
from Wan2GP.media import Frame, probe_image, probe_video, read_frames, write_image, write_video

SIZE = (64, 48)
RED, GREEN, BLUE = (220, 30, 30), (30, 200, 40), (30, 40, 220)
BLACK, WHITE = (0, 0, 0), (255, 255, 255)
#: what H.264 and 4:2:0 may change of a plain colour
CODEC = 6

Draw = Callable[..., list[Frame]]


def plain(colour: tuple[int, int, int]) -> Frame:
    return np.full((SIZE[1], SIZE[0], 3), colour, np.uint8)


def assert_colour(frame: Frame, colour: Sequence[float]) -> None:
    assert np.abs(frame.reshape(-1, 3).mean(axis=0) - colour).max() <= CODEC


@pytest.fixture
def draw(tmp_path: Path) -> Draw:
    """Run the fake with some options; the frames of its file."""

    def run(model: str, num_frames: int, **knobs: object) -> list[Frame]:
        options = GenerationOptions.parse(
            {"prompt": "a kite", "resolution": "64x48", "video_length": num_frames} | knobs
        )
        fake = FakeOrchestrator()
        task = GenerationTask(id="a", model=model, options=options, output_dir=tmp_path / "out")
        fake.prepare(task)
        fake.load_model(model, lambda progress: None)
        outcome = fake.generate(task, lambda progress: None, CancelToken())
        return list(read_frames(outcome.files[0]))

    return run


@pytest.fixture
def video(tmp_path: Path) -> Callable[[str, list[tuple[int, int, int]]], str]:
    def write(name: str, colours: list[tuple[int, int, int]]) -> str:
        path = tmp_path / f"{name}.mp4"
        write_video(path, [plain(colour) for colour in colours], fps=16, crf=4, keyframes=range(len(colours)))
        return str(path)

    return write


@pytest.fixture
def image(tmp_path: Path) -> Callable[[str, tuple[int, int, int]], str]:
    return lambda name, colour: str(write_image(tmp_path / f"{name}.png", plain(colour)))


@pytest.mark.parametrize("num_frames", [1, 2, 5, 33])
def test_a_video_has_exactly_the_length_and_size_asked_for(draw: Draw, num_frames: int) -> None:
    frames = draw("fake_t2v", num_frames)
    assert (len(frames), frames[0].shape) == (num_frames, (48, 64, 3))


def test_kept_guide_frames_stay_and_the_others_dissolve_between_them(
    draw: Draw, video: Callable[[str, list[tuple[int, int, int]]], str]
) -> None:
    guide = video("guide", [RED, BLACK, BLACK, BLACK, BLUE, BLUE])
    mask = video("mask", [BLACK, WHITE, WHITE, WHITE, BLACK, WHITE])
    frames = draw("fake_vace", 9, video_guide=guide, video_mask=mask)
    assert_colour(frames[0], RED)
    assert_colour(frames[2], np.mean([RED, BLUE], axis=0))
    for index in range(4, 9):
        assert_colour(frames[index], BLUE)


def test_an_inverted_mask_keeps_the_white_frames(
    draw: Draw, video: Callable[[str, list[tuple[int, int, int]]], str]
) -> None:
    guide, mask = video("guide", [RED, BLUE]), video("mask", [BLACK, WHITE])
    frames = draw("fake_vace", 2, video_guide=guide, video_mask=mask, video_prompt_type="VNA")
    assert_colour(frames[0], BLUE)


def test_a_guide_without_a_mask_is_kept_whole(
    draw: Draw, video: Callable[[str, list[tuple[int, int, int]]], str]
) -> None:
    frames = draw("fake_vace", 3, video_guide=video("guide", [RED, GREEN, BLUE]))
    for frame, colour in zip(frames, (RED, GREEN, BLUE), strict=True):
        assert_colour(frame, colour)


def test_start_and_end_images_stand_at_both_ends(draw: Draw, image: Callable[[str, tuple[int, int, int]], str]) -> None:
    frames = draw("fake_i2v", 5, image_start=image("s", RED), image_end=image("e", BLUE))
    assert_colour(frames[0], RED)
    assert_colour(frames[2], np.mean([RED, BLUE], axis=0))
    assert_colour(frames[4], BLUE)


def test_a_start_image_alone_is_held(draw: Draw, image: Callable[[str, tuple[int, int, int]], str]) -> None:
    for frame in draw("fake_i2v", 5, image_start=image("s", GREEN)):
        assert_colour(frame, GREEN)


def test_text_gives_a_colour_of_its_own_and_a_bar_that_moves() -> None:
    options = GenerationOptions(prompt="a kite", seed=1)
    first, again, other = (list(drawn(chosen, (64, 48), 9)) for chosen in (options, options, options.replace(seed=2)))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])
    bars = [int(np.argmax(frame.astype(int).sum(axis=(0, 2)))) for frame in first]
    assert bars == sorted(bars) and (bars[0], bars[-1]) == (0, 56)


def test_an_image_model_writes_an_image(tmp_path: Path) -> None:
    fake = FakeOrchestrator()
    options = GenerationOptions(prompt="a kite", resolution="64x48")
    task = GenerationTask(id="a", model="fake_image", options=options, output_dir=tmp_path)
    file = fake.generate(task, lambda progress: None, CancelToken()).files[0]
    assert (probe_image(file).width, probe_image(file).height) == (64, 48)


def test_the_frame_rate_asked_for_is_written(tmp_path: Path) -> None:
    fake = FakeOrchestrator()
    options = GenerationOptions(prompt="a kite", resolution="64x48", video_length=5, force_fps="24")
    task = GenerationTask(id="a", model="fake_t2v", options=options, output_dir=tmp_path)
    assert float(probe_video(fake.generate(task, lambda progress: None, CancelToken()).files[0]).fps) == 24


def test_cancel_is_honoured_at_each_step(tmp_path: Path) -> None:
    token, seen = CancelToken(), list[int]()

    def cancel_at_two(progress: Progress) -> None:
        seen.append(progress.step)
        if (progress.phase, progress.step) == ("denoising", 2):
            token.cancel()

    task = GenerationTask(id="a", model="fake_t2v", options=GenerationOptions(prompt="x"), output_dir=tmp_path)
    with pytest.raises(GenerationCancelled):
        FakeOrchestrator(steps=9).generate(task, cancel_at_two, token)
    assert seen[-1] == 2 and not list(tmp_path.iterdir())


def test_a_step_takes_the_seconds_asked_for(tmp_path: Path) -> None:
    waits: list[float] = []
    fake = FakeOrchestrator(steps=3, step_s=0.5, wait=waits.append)
    options = GenerationOptions(prompt="x", resolution="16x16", video_length=2)
    task = GenerationTask(id="a", model="fake_t2v", options=options, output_dir=tmp_path)
    fake.generate(task, lambda progress: None, CancelToken())
    assert waits == [0.5, 0.5, 0.5]


def test_it_checks_as_the_real_one_does(tmp_path: Path) -> None:
    absent = ModelInfo(
        name="big", architecture="t2v", inputs=frozenset({"text"}), fps=16, unavailable="fetch it with X"
    )
    fake = FakeOrchestrator([absent])
    options = GenerationOptions(prompt="x")
    with pytest.raises(ModelUnavailable, match="fetch it with X"):
        fake.prepare(GenerationTask(id="a", model="big", options=options, output_dir=tmp_path))
    with pytest.raises(InvalidInput, match="video_guide"):
        fake.prepare(GenerationTask(id="a", model="fake_vace", options=options, output_dir=tmp_path))
    with pytest.raises(UnknownModel, match="Did you mean 'fake_vace'"):
        fake.prepare(GenerationTask(id="a", model="fake_vase", options=options, output_dir=tmp_path))


def test_given_models_stand_beside_the_shipped_ones() -> None:
    mine = ModelInfo(name="mine", architecture="t2v", inputs=frozenset({"text"}), fps=24)
    assert FakeOrchestrator([mine]).models() == [*FAKE_MODELS, mine]
