"""Upscaling as a task, through the whole worker: measured by Lanczos, and by a fake model that redraws."""

from __future__ import annotations

import json
import subprocess
import wave
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from same_media import same_media

from headless.generation import ModelInfo
from headless.orchestrator import WanOrchestrator
from headless.testing import FakeOrchestrator, Gate
from source.errors import EngineError, OutOfMemory, Unsupported
from source.params.base import TaskParams
from source.planning.upscale import DEFAULT_PROMPT, upscale_task
from source.store.types import NewTask, Status
from source.task_registry import Done, Spawned, TaskContext, registry
from source.upscaling import check_upscale
from tests.worker_floor import Floor
from training.tiny_wan.judge import judge
from Wan2GP.errors import WanError
from Wan2GP.media import (
    SOUND_RATE,
    Frame,
    ffmpeg_path,
    mux_audio,
    probe_video,
    read_frames,
    read_sound,
    resize,
    write_video,
)

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
SIZE, FRAMES, RATE = (208, 120), 11, Fraction(30000, 1001)
REDRAWER = ModelInfo(
    name="redrawer",
    architecture="t2v",
    inputs=frozenset({"text", "control_video", "mask", "loras"}),
    required=frozenset({"text"}),
    fps=16,
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    frames = [resize(frame, SIZE) for frame in read_frames(SAMPLES / "bbb_416x240_49f.mp4", 0, FRAMES)]
    return write_video(tmp_path_factory.mktemp("clips") / "source.mp4", frames, fps=RATE, crf=8).path


@pytest.fixture(scope="module")
def with_sound(source: Path) -> Path:
    return mux_audio(source, SAMPLES / "bbb_320x180_audio.mp4", source.with_name("sound.mp4"))


@pytest.fixture
def floor(tmp_path: Path) -> Iterator[Floor]:
    made = Floor(tmp_path, FakeOrchestrator([REDRAWER]))
    equip(made)
    yield made
    made.close()


def equip(floor: Floor) -> None:
    kind = registry().get("upscale_video")
    floor.registry.register(kind)


def finished_video(floor: Floor, video: Path, model: str, **details: Any) -> str:
    """A parent that hands over `video` by one child and has a second one enlarge it twice, as a travel does."""

    def hand_over(params: TaskParams, context: TaskContext) -> Done:
        copy = context.scratch / video.name
        copy.write_bytes(video.read_bytes())
        return Done(copy)

    def parent(params: TaskParams, context: TaskContext) -> Spawned:
        shared = {"orchestrator_details": {"model_name": "fake_vace"} | details, "fps_helpers": 16}
        info = probe_video(video)
        first = NewTask.child(context.task, "stitch:0", "hand_over", {})
        last = upscale_task(
            context.task, shared, after=first.id, factor=2, model=model, size=(info.width, info.height), seed=5,
            frames=info.num_frames,
        )  # fmt: skip
        return Spawned((first, last), final_child=last.id)

    floor.register("hand_over", hand_over)
    floor.register("parent", parent)
    return floor.add("parent")


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(float(np.mean((first.astype(float) - second) ** 2)), 1e-9)))


def frames_back(video: Path) -> list[Frame]:
    """The frames at the size before."""
    return [resize(frame, SIZE) for frame in read_frames(video)]


def assert_enlarged(video: Path, source: Path, least_db: float = 35.0) -> None:
    made = probe_video(video)
    assert (made.width, made.height, made.num_frames, made.fps) == (416, 240, FRAMES, RATE)
    for frame, wanted in zip(frames_back(video), read_frames(source), strict=True):
        assert psnr(frame, wanted) >= least_db


def sound_s(video: Path) -> float:
    with av.open(str(video)) as container:
        stream = container.streams.audio[0]
        return sum(frame.samples for frame in container.decode(stream)) / stream.rate


def warnings(floor: Floor, task_id: str) -> list[str]:
    return [event.detail or "" for event in floor.store.events(task_id) if event.name == "warning"]


# ---- Lanczos


