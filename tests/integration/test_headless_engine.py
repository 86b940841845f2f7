"""The queue and the real engine: the draft model on real photos, measured frame by frame."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest

from headless.generation import CancelToken, GenerationResult, GenerationTask, Progress
from headless.model_management import HeadlessTaskQueue
from headless.options import GenerationOptions
from headless.orchestrator import WanOrchestrator
from Wan2GP.errors import (
    GenerationCancelled,
    InvalidInput,
    InvalidMedia,
    ModelUnavailable,
    OutOfMemory,
    Unsupported,
    WanError,
)
from Wan2GP.media import Frame, probe_video, read_frames, read_image, resize, write_video

SIZE = (160, 96)
WAIT_S = 60.0
#: mean difference from a photo that H.264 may make of it, of 255
CODEC = 6.0

TaskFactory = Callable[..., GenerationTask]


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[HeadlessTaskQueue]:
    with HeadlessTaskQueue(WanOrchestrator(checkpoints=tmp_path / "ckpts", device="cpu")) as queue:
        yield queue


@pytest.fixture
def make_task(tmp_path: Path) -> TaskFactory:
    def make(task_id: str = "a", model: str = "draft", **knobs: object) -> GenerationTask:
        values = {"prompt": "a journey", "resolution": "160x96", "video_length": 17}
        options = GenerationOptions.parse(values | knobs)
        return GenerationTask(id=task_id, model=model, options=options, output_dir=tmp_path / task_id)

    return make


@pytest.fixture
def photos(samples: Path) -> list[str]:
    return [str(samples / name) for name in ("astronaut.jpg", "coffee.jpg", "rocket.jpg")]


@pytest.fixture
def guide_and_mask(tmp_path: Path, photos: list[str]) -> dict[str, str]:
    """A control video that shows the photos at frames 0, 8 and 16, and the mask that keeps just those."""
    frames = [np.full((SIZE[1], SIZE[0], 3), 127, np.uint8) for _ in range(17)]
    masks = [np.full((SIZE[1], SIZE[0], 3), 255, np.uint8) for _ in range(17)]
    for index, photo in zip((0, 8, 16), photos, strict=True):
        frames[index], masks[index] = resize(read_image(photo), SIZE), np.zeros_like(masks[index])
    write_video(tmp_path / "guide.mp4", frames, fps=16, crf=4, keyframes=range(17))
    write_video(tmp_path / "mask.mp4", masks, fps=16, crf=4, keyframes=range(17))
    return {"video_guide": str(tmp_path / "guide.mp4"), "video_mask": str(tmp_path / "mask.mp4")}


def distance(frame: Frame, photo: str) -> float:
    return float(np.abs(frame.astype(int) - resize(read_image(photo), SIZE)).mean())


def result_of(future: Future[GenerationResult]) -> GenerationResult:
    return future.result(timeout=WAIT_S)


def test_kept_frames_come_out_where_they_went_in(
    queue: HeadlessTaskQueue, make_task: TaskFactory, guide_and_mask: dict[str, str], photos: list[str]
) -> None:
    result = result_of(queue.submit(make_task(video_prompt_type="VMA", **guide_and_mask)))
    info = probe_video(result.output)
    frames = list(read_frames(result.output))
    assert (info.num_frames, info.width, info.height, float(info.fps)) == (17, *SIZE, 16.0)
    for index, photo in zip((0, 8, 16), photos, strict=True):
        assert distance(frames[index], photo) < CODEC
        others = [distance(frame, photo) for number, frame in enumerate(frames) if number != index]
        assert min(others) > distance(frames[index], photo)


def test_start_and_end_images_stand_at_both_ends(
    queue: HeadlessTaskQueue, make_task: TaskFactory, photos: list[str]
) -> None:
    frames = list(
        read_frames(
            result_of(
                queue.submit(make_task(image_prompt_type="SE", image_start=photos[0], image_end=photos[1]))
            ).output
        )
    )
    assert distance(frames[0], photos[0]) < CODEC and distance(frames[-1], photos[1]) < CODEC


def test_two_runs_load_the_model_once_and_report_every_phase(
    queue: HeadlessTaskQueue, make_task: TaskFactory, photos: list[str]
) -> None:
    seen: list[Progress] = []
    first = queue.submit(make_task("a", image_start=photos[0]), on_progress=seen.append)
    second = queue.submit(make_task("b", image_start=photos[1]))
    assert [result_of(future).switched for future in (first, second)] == [True, False]
    statistics = queue.statistics()
    assert (statistics.model_loads, statistics.completed, queue.loaded_model) == (1, 2, "draft")
    assert list(dict.fromkeys(progress.phase for progress in seen)) == ["loading", "decoding", "saving"]
    assert ("decoding", 17, 17) in {(progress.phase, progress.step, progress.total) for progress in seen}


def test_the_same_options_and_seed_give_the_same_pictures(
    queue: HeadlessTaskQueue, make_task: TaskFactory, photos: list[str]
) -> None:
    media = {"image_start": photos[0], "image_end": photos[1]}
    first, second = (
        list(read_frames(result_of(queue.submit(make_task(name, seed=5, **media))).output)) for name in "ab"
    )
    # far below what another picture would give; the encoder is not bit-exact every time
    assert max(float(np.abs(a.astype(int) - b).mean()) for a, b in zip(first, second, strict=True)) < 1


def test_what_the_model_ignores_is_noted(queue: HeadlessTaskQueue, make_task: TaskFactory, photos: list[str]) -> None:
    result = result_of(queue.submit(make_task(image_start=photos[0], guidance_scale=3.0, seed=11)))
    assert "seed 11" in result.notes
    assert any("guidance_scale" in note for note in result.notes)


def test_cancel_stops_the_engine_within_a_frame_and_leaves_no_file(
    queue: HeadlessTaskQueue, make_task: TaskFactory, photos: list[str], tmp_path: Path
) -> None:
    token, seen = CancelToken(), list[int]()

    def cancel_at_frame_three(progress: Progress) -> None:
        if progress.phase == "decoding":
            seen.append(progress.step)
            if progress.step == 3:
                token.cancel()

    task = make_task("a", video_length=81, image_start=photos[0], image_end=photos[1])
    future = queue.submit(task, on_progress=cancel_at_frame_three, cancel=token)
    assert isinstance(future.exception(timeout=WAIT_S), GenerationCancelled)
    assert seen[-1] == 3 and list((tmp_path / "a").iterdir()) == []
    assert result_of(queue.submit(make_task("b", image_start=photos[0]))).files


def test_a_single_frame_comes_as_a_png(queue: HeadlessTaskQueue, make_task: TaskFactory, photos: list[str]) -> None:
    result = result_of(queue.submit(make_task(video_length=1, image_start=photos[0])))
    assert result.output.suffix == ".png" and len(list(result.output.parent.iterdir())) == 1
    assert distance(read_image(result.output), photos[0]) < CODEC


@pytest.mark.parametrize(
    ("model", "knobs", "kind", "message"),
    [
        ("draft", {}, Unsupported, "cannot draw from text"),
        ("draft", {"image_start": "nowhere.png"}, InvalidMedia, r"image_start: .*nowhere\.png"),
        ("draft", {"image_refs": ["x.png"]}, Unsupported, "image_refs: the model draft does not take it"),
        ("draft", {"activated_loras": ["x"]}, Unsupported, "activated_loras:"),
        ("drafd", {}, InvalidInput, "Did you mean 'draft'"),
        ("vace_14B", {}, ModelUnavailable, "work here: .*draft"),
    ],
)
def test_bad_input_is_refused_before_anything_is_loaded(
    queue: HeadlessTaskQueue,
    make_task: TaskFactory,
    photos: list[str],
    model: str,
    knobs: dict[str, object],
    kind: type[Exception],
    message: str,
) -> None:
    with pytest.raises(kind, match=message):
        result_of(queue.submit(make_task("a", model, **knobs)))
    assert queue.loaded_model is None
    assert result_of(queue.submit(make_task("b", image_start=photos[0]))).files


def test_every_knob_is_a_parameter_of_the_engine() -> None:
    from Wan2GP.parameters import PARAMETERS

    assert set(GenerationOptions.model_fields) <= set(PARAMETERS)


def test_describing_the_models_imports_no_torch(tmp_path: Path, root: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from headless.orchestrator import WanOrchestrator; "
        "assert WanOrchestrator(checkpoints=Path('none')).models(); "
        "sys.exit([name for name in ('torch', 'diffusers', 'transformers') if name in sys.modules] or 0)"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize(
    "error", [GenerationCancelled("enough"), OutOfMemory("no room"), InvalidInput("not like this")]
)
def test_what_the_listener_raises_ends_the_run_as_it_is(
    queue: HeadlessTaskQueue, make_task: TaskFactory, photos: list[str], error: WanError
) -> None:
    def stop(progress: Progress) -> None:
        if progress.phase == "decoding":
            raise error

    future = queue.submit(make_task("a", image_start=photos[0], image_end=photos[1]), on_progress=stop)
    failure = future.exception(timeout=60)
    assert (type(failure), str(failure)) == (type(error), str(error))


def test_a_frame_rate_may_be_a_number(queue: HeadlessTaskQueue, make_task: TaskFactory, photos: list[str]) -> None:
    result = result_of(queue.submit(make_task("a", image_start=photos[0], force_fps=24)))
    assert probe_video(result.output).fps == 24
