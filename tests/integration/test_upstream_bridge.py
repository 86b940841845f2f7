"""The bridge to upstream checkouts: real child interpreters, stand-ins of three shapes, and what real ones do wrong."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
from preview_runs import PATIENCE_S, frames_of
from upstream_checkouts import API, OLD, RENAMED, SHAPES, calls, checkout
from worker_floor import Floor

from headless.bridge.orchestrator import Patience, UpstreamOrchestrator
from headless.generation import CancelToken, GenerationTask, Progress
from headless.model_management import HeadlessTaskQueue
from headless.options import GenerationOptions
from source.store.types import Status
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
from Wan2GP.previews import Preview, Watcher

Bridges = Callable[..., "Bridge"]
QUICK = Patience(silence_s=20, stopping_s=1, release_s=5)


class Bridge:
    """A stand-in, its bridge, and a queue on it."""

    def __init__(
        self, folder: Path, shape: str, patience: Patience = QUICK, settings: Mapping[str, Any] | None = None,
        **behaviour: Any,
    ) -> None:  # fmt: skip
        self.folder = folder / "checkout"
        self.path = checkout(self.folder, shape, **behaviour)
        self.engine = UpstreamOrchestrator(
            self.path, environment=os.environ, patience=patience, settings=settings or {}
        )
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
        return noted(self.folder.parent, name)

    @property
    def loads(self) -> list[str]:
        return [each["model"] for each in self.noted("loads.jsonl") if "model" in each]


Floors = Callable[[str], Floor]
ROW = {"prompt": "a cat", "model": "t2v", "resolution": "64x48", "seed": 7, "video_length": 17}


def noted(folder: Path, name: str) -> list[dict[str, Any]]:
    """What a stand-in in `folder` noted in one of its files."""
    file = folder / "checkout" / name
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.fixture
def floors(tmp_path: Path) -> Iterator[Floors]:
    """A worker on a real SQLite file whose engine is a checkout."""
    made: list[tuple[Floor, UpstreamOrchestrator]] = []

    def make(shape: str) -> Floor:
        path = checkout(tmp_path / "checkout", shape)
        engine = UpstreamOrchestrator(path, environment=os.environ, patience=QUICK)
        made.append((Floor(tmp_path, engine), engine))
        return made[-1][0]

    yield make
    for floor, engine in made:
        floor.close()
        engine.close()


@pytest.fixture
def bridges(tmp_path: Path) -> Iterator[Bridges]:
    made: list[Bridge] = []

    def make(shape: str = OLD, **given: Any) -> Bridge:
        made.append(Bridge(tmp_path / str(len(made)), shape, **given))
        made[-1].queue.start()
        return made[-1]

    yield make
    for each in made:
        each.queue.stop()
        each.engine.close()


def ours() -> tuple[Any, ...]:
    return os.getcwd(), tuple(sys.argv), tuple(sys.path), dict(os.environ), "wgp" in sys.modules


@pytest.mark.parametrize("shape", [OLD, pytest.param(RENAMED, marks=pytest.mark.slow), API])
def test_ten_rows_are_done_by_one_model_in_one_interpreter_that_leaves_ours_alone(
    floors: Floors, shape: str, tmp_path: Path
) -> None:
    before, floor = ours(), floors(shape)
    rows = [floor.add(**ROW | {"video_length": 17 + 4 * (number % 3)}) for number in range(10)]
    assert floor.work() == 0
    videos = [probe_video(floor.output(row)) for row in rows]
    assert [each.num_frames for each in videos] == [17, 21, 25] * 3 + [17]
    assert {(each.width, each.height) for each in videos} == {(64, 48)}
    assert ours() == before
    assert noted(tmp_path, "loads.jsonl")[:1] == [{"model": "t2v", "profile": -1}]
    assert len(noted(tmp_path, "loads.jsonl")) == 1 and floor.engine.current_model == "t2v"
    seen = [each["process"] for each in calls(tmp_path / "checkout")]
    assert {each["cwd"] for each in seen} == {str(tmp_path / "checkout")}
    assert {tuple(each["argv"]) for each in seen} == {("wgp.py",)}
    assert {each["descriptors"] for each in seen} == {0}


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_a_row_is_cancelled_in_mid_run_and_a_crash_costs_another_one_attempt(
    floors: Floors, shape: str, tmp_path: Path
) -> None:
    floor = floors(shape)
    cancelled = floor.add(**ROW | {"prompt": "slow", "num_inference_steps": 200})
    crashed, last = (
        floor.add(**ROW | {"prompt": "it dies once"}),
        floor.add(**ROW | {"prompt": "a dog", "video_length": 21}),
    )
    with floor.working():
        floor.wait_until(lambda: (floor.store.get(cancelled).progress or {}).get("step", 0) >= 2)
        assert (floor.store.get(cancelled).progress or {})["total"] == 200
        floor.store.cancel(cancelled)
        ends = [floor.wait_for(row, Status.COMPLETE) for row in (crashed, last)]
    assert floor.store.get(cancelled).status is Status.CANCELLED
    assert [each.attempts for each in ends] == [1, 0]
    said = str(floor.store.events(crashed))
    assert "about to die" in said and "hf_0123456789" not in said
    assert [probe_video(floor.output(each.id)).num_frames for each in ends] == [17, 21]
    prompts = [each["settings"]["prompt"] for each in calls(tmp_path / "checkout")]
    assert sorted(prompts) == ["a dog", "it dies once", "it dies once", "slow"]
    assert len(noted(tmp_path, "loads.jsonl")) == 2, "the interpreter that was cancelled is the one that went on"


@pytest.mark.slow
def test_a_run_that_does_not_stop_is_stopped_with_its_interpreter(bridges: Bridges) -> None:
    bridge = bridges()
    assert isinstance(bridge.cancelled("deaf"), GenerationCancelled)
    assert bridge.engine.current_model is None
    assert probe_video(bridge.run("a dog").output).num_frames == 17
    assert bridge.loads == ["t2v", "t2v"]


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_failure_is_what_it_is_and_costs_an_interpreter_only_where_it_must(bridges: Bridges) -> None:
    bridge = bridges()
    for prompt, error, told, loads in (
        ("swallowed", EngineError, "it went wrong inside", 1),
        ("silently", NoOutput, "without a file", 1),
        ("raises", EngineError, "KeyError: 'a part of it'", 1),
        ("a lora", InvalidInput, r"missing\.safetensors was not found", 1),
        ("it dies", EngineError, "killed by signal 9.*about to die", 1),
        ("garbage", EngineError, "no message", 2),
        ("memory raised", OutOfMemory, "Tried to allocate 2 GiB", 3),
        ("memory", OutOfMemory, "insufficient VRAM", 4),
        ("sticky", EngineError, "illegal memory access.*the next run gets a new one", 5),
    ):
        with pytest.raises(error, match=rf"(?s){told}"):
            bridge.run(prompt)
        assert len(bridge.loads) == loads, prompt
    with pytest.raises(DeviceLost, match="illegal memory access"):
        bridge.run("sticky")
    assert bridge.queue.lost, "two interpreters one after the other have lost the device"


@pytest.mark.slow
def test_failures_that_a_session_reports_are_the_same(bridges: Bridges) -> None:
    bridge = bridges(API)
    for prompt, error in (("swallowed", EngineError), ("silently", EngineError), ("memory", OutOfMemory)):
        with pytest.raises(error):
            bridge.run(prompt)
    assert bridge.run("a dog").files


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "pictures"), [(API, True), (OLD, False)])
def test_a_checkout_with_a_session_shows_its_own_pictures(bridges: Bridges, shape: str, pictures: bool) -> None:
    """An older one hands out latents alone, which are left where they are."""
    bridge, shown = bridges(shape), SimpleQueue[Preview]()
    task = replace(bridge.task(), watcher=Watcher(shown.put, interval_s=0))
    bridge.queue.submit(task).result(timeout=60)
    if not pictures:
        assert shown.empty()
        return
    frames = frames_of(shown.get(timeout=PATIENCE_S))
    assert frames.shape == (1, 128, 192, 3)
    assert np.abs(frames.astype(int) - (200, 40, 90)).max() <= 6


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


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    """One checkout for the tests that harm none: with settings and a configuration that somebody saved."""
    bridge = Bridge(tmp_path_factory.mktemp("old"), OLD)
    (bridge.folder / "settings").mkdir()
    (bridge.folder / "settings" / "t2v_settings.json").write_text(json.dumps({"flow_shift": 99, "seed": 3}))
    (bridge.folder / "wgp_config.json").write_text(json.dumps(CONFIG))
    bridge.queue.start()
    yield bridge
    bridge.queue.stop()
    bridge.engine.close()


CONFIG = {"save_path": "elsewhere", "image_save_path": "elsewhere", "kept": True}


@pytest.mark.slow
def test_settings_that_a_user_saved_change_nothing_and_none_are_saved(old: Bridge) -> None:
    old.run("a cat")
    old.run("a cat", model="i2v", image_start=str(_picture(old.folder)))
    settings = calls(old.folder)[-2]["settings"]
    assert (settings["flow_shift"], settings["num_inference_steps"]) == (7, 3)
    assert [path.name for path in (old.folder / "settings").iterdir()] == ["t2v_settings.json"]


@pytest.mark.slow
def test_the_configuration_of_a_checkout_is_not_rewritten_by_a_lossless_video(old: Bridge) -> None:
    assert [old.run("a cat", lossless=wanted).output.suffix for wanted in (True, False)] == [".mkv", ".mp4"]
    assert json.loads((old.folder / "wgp_config.json").read_text()) == CONFIG
    assert not (old.folder / "elsewhere").exists()


@pytest.mark.slow
def test_loras_act_although_old_versions_look_for_them_in_the_state(old: Bridge) -> None:
    lora = old.folder.parent / "one.safetensors"
    lora.write_bytes(b"")
    old.run("a cat", activated_loras=[str(lora), "named_by_the_checkout"])
    old.run("a cat")
    assert [each["applied"] for each in old.noted("loras.jsonl")[-2:]] == [[str(lora), "named_by_the_checkout"], []]


@pytest.mark.slow
def test_windows_are_told_and_the_last_one_is_the_result(old: Bridge) -> None:
    old.progress.clear()
    result = old.run("windows", video_length=33)
    phases = list(dict.fromkeys(each.phase for each in old.progress))
    assert phases == ["loading", "encoding", "denoising", "decoding"]
    denoised = [(each.step, each.total, each.windows) for each in old.progress if each.phase == "denoising"]
    assert denoised == [(1, 3, 2), (2, 3, 2), (3, 3, 2)]
    assert [probe_video(file).num_frames for file in result.files] == [13, 33]
    assert probe_video(result.output).num_frames == 33


@pytest.mark.slow
def test_images_are_given_as_images_of_the_size_that_is_made(old: Bridge) -> None:
    old.run("a cat", model="i2v", image_start=str(_picture(old.folder)), resolution="70x50")
    settings = calls(old.folder)[-1]["settings"]
    assert settings["image_start"] == {"image": [64, 48], "mode": "RGB"}
    assert settings["image_prompt_type"] == "S"


@pytest.mark.slow
def test_media_that_a_version_does_not_take_are_refused_and_knobs_are_noted(old: Bridge, samples: Path) -> None:
    before, video = len(calls(old.folder)), str(samples / "bbb_320x180_keyframes.mp4")
    with pytest.raises(Unsupported, match=r"^vid2vid_init_video: the checkout's version does not take it"):
        old.run("a cat", vid2vid_init_video=video)
    assert len(calls(old.folder)) == before
    result = old.run("a cat", motion_amplitude=1.2)
    assert "motion_amplitude is ignored: the checkout's version does not have it" in result.notes


@pytest.mark.slow
def test_a_still_is_an_image(old: Bridge) -> None:
    assert old.run("a cat", video_length=1).output.suffix == ".png"
    assert old.run("a cat", model="z_image").output.suffix == ".jpg"
    assert [each["settings"]["video_length"] for each in calls(old.folder)[-2:]] == [5, 1]


@pytest.mark.slow
def test_what_a_checkout_writes_is_logged_for_its_task(old: Bridge, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    old.run("a cat", model="newcomer")
    said = [each.getMessage() for each in caplog.records if each.name == "headless.program"]
    assert "Wan2GP: loading newcomer" in said


@pytest.mark.slow
def test_parameters_of_tomorrow_get_the_checkouts_defaults_or_are_named(bridges: Bridges) -> None:
    bridge = bridges(RENAMED, more=("brand_new", "without"), defaults={"brand_new": 5, "without": 6})
    bridge.run("a cat")
    assert [calls(bridge.folder)[-1]["settings"][name] for name in ("brand_new", "without")] == [5, 6]
    bridge = bridges(RENAMED, more=("brand_new", "without"), defaults={"brand_new": 5})
    with pytest.raises(ModelUnavailable, match="generate_media wants without, which has no default"):
        bridge.run("a cat")


@pytest.mark.slow
def test_how_the_machine_is_used_is_set_in_memory_alone(bridges: Bridges) -> None:
    settings = {"attention_mode": "sage2", "profile": 2, "nobody_has_it": 1}
    for shape in (OLD, API):
        bridge = bridges(shape, settings=settings)
        bridge.run("a cat")
        assert bridge.noted("engine.jsonl") == [{"attention": "sage2", "profile": 2, "container": "mp4"}]
        assert "sage2" not in (bridge.folder / "wgp_config.json").read_text()


@pytest.mark.slow
def test_a_sound_is_a_result_and_a_run_without_any_tells_what_was_said(bridges: Bridges) -> None:
    bridge = bridges(RENAMED)
    assert bridge.run("sound").output.name == "sound.wav"
    with pytest.raises(NoOutput, match="this attention is not there"):
        bridge.run("attention")


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_load_that_says_nothing_is_given_up(bridges: Bridges) -> None:
    bridge = bridges(OLD, patience=Patience(silence_s=2, stopping_s=1, release_s=1), load="hang")
    with pytest.raises(EngineError, match="said nothing for 2 s"):
        bridge.run("a cat")
    assert bridge.engine.current_model is None


@pytest.mark.slow
def test_a_load_is_cancelled_at_the_next_line_that_it_says(bridges: Bridges) -> None:
    bridge = bridges(OLD, load="chatter")
    token = CancelToken()

    def listen(progress: Progress) -> None:
        if progress.text.startswith("still loading 5"):
            token.cancel()

    future = bridge.queue.submit(bridge.task(), on_progress=listen, cancel=token)
    assert isinstance(future.exception(60), GenerationCancelled)


# ---- the start


@pytest.mark.slow
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


@pytest.mark.slow
def test_what_a_checkout_is_started_with(bridges: Bridges, tmp_path: Path) -> None:
    path = checkout(tmp_path / "checkout", OLD)
    environment = {"PATH": "/nowhere", "PYTHONPATH": "/ours", "HOME": str(tmp_path), "CUDA_VISIBLE_DEVICES": "4,6"}
    options = GenerationOptions(prompt="a cat", video_length=17, resolution="64x48")
    task = GenerationTask(id="one", model="t2v", options=options, output_dir=tmp_path / "out")
    engine = UpstreamOrchestrator(path, environment=environment, device="cuda:1", tools=tmp_path / "tools")
    with engine, HeadlessTaskQueue(engine) as queue:
        assert 0 <= (queue.submit(task).result(timeout=60).seed or 0) < 1e9
    variables = calls(path)[0]["process"]["environment"]
    assert "PYTHONPATH" not in variables
    assert (variables["CUDA_VISIBLE_DEVICES"], variables["MPLBACKEND"]) == ("6", "Agg")
    assert variables["PATH"] == f"/nowhere:{tmp_path}/tools"
    assert os.access(tmp_path / "tools" / "ffmpeg", os.X_OK), "it is where the checkout looks for it"


def _picture(folder: Path) -> Path:
    from PIL import Image

    path = folder.parent / "picture.png"
    Image.new("RGB", (200, 100), (10, 200, 30)).save(path)
    return path