def test_lanczos_keeps_frames_rate_sound_and_pictures(floor: Floor, with_sound: Path, source: Path) -> None:
    row = floor.add("upscale_video", video_source_path=str(with_sound), upscale_factor=2)
    assert floor.work() == 0
    assert floor.store.get(row).status is Status.COMPLETE, floor.store.get(row).error_message
    assert_enlarged(floor.output(row), source)
    assert sound_s(floor.output(row)) == pytest.approx(float(FRAMES / RATE), abs=0.04)
    assert floor.store.get(row).result_data == {
        "upscaled": True, "upscale_model_name": "lanczos", "num_frames": FRAMES, "width": 416, "height": 240,
        "thumbnail_url": f"files/{row}_upscaled_with_sound.jpg",
    }  # fmt: skip
    assert not floor.engine.calls


def test_the_sound_stays_in_step_where_the_pictures_begin_later(floor: Floor, tmp_path: Path) -> None:
    """Picture 8 of 24 at 8 fps is white, and a tone begins with it; the file's sound begins half a second earlier."""
    flash = [np.full((48, 64, 3), 255 if index == 8 else 0, np.uint8) for index in range(24)]
    silent = write_video(tmp_path / "flash.mp4", flash, fps=8).path
    samples = np.zeros(4 * SOUND_RATE, np.int16)
    samples[round(1.5 * SOUND_RATE) :] = np.sin(np.arange(2.5 * SOUND_RATE) / 5) * 20_000
    with wave.open(str(tmp_path / "tone.wav"), "wb") as file:
        file.setparams((1, 2, SOUND_RATE, len(samples), "NONE", ""))
        file.writeframes(samples.tobytes())
    late = tmp_path / "late.mp4"
    joined = ["-itsoffset", "0.5", "-i", str(silent), "-i", str(tmp_path / "tone.wav"), "-map", "0:v", "-map", "1:a"]
    subprocess.run([ffmpeg_path(), "-loglevel", "error", *joined, "-c:v", "copy", "-c:a", "aac", late], check=True)
    row = floor.add("upscale_video", video_source_path=str(late), upscale_factor=2)
    floor.work()
    heard = np.abs(read_sound(floor.output(row), rate=SOUND_RATE)) > 0.1
    assert heard.argmax() / SOUND_RATE == pytest.approx(1.0, abs=0.02)


def test_lanczos_waits_for_no_generation_however_many_are_queued(tmp_path: Path, source: Path) -> None:
    """As a type that uses the GPU it had its turn after every row of the model that is loaded."""
    gate = Gate()
    floor = Floor(tmp_path, FakeOrchestrator([REDRAWER], gate=gate))
    equip(floor)
    queued = [floor.add(model="fake_t2v") for _ in range(6)]
    try:
        with floor.working():
            gate.wait_until_held(30)
            enlarged = floor.add("upscale_video", video_source_path=str(source), upscale_factor=2)
            floor.wait_for(enlarged, Status.COMPLETE)
            assert not any(floor.store.get(row).status is Status.COMPLETE for row in queued)
    finally:
        floor.close()


def test_while_a_model_redraws_one_generation_more_is_claimed_and_the_others_are_left(
    tmp_path: Path, source: Path
) -> None:
    gate = Gate()
    floor = Floor(tmp_path, FakeOrchestrator([REDRAWER], gate=gate), prepare_ahead_s=0)
    equip(floor)
    floor.add("upscale_video", video_source_path=str(source), upscale_factor=2, upscale_model_name="redrawer")
    try:
        with floor.working():
            gate.wait_until_held(30)
            queued = [floor.add(model="fake_t2v") for _ in range(4)]
            floor.wait_until(lambda: len(floor.claimed()) == 2)
            spare = floor.add("nothing")
            floor.wait_for(spare, Status.COMPLETE)
            assert [floor.store.get(row).status for row in queued].count(Status.QUEUED) == 3
    finally:
        floor.close()


def test_the_size_is_floored_to_even(floor: Floor, source: Path) -> None:
    row = floor.add("upscale_video", video_source_path=str(source), upscale_factor=1.31)
    floor.work()
    made = probe_video(floor.output(row))
    assert (made.width, made.height, made.num_frames) == (272, 156, FRAMES)


