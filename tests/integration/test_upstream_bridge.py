"""The bridge to upstream checkouts: real child interpreters, stand-ins of three shapes, and what real ones do wrong."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from upstream_checkouts import API, OLD, RENAMED, SHAPES, calls, checkout

from headless.bridge.orchestrator import Patience, UpstreamOrchestrator
from headless.generation import CancelToken, GenerationTask, Progress
from headless.model_management import HeadlessTaskQueue
from headless.options import GenerationOptions
from Wan2GP.errors import (
    DeviceLost,
    EngineError,
    GenerationCancelled,
    InvalidInput,
    ModelUnavailable,
    NoOutput,
    OutOfMemory,
    Unsupported,
)
from Wan2GP.media import probe_video

Bridges = Callable[..., "Bridge"]
QUICK = Patience(silence_s=20, stopping_s=1, release_s=5)


class Bridge:
    """A stand-in, its bridge, and a queue on it."""

    def __init__(self, folder: Path, shape: str, patience: Patience = QUICK, **behaviour: Any) -> None:
        self.folder = folder / "checkout"
        self.path = checkout(self.folder, shape, **behaviour)
        self.engine = UpstreamOrchestrator(self.path, environment=os.environ, patience=patience)
        self.outputs = folder / "outputs"
        self.queue = HeadlessTaskQueue(self.engine)
        self.progress: list[Progress] = []
        self._count = 0

    def task(self, prompt: str = "a cat", model: str = "t2v", lossless: bool = False, **options: Any) -> GenerationTask:
        self._count += 1
        name = f"task-{self._count}"
        asked = {"video_length": 17, "resolution": "64x48", "seed": 7} | options
        return GenerationTask(
            id=name, model=model, options=GenerationOptions.parse({"prompt": prompt} | asked),
            output_dir=self.outputs / name, lossless=lossless,
        )  # fmt: skip

    def run(self, prompt: str = "a cat", **given: Any) -> Any:
        future = self.queue.submit(self.task(prompt, **given), on_progress=self.progress.append)
        return future.result(timeout=60)

    def cancelled(self, prompt: str) -> BaseException | None:
        """What a run ends with that is cancelled at its first denoising step."""
        token = CancelToken()

        def listen(progress: Progress) -> None:
            if progress.phase == "denoising":
                token.cancel()

        return self.queue.submit(
            self.task(prompt, num_inference_steps=200), on_progress=listen, cancel=token
        ).exception(60)

    def noted(self, name: str) -> list[dict[str, Any]]:
        noted = self.folder / name
        return [json.loads(line) for line in noted.read_text().splitlines()] if noted.exists() else []

    @property
    def loads(self) -> list[str]:
        return [each["model"] for each in self.noted("loads.jsonl") if "model" in each]


@pytest.fixture
def bridges(tmp_path: Path) -> Iterator[Bridges]:
    made: list[Bridge] = []

    def make(shape: str = OLD, **given: Any) -> Bridge:
        made.append(Bridge(tmp_path, shape, **given))
        made[-1].queue.start()
        return made[-1]

    yield make
    for each in made:
        each.queue.stop()
        each.engine.close()


def ours() -> tuple[Any, ...]:
    return os.getcwd(), tuple(sys.argv), tuple(sys.path), dict(os.environ), "wgp" in sys.modules


@pytest.mark.parametrize("shape", SHAPES)
def test_ten_tasks_are_drawn_by_one_model_in_one_interpreter_and_leave_ours_alone(
    bridges: Bridges, shape: str, tmp_path: Path
) -> None:
    before, bridge = ours(), bridges(shape)
    results = [bridge.run("a cat", video_length=17 + 4 * (number % 3)) for number in range(10)]
    videos = [probe_video(each.output) for each in results]
    assert [each.num_frames for each in videos] == [17, 21, 25] * 3 + [17]
    assert {(each.width, each.height) for each in videos} == {(64, 48)}
    assert bridge.loads == ["t2v"] and bridge.engine.current_model == "t2v"
    assert ours() == before
    denoised = [(each.step, each.total) for each in bridge.progress if each.phase == "denoising"]
    assert denoised == [(1, 3), (2, 3), (3, 3)] * 10
    assert {"loading", "encoding", "denoising", "decoding"} <= {each.phase for each in bridge.progress}
    seen = calls(bridge.folder)
    assert {each["process"]["cwd"] for each in seen} == {str(bridge.folder)}
    assert {tuple(each["process"]["argv"]) for each in seen} == {("wgp.py",)}
    assert {each["process"]["descriptors"] for each in seen} == {0}
    assert all(each["save_path"] == str(result.output.parent) for each, result in zip(seen, results, strict=True))
    assert results[0].seed == 7 and "seed 7" in results[0].notes


@pytest.mark.parametrize("shape", SHAPES)
def test_a_run_is_cancelled_in_the_middle_and_the_next_one_is_not(bridges: Bridges, shape: str) -> None:
    bridge = bridges(shape)
    assert isinstance(bridge.cancelled("slow"), GenerationCancelled)
    assert probe_video(bridge.run("a dog").output).num_frames == 17
    assert bridge.loads == ["t2v"], "the interpreter that was cancelled is the one that went on"
    assert bridge.noted("calls.jsonl")[0]["settings"]["num_inference_steps"] == 200


def test_a_run_that_does_not_stop_is_stopped_with_its_interpreter(bridges: Bridges) -> None:
    bridge = bridges()
    assert isinstance(bridge.cancelled("deaf"), GenerationCancelled)
    assert bridge.engine.current_model is None
    assert probe_video(bridge.run("a dog").output).num_frames == 17
    assert bridge.loads == ["t2v", "t2v"]


def test_who_listens_may_end_a_run(bridges: Bridges) -> None:
    bridge = bridges()

    def stale(progress: Progress) -> None:
        if progress.phase == "denoising":
            raise EngineError("the claim is gone")

    future = bridge.queue.submit(bridge.task("slow", num_inference_steps=200), on_progress=stale)
    with pytest.raises(EngineError, match="the claim is gone"):
        future.result(timeout=60)
    assert bridge.run("a dog").files
    assert bridge.loads == ["t2v"]


@pytest.mark.parametrize(
    ("prompt", "error", "told", "loads"),
    [
        ("it dies", EngineError, "killed by signal 9.*about to die", 2),
        ("garbage", EngineError, "no message", 2),
        ("memory raised", OutOfMemory, "Tried to allocate 2 GiB", 2),
        ("memory", OutOfMemory, "insufficient VRAM", 2),
        ("sticky", EngineError, "illegal memory access.*the next run gets a new one", 2),
        ("swallowed", EngineError, "it went wrong inside", 1),
        ("silently", NoOutput, "without a file", 1),
        ("raises", EngineError, "KeyError: 'a part of it'", 1),
        ("a lora", InvalidInput, r"missing\.safetensors was not found", 1),
    ],
)
def test_a_failure_is_what_it_is_and_the_next_task_is_done(
    bridges: Bridges, prompt: str, error: type[Exception], told: str, loads: int
) -> None:
    bridge = bridges()
    with pytest.raises(error, match=rf"(?s){told}") as raised:
        bridge.run(prompt)
    assert type(raised.value) is not DeviceLost
    assert probe_video(bridge.run("a dog").output).num_frames == 17
    assert len(bridge.loads) == loads


@pytest.mark.parametrize("shape", [RENAMED, API])
def test_failures_of_newer_shapes(bridges: Bridges, shape: str) -> None:
    bridge = bridges(shape)
    for prompt, error in (("swallowed", EngineError), ("silently", EngineError), ("memory", OutOfMemory)):
        with pytest.raises(error):
            bridge.run(prompt)
    assert bridge.run("a dog").files


def test_a_device_that_two_interpreters_lose_is_lost(bridges: Bridges) -> None:
    bridge = bridges()
    with pytest.raises(EngineError):
        bridge.run("sticky")
    with pytest.raises(DeviceLost, match="illegal memory access"):
        bridge.run("sticky")
    assert bridge.queue.lost


def test_memory_that_runs_out_is_tried_once_more_at_another_profile(bridges: Bridges) -> None:
    bridge = bridges()
    task = bridge.task("memory")
    less = bridge.task("a dog", override_profile=5)
    result = bridge.queue.submit(task, on_out_of_memory=lambda _: less).result(timeout=60)
    assert result.files
    assert [(each["model"], each["profile"]) for each in bridge.noted("loads.jsonl") if "model" in each] == [
        ("t2v", -1),
        ("t2v", 5),
    ]


# ---- the pitfalls


def test_settings_that_a_user_saved_change_nothing_and_none_are_saved(bridges: Bridges) -> None:
    bridge = bridges(OLD)
    (bridge.folder / "settings").mkdir()
    saved = bridge.folder / "settings" / "t2v_settings.json"
    saved.write_text(json.dumps({"flow_shift": 99, "multi_prompts_gen_type": 1, "num_inference_steps": 77}))
    bridge.run("a cat")
    bridge.run("a cat", model="i2v", image_start=str(_picture(bridge.folder)))
    settings = calls(bridge.folder)[0]["settings"]
    assert (settings["flow_shift"], settings["num_inference_steps"]) == (7, 3)
    assert sorted(path.name for path in saved.parent.iterdir()) == ["t2v_settings.json"]


def test_the_configuration_of_a_checkout_is_not_rewritten(bridges: Bridges) -> None:
    bridge = bridges(OLD)
    kept = json.dumps({"save_path": "elsewhere", "image_save_path": "elsewhere", "kept": True})
    (bridge.folder / "wgp_config.json").write_text(kept)
    bridge.run("a cat")
    assert bridge.run("a cat", lossless=True).files
    assert (bridge.folder / "wgp_config.json").read_text() == kept
    assert not (bridge.folder / "elsewhere").exists()


@pytest.mark.parametrize("shape", SHAPES)
def test_a_lossless_video_is_written_where_one_is_wanted(bridges: Bridges, shape: str) -> None:
    bridge = bridges(shape)
    assert [bridge.run("a cat", lossless=wanted).output.suffix for wanted in (True, False)] == [".mkv", ".mp4"]


@pytest.mark.parametrize("shape", [OLD, RENAMED])
def test_loras_act_although_old_versions_look_for_them_in_the_state(bridges: Bridges, shape: str) -> None:
    bridge = bridges(shape)
    lora = bridge.folder.parent / "one.safetensors"
    lora.write_bytes(b"")
    bridge.run("a cat", activated_loras=[str(lora), "named_by_the_checkout"])
    bridge.run("a cat")
    assert [each["applied"] for each in bridge.noted("loras.jsonl")] == [[str(lora), "named_by_the_checkout"], []]


def test_the_last_of_several_windows_is_the_result(bridges: Bridges) -> None:
    bridge = bridges()
    result = bridge.run("windows", video_length=33)
    assert [probe_video(file).num_frames for file in result.files] == [13, 33]
    assert probe_video(result.output).num_frames == 33
    assert {each.windows for each in bridge.progress if each.phase == "denoising"} == {2}


def test_images_are_given_as_images_of_the_size_that_is_made(bridges: Bridges) -> None:
    bridge = bridges(OLD)
    bridge.run("a cat", model="i2v", image_start=str(_picture(bridge.folder)), resolution="70x50")
    settings = calls(bridge.folder)[0]["settings"]
    assert settings["image_start"] == {"image": [64, 48], "mode": "RGB"}
    assert settings["image_prompt_type"] == "S"


def test_a_still_is_an_image(bridges: Bridges) -> None:
    bridge = bridges(RENAMED)
    assert bridge.run("a cat", video_length=1).output.suffix == ".png"
    assert bridge.run("a cat", model="z_image").output.suffix == ".jpg"
    assert [each["settings"]["video_length"] for each in calls(bridge.folder)] == [5, 1]


def test_models_are_swapped_and_memory_is_given_back(bridges: Bridges) -> None:
    bridge = bridges(RENAMED)
    for model in ("t2v", "newcomer", "t2v"):
        bridge.run("a cat", model=model)
    with bridge.queue.lend("another program"):
        assert bridge.engine.current_model is None
        events = bridge.noted("loads.jsonl")
    assert [each.get("model", "released") for each in events] == [
        "t2v", "released", "newcomer", "released", "t2v", "released",
    ]  # fmt: skip


def test_a_load_that_says_nothing_is_given_up(bridges: Bridges) -> None:
    bridge = bridges(OLD, patience=Patience(silence_s=2, stopping_s=1, release_s=1), load="hang")
    with pytest.raises(EngineError, match="said nothing for 2 s"):
        bridge.run("a cat")
    assert bridge.engine.current_model is None


def test_a_load_is_cancelled_at_the_next_line_that_it_says(bridges: Bridges) -> None:
    bridge = bridges(OLD, load="chatter")
    token = CancelToken()

    def listen(progress: Progress) -> None:
        if progress.text.startswith("still loading 5"):
            token.cancel()

    future = bridge.queue.submit(bridge.task(), on_progress=listen, cancel=token)
    assert isinstance(future.exception(60), GenerationCancelled)


# ---- the start


@pytest.mark.parametrize(
    ("behaviour", "told"),
    [
        ("mmgp", "wgp.py ended its process while it was imported"),
        ("cuda", "needs a GPU that its torch can use: Found no NVIDIA driver"),
        ("no models", "knows no models"),
    ],
)
def test_a_checkout_that_cannot_be_imported_says_why(tmp_path: Path, behaviour: str, told: str) -> None:
    path = checkout(tmp_path / "checkout", OLD, **{"import": behaviour})
    with UpstreamOrchestrator(path, environment=os.environ) as engine, pytest.raises(ModelUnavailable, match=told):
        engine.start()


def test_a_checkout_whose_import_hangs_is_given_up(tmp_path: Path) -> None:
    path = checkout(tmp_path / "checkout", OLD, **{"import": "hang"})
    patience = Patience(silence_s=2)
    engine = UpstreamOrchestrator(path, environment=os.environ, patience=patience)
    with engine, pytest.raises(EngineError, match="said nothing for 2 s"):
        engine.start()


def test_what_a_checkout_is_started_with(bridges: Bridges, tmp_path: Path) -> None:
    path = checkout(tmp_path / "checkout", OLD)
    environment = {"PATH": "/nowhere", "PYTHONPATH": "/ours", "HOME": str(tmp_path), "CUDA_VISIBLE_DEVICES": "4,6"}
    options = GenerationOptions(prompt="a cat", video_length=17, resolution="64x48")
    task = GenerationTask(id="one", model="t2v", options=options, output_dir=tmp_path / "out")
    engine = UpstreamOrchestrator(path, environment=environment, device="cuda:1")
    with engine, HeadlessTaskQueue(engine) as queue:
        assert 0 <= (queue.submit(task).result(timeout=60).seed or 0) < 1e9
    variables = calls(path)[0]["process"]["environment"]
    assert "PYTHONPATH" not in variables
    assert (variables["CUDA_VISIBLE_DEVICES"], variables["MPLBACKEND"]) == ("6", "Agg")
    assert variables["PATH"].startswith("/nowhere:"), "ffmpeg is where the checkout looks for it"


def test_media_that_a_version_does_not_take_are_refused_and_knobs_are_noted(bridges: Bridges, samples: Path) -> None:
    bridge = bridges(OLD)
    video = str(samples / "bbb_320x180_keyframes.mp4")
    with pytest.raises(Unsupported, match=r"^vid2vid_init_video: the checkout's version does not take it"):
        bridge.run("a cat", vid2vid_init_video=video)
    result = bridge.run("a cat", motion_amplitude=1.2)
    assert "motion_amplitude is ignored: the checkout's version does not have it" in result.notes
    assert len(calls(bridge.folder)) == 1


def test_what_a_checkout_writes_is_logged_for_its_task(bridges: Bridges, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    bridge = bridges(OLD)
    bridge.run("a cat")
    said = [each.getMessage() for each in caplog.records if each.name == "headless.program"]
    assert "Wan2GP: a stand-in says hello on standard output: {not json" in said
    assert "Wan2GP: and this on standard error" in said


def _picture(folder: Path) -> Path:
    from PIL import Image

    path = folder.parent / "picture.png"
    Image.new("RGB", (200, 100), (10, 200, 30)).save(path)
    return path
