"""WanOrchestrator against an engine that only records: keywords, events, interruption, failures, residency."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from headless.compute import check_attention
from headless.engine_run import typed_error
from headless.generation import CancelToken, GenerationTask, Progress
from headless.inputs import check_inputs
from headless.options import GenerationOptions
from headless.orchestrator import MAX_SEED, MemoryPlan, SpeedPlan, WanOrchestrator
from Wan2GP.engine.residency.budgets import Budgets
from Wan2GP.errors import (
    DeviceLost,
    EngineError,
    GenerationCancelled,
    InvalidInput,
    ModelUnavailable,
    OutOfMemory,
    UnknownModel,
)
from Wan2GP.media import write_image
from Wan2GP.parameters import LOW_MEMORY_PROFILES


class RecordingEngine:
    """The functions of the wgp module that the adapter uses. `script` is what a run does."""

    def __init__(self) -> None:
        self.wan_model: Any = None
        self.transformer_type = ""
        self.low_memory = False
        self.settings: dict[str, Any] = {}
        self.runs: list[dict[str, Any]] = []
        self.checks: list[dict[str, Any]] = []
        self.loads: list[str] = []
        self.released = 0
        self.script: Callable[[dict[str, Any]], None] = self.write_one_file
        self.load_failure: Exception | None = None

    def configure(self, **settings: Any) -> None:
        self.settings |= settings

    def prepare_generation(self, **keywords: Any) -> None:
        self.checks.append(keywords)

    def load_models(self, model_type: str, override_profile: int, *, report: Callable[[str, int, int], None]) -> None:
        self.wan_model, self.transformer_type = None, ""
        if self.load_failure is not None:
            failure, self.load_failure = self.load_failure, None
            raise failure
        report("loading", 1, 2)
        self.loads.append(model_type)
        self.wan_model, self.transformer_type = SimpleNamespace(_interrupt=False), model_type
        self.low_memory = override_profile in LOW_MEMORY_PROFILES

    def release_model(self) -> None:
        self.released += 1
        self.wan_model, self.transformer_type = None, ""

    def abort_generation(self, state: dict[str, Any]) -> None:
        if self.wan_model is not None:
            self.wan_model._interrupt = True

    def generate_video(self, **keywords: Any) -> None:
        self.wan_model._interrupt = False
        self.runs.append(keywords)
        self.script(keywords)

    def write_one_file(self, keywords: dict[str, Any]) -> None:
        file = self.settings["save_path"] / f"run_{len(self.runs)}.mp4"
        file.write_bytes(b"frames")
        keywords["state"]["gen"]["file_list"].append(str(file))


@pytest.fixture
def engine() -> RecordingEngine:
    return RecordingEngine()


@pytest.fixture
def orchestrator(engine: RecordingEngine, tmp_path: Path) -> WanOrchestrator:
    return WanOrchestrator(checkpoints=tmp_path / "ckpts", device="cpu", engine=lambda: engine)


@pytest.fixture
def make_task(tmp_path: Path) -> Callable[..., GenerationTask]:
    def make(**knobs: object) -> GenerationTask:
        return GenerationTask(id="t", model="draft", options=GenerationOptions.parse(knobs), output_dir=tmp_path)

    return make


@pytest.fixture
def photo(tmp_path: Path) -> str:
    return str(write_image(tmp_path / "photo.png", np.full((50, 70, 3), (200, 40, 90), np.uint8)))


def ignore(progress: Progress) -> None:
    pass


Make = Callable[..., GenerationTask]


# ---- keywords


def test_the_knobs_asked_for_become_keywords_and_nothing_else(
    orchestrator: WanOrchestrator, engine: RecordingEngine, make_task: Make
) -> None:
    orchestrator.generate(make_task(prompt="a kite", video_length=17, seed=4, flow_shift=3.5), ignore, CancelToken())
    run = engine.runs[0]
    assert {name: run[name] for name in run if name not in ("task", "send_cmd", "state", "model_type")} == {
        "prompt": "a kite",
        "video_length": 17,
        "seed": 4,
        "flow_shift": 3.5,
        "plugin_data": {"save_later": True},
    }
    assert (run["model_type"], run["task"]["prompt"]) == ("draft", "a kite")


def test_a_knob_of_a_subclass_reaches_the_engine(
    orchestrator: WanOrchestrator, engine: RecordingEngine, tmp_path: Path
) -> None:
    class Extended(GenerationOptions):
        sparkle: float | None = None

    task = GenerationTask(id="t", model="draft", options=Extended(sparkle=0.5), output_dir=tmp_path)
    orchestrator.generate(task, ignore, CancelToken())
    assert engine.runs[0]["sparkle"] == 0.5


def test_images_arrive_opened_and_start_and_end_at_the_exact_size(
    orchestrator: WanOrchestrator, engine: RecordingEngine, make_task: Make, photo: str
) -> None:
    task = make_task(image_start=photo, image_end=photo, image_refs=[photo, photo], resolution="45x35")
    orchestrator.generate(task, ignore, CancelToken())
    run = engine.runs[0]
    assert [run[name].size for name in ("image_start", "image_end")] == [(32, 32), (32, 32)]
    assert [image.size for image in run["image_refs"]] == [(70, 50), (70, 50)]
    assert isinstance(run["image_start"], Image.Image) and run["image_start"].getpixel((9, 9)) == (200, 40, 90)


def test_videos_stay_paths(orchestrator: WanOrchestrator, engine: RecordingEngine, make_task: Make) -> None:
    orchestrator.generate(make_task(video_guide="guide.mp4"), ignore, CancelToken())
    assert engine.runs[0]["video_guide"] == "guide.mp4"


@pytest.mark.parametrize("asked", [{}, {"seed": -1}])
def test_a_seed_that_is_not_given_is_drawn_and_noted(
    orchestrator: WanOrchestrator, engine: RecordingEngine, make_task: Make, asked: dict[str, int]
) -> None:
    notes = [orchestrator.generate(make_task(**asked), ignore, CancelToken()).notes for _ in range(2)]
    seeds = [run["seed"] for run in engine.runs]
    assert notes == [(f"seed {seed}",) for seed in seeds]
    assert len(set(seeds)) == 2 and all(0 <= seed <= MAX_SEED for seed in seeds)


def test_seed_zero_is_a_seed(orchestrator: WanOrchestrator, engine: RecordingEngine, make_task: Make) -> None:
    orchestrator.generate(make_task(seed=0), ignore, CancelToken())
    assert engine.runs[0]["seed"] == 0


def test_the_engine_writes_into_the_tasks_folder(
    orchestrator: WanOrchestrator, engine: RecordingEngine, make_task: Make, tmp_path: Path
) -> None:
    outcome = orchestrator.generate(make_task(), ignore, CancelToken())
    assert (engine.settings["save_path"], outcome.written()) == (tmp_path, (tmp_path / "run_1.mp4",))


def test_each_run_has_a_state_of_its_own_so_that_no_file_comes_twice(
    orchestrator: WanOrchestrator, engine: RecordingEngine, make_task: Make
) -> None:
    assert len(orchestrator.generate(make_task(), ignore, CancelToken()).written()) == 1
    engine.script = lambda keywords: None
    assert orchestrator.generate(make_task(), ignore, CancelToken()).written() == ()
    assert engine.runs[0]["state"] is not engine.runs[1]["state"]


# ---- events


def test_events_become_progress_and_notes(
    orchestrator: WanOrchestrator, engine: RecordingEngine, make_task: Make
) -> None:
    def script(keywords: dict[str, Any]) -> None:
        send = keywords["send_cmd"]
        send("status", "Loading model")
        send("progress", [0, "Encoding prompt"])
        send("progress", [(3, 8), "Denoising", 8])
        send("preview", object())
        send("progress", [(1, 5), "VAE Decoding", 5])
        send("status", "Saving video")
        send("info", "guidance_scale is ignored")
        send("output")
        send("exit")

    engine.script = script
    seen: list[Progress] = []
    outcome = orchestrator.generate(make_task(seed=1), seen.append, CancelToken())
    assert [(p.phase, p.step, p.total) for p in seen] == [
        ("loading", 1, 2),
        ("loading", 0, 0),
        ("encoding", 0, 0),
        ("denoising", 3, 8),
        ("decoding", 1, 5),
        ("saving", 0, 0),
    ]
    assert set(outcome.notes) == {"seed 1", "guidance_scale is ignored"}


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ("the sampler broke", EngineError),
        ("CUDA out of memory. Tried to allocate 2 GiB", OutOfMemory),
        ("CUDA error: an illegal memory access was encountered", DeviceLost),
        (InvalidInput("too long", field="video_length"), InvalidInput),
    ],
)
def test_an_error_event_is_raised_with_its_type(
    orchestrator: WanOrchestrator, engine: RecordingEngine, make_task: Make, data: Any, kind: type[Exception]
) -> None:
    engine.script = lambda keywords: keywords["send_cmd"]("error", data)
    with pytest.raises(kind, match=str(data)[:12]):
        orchestrator.generate(make_task(), ignore, CancelToken())


# ---- cancel


def test_cancel_reaches_the_state_and_the_model_at_work(
    orchestrator: WanOrchestrator, engine: RecordingEngine, make_task: Make
) -> None:
    token = CancelToken()

    def script(keywords: dict[str, Any]) -> None:
        token.cancel(GenerationCancelled("enough"))
        assert keywords["state"]["gen"]["abort"] and engine.wan_model._interrupt

    engine.script = script
    with pytest.raises(GenerationCancelled, match="enough"):
        orchestrator.generate(make_task(), ignore, token)


def test_a_cancel_that_the_engines_start_wiped_out_is_repeated(
    orchestrator: WanOrchestrator, engine: RecordingEngine, make_task: Make
) -> None:
    def script(keywords: dict[str, Any]) -> None:
        assert not engine.wan_model._interrupt
        keywords["send_cmd"]("progress", [(1, 9), "Denoising", 9])
        assert engine.wan_model._interrupt

    engine.script = script
    token = CancelToken()
    token.cancel()
    with pytest.raises(GenerationCancelled):
        orchestrator.generate(make_task(), ignore, token)


def test_a_late_cancel_of_one_run_leaves_the_next_alone(
    orchestrator: WanOrchestrator, engine: RecordingEngine, make_task: Make
) -> None:
    token = CancelToken()
    orchestrator.generate(make_task(), ignore, token)

    def script(keywords: dict[str, Any]) -> None:
        token.cancel()
        assert not engine.wan_model._interrupt and not keywords["state"]["gen"]["abort"]

    engine.script = script
    orchestrator.generate(make_task(), ignore, CancelToken())


# ---- failures


@pytest.mark.parametrize("failure", [RuntimeError("CUDA out of memory."), MemoryError(), OutOfMemory("no room")])
def test_out_of_memory_unloads_and_keeps_no_frame_of_the_failure(
    orchestrator: WanOrchestrator, engine: RecordingEngine, make_task: Make, failure: Exception
) -> None:
    def script(keywords: dict[str, Any]) -> None:
        raise failure

    engine.script = script
    with pytest.raises(OutOfMemory) as caught:
        orchestrator.generate(make_task(), ignore, CancelToken())
    assert (orchestrator.current_model, engine.released) == (None, 1)
    assert caught.value is not failure and caught.value.__cause__ is None and caught.value.__context__ is None


def test_out_of_memory_while_loading_leaves_no_model(orchestrator: WanOrchestrator, engine: RecordingEngine) -> None:
    engine.load_failure = RuntimeError("not enough memory: you tried to allocate 60 GB")
    with pytest.raises(OutOfMemory):
        orchestrator.load_model("draft", ignore)
    assert orchestrator.current_model is None
    assert orchestrator.load_model("draft", ignore)


def test_a_load_that_its_listener_stops_leaves_no_model(orchestrator: WanOrchestrator, engine: RecordingEngine) -> None:
    def stop(progress: Progress) -> None:
        assert (progress.phase, progress.step, progress.total) == ("loading", 1, 2)
        raise GenerationCancelled()

    with pytest.raises(GenerationCancelled):
        orchestrator.load_model("draft", stop)
    assert (orchestrator.current_model, engine.loads) == (None, [])


def test_an_unforeseen_error_stays_what_it_is(
    orchestrator: WanOrchestrator, engine: RecordingEngine, make_task: Make
) -> None:
    def script(keywords: dict[str, Any]) -> None:
        raise RuntimeError("shapes do not match")

    engine.script = script
    with pytest.raises(RuntimeError, match="shapes do not match"):
        orchestrator.generate(make_task(), ignore, CancelToken())
    assert orchestrator.current_model == "draft"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("CUDA error: out of memory", OutOfMemory),
        ("CUDA error: device-side assert triggered", DeviceLost),
        ("CUDA error: unspecified launch failure", DeviceLost),
        ("CUDA error: uncorrectable ECC error encountered", DeviceLost),
        ("CUDA error: invalid argument", type(None)),
        ("mat1 and mat2 shapes cannot be multiplied", type(None)),
    ],
)
def test_messages_of_the_driver_are_recognised(text: str, kind: type) -> None:
    assert type(typed_error(RuntimeError(text))) is kind


# ---- models


def test_a_model_is_loaded_once_and_an_alias_is_the_same_model(tmp_path: Path, engine: RecordingEngine) -> None:
    orchestrator = WanOrchestrator(checkpoints=tmp_path, device="cpu", engine=lambda: engine)
    assert orchestrator.load_model("draft", ignore)
    assert not orchestrator.load_model("draft", ignore)
    assert (engine.loads, orchestrator.current_model) == (["draft"], "draft")
    orchestrator.unload_model()
    assert orchestrator.load_model("draft", ignore)


def test_the_engine_is_told_where_things_are(tmp_path: Path, engine: RecordingEngine) -> None:
    folder = tmp_path / "definitions"
    folder.mkdir()
    loras = tmp_path / "loras"
    orchestrator = WanOrchestrator(
        checkpoints=tmp_path, loras=loras, definitions=[folder], device="cpu", engine=lambda: engine,
        memory=MemoryPlan(profile=4, gpu_gb=0.5, cache_mb=3), speed=SpeedPlan("sdpa", True, "bf16", 16, True),
    )  # fmt: skip
    assert engine.settings == {}
    orchestrator.load_model("draft", ignore)
    places = {"checkpoints": tmp_path, "loras": loras, "definitions": (folder,), "device": "cpu"}
    speed = {"attention": "sdpa", "compiled": True, "quantization": "bf16"}
    speed |= {"vae_precision": 16, "vae_channels_last": True}
    assert engine.settings == places | speed | {"profile": 4, "budgets": Budgets(1 << 29, None, 3 << 20)}


def test_a_kernel_of_attention_that_is_not_installed_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="wgp_attention_mode: 'sage2' runs on a GPU alone; use auto"):
        WanOrchestrator(checkpoints=tmp_path, device="cpu", speed=SpeedPlan(attention="sage2"))
    with pytest.raises(InvalidInput, match="'sage2' needs sageattention, not installed here; use auto"):
        check_attention("sage2", "cuda")
    check_attention("sdpa", "cpu")


def test_fp8_is_refused_at_once_where_no_task_could_compute_in_it(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"wgp_transformer_quantization: fp8 .* 8\.9 .* cpu has none; use bf16"):
        WanOrchestrator(checkpoints=tmp_path, device="cpu", speed=SpeedPlan(quantization="fp8"))


def test_a_model_whose_definition_turns_svi_on_takes_an_anchor(tmp_path: Path, photo: str) -> None:
    row = {"model": {"name": "Chain", "architecture": "i2v_2_2", "URLs": "i2v_2_2"}, "svi2pro": 1}
    (tmp_path / "chain.json").write_text(json.dumps(row), encoding="utf-8")
    model = WanOrchestrator(checkpoints=tmp_path, definitions=[tmp_path], device="cpu").describe("chain")
    options = GenerationOptions(prompt="a kite", image_start=photo, image_refs=[photo])
    check_inputs(GenerationTask(id="t", model="chain", options=options, output_dir=tmp_path), model)


def test_models_are_described_by_their_declarations(orchestrator: WanOrchestrator) -> None:
    models = {model.name: model for model in orchestrator.models()}
    assert models["draft"].unavailable is None and models["draft"].required == frozenset()
    assert models["vace_14B"].required == {"text", "control_video"}
    assert models["i2v"].required == {"text", "image_start"}
    assert orchestrator.describe("i2v_14B") == models["i2v"]


def test_an_unknown_model_names_the_nearest(orchestrator: WanOrchestrator) -> None:
    with pytest.raises(UnknownModel, match="vace_14B"):
        orchestrator.describe("vace_15B")


def test_a_model_whose_weights_are_missing_says_how_to_fetch_them(
    orchestrator: WanOrchestrator, tmp_path: Path, engine: RecordingEngine
) -> None:
    options = GenerationOptions(prompt="a kite")
    task = GenerationTask(id="t", model="t2v_1.3B", options=options, output_dir=tmp_path)
    with pytest.raises(ModelUnavailable, match=r"Wan2GP\.models fetch .*work here: .*draft"):
        orchestrator.prepare(task)
    with pytest.raises(ModelUnavailable):
        orchestrator.load_model("t2v_1.3B", ignore)
    assert engine.loads == []


def test_the_engine_has_its_say_before_a_model_is_loaded(
    orchestrator: WanOrchestrator, engine: RecordingEngine, make_task: Make, photo: str
) -> None:
    prepared = orchestrator.prepare(make_task(image_start=photo, seed=3))
    (check,) = engine.checks
    assert (check.pop("image_start").size, check) == (
        (70, 50),
        {"model_type": "draft", "seed": 3, "plugin_data": {"save_later": True}},
    )
    assert engine.loads == []
    orchestrator.generate(prepared, ignore, CancelToken())
    assert (len(engine.checks), engine.runs[0]["image_start"].size) == (1, (70, 50))


def test_describing_from_many_threads_is_safe(orchestrator: WanOrchestrator) -> None:
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.extend(model.name for model in orchestrator.models())) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 * len(orchestrator.models())


@pytest.mark.parametrize("device", ["bogus", "cuda:77"])
def test_a_device_that_the_machine_lacks_is_refused_at_once(tmp_path: Path, device: str) -> None:
    with pytest.raises(InvalidInput, match=rf"^device: this machine has no '{device}'; it has cpu"):
        WanOrchestrator(checkpoints=tmp_path, device=device)