def test_the_parent_completes_with_the_enlarged_video(floor: Floor, source: Path) -> None:
    """The predecessor asked for a row that did not exist, and waited for it inside the only worker."""
    parent = finished_video(floor, source, "lanczos")
    floor.work()
    first, last = floor.store.children(parent)
    assert [task.status for task in (floor.store.get(parent), first, last)] == [Status.COMPLETE] * 3
    assert floor.store.get(parent).output_location == last.output_location != first.output_location
    assert_enlarged(floor.output(parent), source)
    assert probe_video(floor.output(first.id)).width == SIZE[0], "the video before is still there"
    assert not warnings(floor, last.id)


def test_another_number_of_frames_than_planned_is_in_the_timeline(floor: Floor, source: Path) -> None:
    row = floor.add("upscale_video", video_source_path=str(source), upscale_factor=1.5, frames=12)
    floor.work()
    assert probe_video(floor.output(row)).num_frames == FRAMES
    assert "expected 12, actual 11" in warnings(floor, row)[0]


# ---- a model


def test_a_model_redraws_the_enlarged_video_and_its_padding_is_cut(
    floor: Floor, with_sound: Path, source: Path
) -> None:
    details = {"num_inference_steps": 31, "activated_loras": ["style.safetensors"], "steps": 900}
    parent = finished_video(floor, with_sound, "redrawer", **details)
    floor.work()
    (call,) = floor.engine.calls
    asked = {name: call[name] for name in call if name != "video_guide"}
    assert asked == {
        "prompt": DEFAULT_PROMPT, "seed": 5, "resolution": "416x240", "video_length": 13, "force_fps": "29.97",
        "denoising_strength": 0.3, "video_prompt_type": "GUV",
    }  # fmt: skip
    assert floor.engine.tasks[0].lossless
    assert_enlarged(floor.output(parent), source)
    assert sound_s(floor.output(parent)) == pytest.approx(float(FRAMES / RATE), abs=0.04)


def test_knobs_of_the_row_itself_reach_the_model(floor: Floor, source: Path) -> None:
    row = floor.add(
        "upscale_video", video_source_path=str(source), upscale_factor=1.5, upscale_model_name="redrawer",
        prompt="a rabbit", seed=0, num_inference_steps=3, denoising_strength=0.5,
    )  # fmt: skip
    floor.work()
    (call,) = floor.engine.calls
    wanted = {"prompt": "a rabbit", "seed": 0, "num_inference_steps": 3, "denoising_strength": 0.5}
    assert wanted.items() <= call.items()
    assert call["resolution"] == "320x192"
    made = probe_video(floor.output(row))
    assert (made.width, made.height, made.num_frames) == (312, 180, FRAMES)


@pytest.mark.parametrize("name", ["fake_i2v", "fake_t2v", "fake_image", "no_such_model"])
def test_a_model_that_cannot_redraw_is_refused_and_told_what_works(floor: Floor, source: Path, name: str) -> None:
    failures: list[WanError] = []

    def plan(params: TaskParams, context: TaskContext) -> Done:
        check_upscale(context, "lanczos")
        check_upscale(context, "redrawer")
        try:
            check_upscale(context, name)
        except WanError as error:
            failures.append(error)
        return Done(None)

    floor.register("plan", plan)
    planned = floor.add("plan")
    row = floor.add("upscale_video", video_source_path=str(source), upscale_factor=2, upscale_model_name=name)
    floor.work()
    assert floor.store.get(planned).status is Status.COMPLETE
    assert isinstance(failures[0], Unsupported) and failures[0].field == "upscale_model_name"
    assert "lanczos" in str(failures[0])
    assert floor.store.get(row).status is Status.FAILED
    assert not floor.engine.calls


def test_the_sample_of_a_redraw_shows_the_same_shape_at_the_larger_size(tmp_path: Path) -> None:
    """On the model that ships: what it makes of the source, made smaller again, is the source."""
    floor = Floor(tmp_path, WanOrchestrator(checkpoints=tmp_path / "ckpts", device="cpu"))
    equip(floor)
    sample = json.loads((SAMPLES / "tasks" / "upscale_video.redraw.json").read_text(encoding="utf-8"))
    clip = SAMPLES.parent / sample["video_source_path"]
    try:
        registry().get("upscale_video").parse(sample, strict=True)
        row = floor.add("upscale_video", **sample | {"video_source_path": str(clip)})
        floor.work()
        made = probe_video(floor.output(row))
        shown = list(read_frames(made.path))
    finally:
        floor.close()
    assert (made.width, made.height, made.num_frames, made.fps) == (64, 64, 17, 16)
    assert np.mean([psnr(resize(a, (48, 48)), b) for a, b in zip(shown, read_frames(clip), strict=True)]) > 24
    seen = judge(np.stack(shown))
    assert (seen.colour, seen.shape, seen.direction) == ("red", "circle", "left")


