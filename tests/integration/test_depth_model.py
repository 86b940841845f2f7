"""Depth Anything V2 on tiny random weights: a video becomes its depth, frame by frame, through the queue."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_runs import picture
from tiny_models import write_definition
from tiny_vision import tiny_depth

from headless.generation import CancelToken, GenerationTask
from headless.model_management import HeadlessTaskQueue
from headless.options import GenerationOptions
from headless.orchestrator import WanOrchestrator
from Wan2GP import wgp
from Wan2GP.engine.control import depth
from Wan2GP.errors import GenerationCancelled, InvalidInput, Unsupported
from Wan2GP.media import probe_video, read_frames, read_image, write_image, write_video

SIZE, FRAMES = (96, 64), 7
WAIT_S = 60.0


@pytest.fixture(autouse=True)
def nothing_resident() -> Iterator[None]:
    """The engine keeps one model a process: it is not left to the next test."""
    yield
    wgp.release_model()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_depth(tmp_path_factory.mktemp("weights") / "depth")


@pytest.fixture
def engine(tmp_path: Path, folder: Path) -> WanOrchestrator:
    rows = write_definition(tmp_path / "rows", "tiny_depth", "depth_anything_v2", folder)
    return WanOrchestrator(checkpoints=tmp_path / "ckpts", definitions=[rows], device="cpu")


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """A lossless video whose frames have nothing in common."""
    frames = (picture(number, *SIZE) for number in range(FRAMES))
    return write_video(tmp_path / "control.mkv", frames, fps=12, codec="ffv1").path


@pytest.fixture
def make_task(tmp_path: Path, video: Path) -> Callable[..., GenerationTask]:
    def make(task_id: str, lossless: bool = True, **knobs: Any) -> GenerationTask:
        values = {"video_guide": str(video), "video_length": FRAMES, "resolution": "96x64", "force_fps": "control"}
        options = GenerationOptions.parse({name: each for name, each in (values | knobs).items() if each is not None})
        return GenerationTask(
            id=task_id, model="tiny_depth", options=options, output_dir=tmp_path / task_id, lossless=lossless
        )

    return make


def made(queue: HeadlessTaskQueue, task: GenerationTask) -> Path:
    return queue.submit(task).result(timeout=WAIT_S).output


def test_frames_rate_and_size_are_those_asked_for(engine, make_task) -> None:
    with HeadlessTaskQueue(engine) as queue:
        whole, other = (
            made(queue, make_task("a")),
            made(queue, make_task("b", video_length=4, resolution="50x38", lossless=False)),
        )
    found = [(info.num_frames, info.width, info.height, float(info.fps)) for info in map(probe_video, (whole, other))]
    assert found == [(7, 96, 64, 12.0), (4, 50, 38, 12.0)]
    for frame in read_frames(whole):
        assert frame.std() > 10 and np.ptp(frame.astype(int), axis=2).max() <= 2, "grey, with a relief"


def test_each_frame_is_the_networks_own_answer_stretched_to_black_and_white(engine, make_task, folder, video) -> None:
    import torch
    from transformers import DepthAnythingForDepthEstimation

    network = DepthAnythingForDepthEstimation.from_pretrained(folder).eval()
    with HeadlessTaskQueue(engine) as queue:
        frames = list(read_frames(made(queue, make_task("a"))))
    for shown, frame in zip(read_frames(video), frames, strict=True):
        with torch.no_grad():
            found = network(torch.from_numpy(depth.network_input(shown, 56, 14))[None]).predicted_depth
        fitted = torch.nn.functional.interpolate(found[None], size=SIZE[::-1], mode="bicubic")[0, 0].numpy()
        wanted = (fitted - fitted.min()) / np.ptp(fitted) * 255
        assert np.abs(frame[..., 0] - wanted).max() <= 2, "the file's colours are rounded"


def test_a_slice_shows_what_the_whole_shows(engine, make_task, video, tmp_path: Path) -> None:
    part = write_video(tmp_path / "part.mkv", list(read_frames(video, 3, 6)), fps=12, codec="ffv1").path
    with HeadlessTaskQueue(engine) as queue:
        whole = list(read_frames(made(queue, make_task("a"))))[3:6]
        alone = list(read_frames(made(queue, make_task("b", video_guide=str(part), video_length=3))))
    assert np.array_equal(whole, alone)


def test_a_still_is_what_the_video_shows_of_the_same_picture(engine, make_task, tmp_path: Path) -> None:
    image = write_image(tmp_path / "still.png", picture(0, *SIZE))
    with HeadlessTaskQueue(engine) as queue:
        first = next(iter(read_frames(made(queue, make_task("a")))))
        asked = {"video_guide": None, "image_guide": str(image), "image_mode": 1, "video_length": None, "force_fps": ""}
        still = made(queue, make_task("b", **asked))
        odd = made(queue, make_task("c", **asked | {"resolution": "95x63"}))
    assert np.array_equal(read_image(still), first)
    assert read_image(odd).shape == (63, 95, 3), "a still may have odd sides"


@pytest.mark.parametrize(("asked", "made_at"), [("51x39", (50, 38)), ("17x200", (16, 200))])
def test_one_frame_becomes_a_still_and_odd_sizes_are_floored(engine, make_task, asked, made_at) -> None:
    with HeadlessTaskQueue(engine) as queue:
        still = made(queue, make_task("a", video_length=1, resolution=asked, lossless=False))
        two = made(queue, make_task("b", video_length=2, resolution=asked))
    assert still.suffix == ".png" and read_image(still).shape == (*made_at[::-1], 3)
    assert np.abs(read_image(still).astype(int) - next(iter(read_frames(two)))).mean() < 8
    info = probe_video(two)
    assert (info.num_frames, info.width, info.height) == (2, *made_at)


def test_more_frames_than_the_video_has_and_other_requests_are_refused(engine, make_task) -> None:
    for error, knobs in (
        (InvalidInput, {"video_length": 8}),
        (InvalidInput, {"video_guide": None}),
        (Unsupported, {"video_prompt_type": "VA"}),
        (InvalidInput, {"image_mode": 1}),
    ):
        with pytest.raises(error):
            engine.prepare(make_task("a", **knobs))


def test_a_cancelled_run_stops_at_the_next_frame(engine, make_task, tmp_path: Path) -> None:
    cancel, steps = CancelToken(), []

    def listen(progress: Any) -> None:
        if progress.phase == "decoding":
            steps.append(progress.step)
            cancel.cancel()

    with pytest.raises(GenerationCancelled):
        engine.generate(make_task("a"), listen, cancel)
    assert steps == [1] and not list((tmp_path / "a").glob("*"))
