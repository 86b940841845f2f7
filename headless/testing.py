"""A fake orchestrator as good as the real one: real checks, progress, cancellation and small real videos, no torch.

    fake = FakeOrchestrator()
    with HeadlessTaskQueue(fake) as queue:
        result = queue.submit(task).result(timeout=10)

What it draws follows from what it was given, so tests can measure it: kept guide frames (black in the mask) and start
and end images appear where they belong, frames between them dissolve from one to the next, and text alone gives a
colour drawn from prompt and seed with a bar that moves one step a frame.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from headless.fake_frames import DEFAULT_FRAMES, check_continued, draw, invented, seed_of
from headless.generation import CancelToken, GenerationOutcome, GenerationTask, ModelInfo, OnProgress, Progress
from headless.inputs import check_inputs, generation_size
from headless.options import GenerationOptions
from Wan2GP.errors import ModelUnavailable, OutOfMemory, UnknownModel, did_you_mean
from Wan2GP.media import Frame, write_image, write_video
from Wan2GP.media.preview import MEDIA_TYPE, MOST_FRAMES, preview_image
from Wan2GP.parameters import LOW_MEMORY_PROFILES
from Wan2GP.previews import Preview

ALL_INPUTS = frozenset({
    "text", "image_start", "image_end", "control_video", "mask", "references", "video_source", "audio", "loras",
})  # fmt: skip

FAKE_MODELS = (
    ModelInfo(
        name="fake_vace",
        architecture="vace",
        inputs=ALL_INPUTS,
        required=frozenset({"text", "control_video"}),
        fps=16,
    ),
    ModelInfo(
        name="fake_i2v",
        architecture="i2v",
        inputs=frozenset({"text", "image_start", "image_end", "video_source", "loras"}),
        required=frozenset({"text", "image_start"}),
        fps=16,
    ),
    ModelInfo(
        name="fake_t2v",
        architecture="t2v",
        inputs=frozenset({"text", "loras"}),
        required=frozenset({"text"}),
        fps=16,
    ),
    ModelInfo(
        name="fake_svi",
        architecture="svi",
        inputs=frozenset({"text", "image_start", "image_end", "video_source", "references", "loras"}),
        required=frozenset({"text", "image_start"}),
        svi=True,
        fps=16,
    ),
    ModelInfo(
        name="fake_vlm",
        architecture="vlm",
        inputs=frozenset({"text", "references"}),
        required=frozenset({"text"}),
        text_output=True,
        fps=1,
    ),
    ModelInfo(
        name="fake_image",
        architecture="image",
        inputs=frozenset({"text", "image_start", "references", "loras"}),
        required=frozenset({"text"}),
        fps=1,
        image_output=True,
    ),
)

DEFAULT_SIZE = (64, 64)


class Gate:
    """Holds runs of a fake until it is opened, so that a test looks at a run that lasts. A cancelled run passes."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._open = False
        self._held = 0

    def open(self) -> None:
        """Let every run pass, from now on."""
        with self._changed:
            self._open = True
            self._changed.notify_all()

    def wait_until_held(self, timeout_s: float = 10.0) -> None:
        """Return once a run stands at the gate. Raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._held > 0, timeout_s):
                raise TimeoutError(f"no run came to the gate within {timeout_s:g} s")

    def hold(self, cancel: CancelToken) -> None:
        """Called by the fake: stand here until the gate is open or the run is cancelled."""
        cancel.on_cancel(self._wake)
        with self._changed:
            self._held += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._open or cancel.cancelled)
            self._held -= 1

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()


class FakeOrchestrator:
    """Implements `headless.generation.Orchestrator` without a model.

    models      further models beside FAKE_MODELS
    steps       denoising steps of a run that asks for none
    step_s      seconds of a step, spent in `wait`
    gate        holds each run in its denoising step `gate_step` (or its last, when it has fewer)
    """

    def __init__(
        self,
        models: Sequence[ModelInfo] = (),
        *,
        steps: int = 2,
        step_s: float = 0.0,
        wait: Callable[[float], None] = time.sleep,
        gate: Gate | None = None,
        gate_step: int = 1,
    ) -> None:
        self._models = {model.name: model for model in (*FAKE_MODELS, *models)}
        self._steps = steps
        self._step_s = step_s
        self._wait = wait
        self._gate = gate
        self._gate_step = gate_step
        self._current: str | None = None
        self._failures: dict[str, deque[BaseException]] = {"load": deque(), "generate": deque()}
        self._answers: deque[tuple[Path, ...]] = deque()
        self._names = itertools.count(1)
        #: the engine's keyword arguments of each run, exactly as the options emit them
        self.calls: list[dict[str, Any]] = []
        #: the tasks of `calls`
        self.tasks: list[GenerationTask] = []
        #: models loaded, in order
        self.loads: list[str] = []
        self.unloads = 0
        #: whether the model in memory was loaded at a profile that takes little
        self.low_memory = False

    # ---- what tests arrange

    def fail_next(self, error: BaseException) -> None:
        """The next run raises `error` after its last step."""
        self._failures["generate"].append(error)

    def fail_next_load(self, error: BaseException) -> None:
        """The next load raises `error`."""
        self._failures["load"].append(error)

    def answer_next(self, *files: Path) -> None:
        """The next run writes nothing and reports `files`: none is a silent failure, an old one a stale result."""
        self._answers.append(files)

    # ---- Orchestrator

    @property
    def current_model(self) -> str | None:
        return self._current

    def models(self) -> list[ModelInfo]:
        return list(self._models.values())

    def describe(self, model: str) -> ModelInfo:
        if model not in self._models:
            known = ", ".join(sorted(self._models))
            raise UnknownModel(
                f"there is no model {model!r}.{did_you_mean(model, self._models)} Known: {known}", field="model"
            )
        return self._models[model]

    def prepare(self, task: GenerationTask) -> GenerationTask:
        model = self.describe(task.model)
        if model.unavailable:
            raise ModelUnavailable(model.unavailable)
        check_inputs(task, model)
        check_continued(task.options)
        return task

    def weight_files(self, model: str) -> tuple[Path, ...]:
        return ()

    def load_model(self, model: str, on_progress: OnProgress, profile: int = -1) -> bool:
        info = self.describe(model)
        low_memory = profile in LOW_MEMORY_PROFILES
        if self._current == model and self.low_memory == low_memory:
            return False
        self.unload_model()
        if info.unavailable:
            raise ModelUnavailable(info.unavailable)
        self._fail("load")
        on_progress(Progress("loading", 1, 1, model))
        self.loads.append(model)
        self._current, self.low_memory = model, low_memory
        return True

    def unload_model(self) -> None:
        if self._current is not None:
            self.unloads += 1
        self._current = None

    def memory_report(self) -> dict[str, object]:
        return {}

    def generate(self, task: GenerationTask, on_progress: OnProgress, cancel: CancelToken) -> GenerationOutcome:
        self.tasks.append(replace(task, prepared=None))  # what was prepared is used up by its run
        self.calls.append(task.options.to_engine())
        try:
            self._denoise(task, on_progress, cancel)
        except OutOfMemory:
            self.unload_model()
            raise
        if self._answers:
            return GenerationOutcome(self._answers.popleft())
        on_progress(Progress("decoding", 1, 1))
        cancel.raise_if_cancelled()
        on_progress(Progress("saving", 1, 1))
        return GenerationOutcome(self._save(task), notes=(f"seed {seed_of(task.options)}",), seed=seed_of(task.options))

    # ---- the run

    def _denoise(self, task: GenerationTask, on_progress: OnProgress, cancel: CancelToken) -> None:
        steps = task.options.num_inference_steps or self._steps
        on_progress(Progress("encoding", 1, 1))
        if task.watcher is not None:
            task.watcher.begin()
        for step in range(1, steps + 1):
            cancel.raise_if_cancelled()
            on_progress(Progress("denoising", step, steps))
            if task.watcher is not None and task.watcher.wants:
                task.watcher.offer(partial(self._preview, task, step))
            if self._gate is not None and step == min(self._gate_step, steps):
                self._gate.hold(cancel)
            if self._step_s:
                self._wait(self._step_s)
            cancel.raise_if_cancelled()
        self._fail("generate")

    def _preview(self, task: GenerationTask, step: int) -> Preview:
        """A few frames of what a run of the prompt alone draws."""
        model = self.describe(task.model)
        size = generation_size(task.options, model) or DEFAULT_SIZE
        frames = np.stack([*invented(task.options, size, 1 if model.image_output else MOST_FRAMES)])
        return Preview(step, MEDIA_TYPE, preview_image(frames))

    def _fail(self, where: str) -> None:
        if self._failures[where]:
            raise self._failures[where].popleft()

    def _save(self, task: GenerationTask) -> tuple[Path, ...]:
        model, options = self.describe(task.model), task.options
        size = generation_size(options, model) or DEFAULT_SIZE
        if model.text_output:
            return (self._write_text(task, model),)
        stem = task.output_dir / f"{model.name}_{next(self._names):05d}"
        if model.image_output:
            return tuple(_write_stills(options, size, stem))
        frames, fps = self._drawn(options, size, options.video_length or DEFAULT_FRAMES), _fps(options, model)
        if task.lossless:
            return (write_video(stem.with_suffix(".mkv"), frames, fps=fps, codec="ffv1").path,)
        return (write_video(stem.with_suffix(".mp4"), frames, fps=fps, preset="veryfast").path,)

    def _drawn(self, options: GenerationOptions, size: tuple[int, int], num_frames: int) -> Iterator[Frame]:
        """The frames of a video, each when it is written."""
        return draw(options, size, num_frames)

    def _write_text(self, task: GenerationTask, model: ModelInfo) -> Path:
        """How many pictures it was shown, and the last line that it was told."""
        answer = task.output_dir / f"{model.name}_{next(self._names):05d}.txt"
        answer.parent.mkdir(parents=True, exist_ok=True)
        last = (task.options.prompt or "").strip().splitlines()[-1:]
        answer.write_text(f"{len(task.options.image_refs or [])} pictures. {''.join(last)}", encoding="utf-8")
        return answer


def _write_stills(options: GenerationOptions, size: tuple[int, int], stem: Path) -> Iterator[Path]:
    """`batch_size` images, their seeds counted up; a second pass makes them larger."""
    width, height = (round(side * (options.hires_scale or 1)) for side in size)
    for number in range(options.batch_size or 1):
        still = next(draw(options.replace(seed=seed_of(options) + number), (width, height), 1))
        yield write_image(stem.with_name(f"{stem.name}_{number + 1}.png"), still)


def _fps(options: GenerationOptions, model: ModelInfo) -> float:
    text = options.force_fps or ""
    return float(text) if text.replace(".", "", 1).isdigit() else float(model.fps)