# ---- a finished video is never lost


def test_why_it_was_not_enlarged_is_told_without_secrets(floor: Floor, source: Path) -> None:
    floor.engine.fail_next(ValueError("https://h/model?token=swordfish is gone"))
    parent = finished_video(floor, source, "redrawer")
    floor.work()
    last = floor.store.children(parent)[1]
    assert last.result_data is not None and "is gone" in str(last.result_data["upscale_error"])
    assert "swordfish" not in f"{last.result_data} {warnings(floor, last.id)}"


@pytest.mark.parametrize(("failures", "runs"), [([ValueError("a bug")], 1), ([EngineError("broken")] * 2, 2)])
def test_a_video_that_cannot_be_enlarged_is_passed_on_as_it_was(
    floor: Floor, source: Path, failures: list[Exception], runs: int
) -> None:
    """A fault that may pass is met by a second attempt."""
    for failure in failures:
        floor.engine.fail_next(failure)
    parent = finished_video(floor, source, "redrawer")
    floor.work()
    first, last = floor.store.children(parent)
    assert floor.store.get(parent).status is Status.COMPLETE
    assert same_media(floor.output(parent), source)
    assert same_media(floor.output(first.id), source)
    assert last.result_data is not None
    assert last.result_data["upscaled"] is False and str(failures[0]) in str(last.result_data["upscale_error"])
    assert str(failures[0]) in warnings(floor, last.id)[0]
    assert len(floor.engine.calls) == runs


def test_a_second_attempt_that_succeeds_leaves_nothing_to_warn_of(floor: Floor, source: Path) -> None:
    floor.engine.fail_next(OutOfMemory("too large"))
    parent = finished_video(floor, source, "redrawer")
    floor.work()
    assert_enlarged(floor.output(parent), source)
    assert not warnings(floor, floor.store.children(parent)[1].id)


def test_an_upscaling_of_its_own_fails_as_it_is(floor: Floor, source: Path) -> None:
    """Nothing is lost by it, and a video that was not enlarged is not what was asked for."""
    floor.engine.fail_next(ValueError("a bug"))
    row = floor.add("upscale_video", video_source_path=str(source), upscale_factor=2, upscale_model_name="redrawer")
    floor.work()
    assert floor.store.get(row).status is Status.FAILED


def test_a_task_without_a_video_says_what_is_missing(floor: Floor) -> None:
    row = floor.add("upscale_video", upscale_factor=2)
    floor.work()
    assert "video_source_path" in (floor.store.get(row).error_message or "")


def test_cancelling_is_not_taken_for_a_failure(tmp_path: Path, source: Path) -> None:
    gate = Gate()
    floor = Floor(tmp_path, FakeOrchestrator([REDRAWER], gate=gate))
    equip(floor)
    parent = finished_video(floor, source, "redrawer")
    try:
        with floor.working():
            gate.wait_until_held(30)
            last = floor.store.children(parent)[1]
            floor.store.cancel(last.id)
            ended = floor.wait_for(last.id, Status.CANCELLED)
        assert ended.output_location is None and not warnings(floor, last.id)
    finally:
        floor.close()


def test_a_worker_that_shuts_down_puts_the_task_back(tmp_path: Path, source: Path) -> None:
    gate = Gate()
    floor = Floor(tmp_path, FakeOrchestrator([REDRAWER], gate=gate))
    equip(floor)
    parent = finished_video(floor, source, "redrawer")
    try:
        with floor.working():
            gate.wait_until_held(30)
        last = floor.store.children(parent)[1]
        assert last.status is Status.QUEUED and last.attempts == 0 and last.output_location is None
    finally:
        floor.close()
