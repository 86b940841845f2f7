"""A fake orchestrator as good as the real one: real checks, progress, cancellation and small real videos, no torch.

    fake = FakeOrchestrator()
    with HeadlessTaskQueue(fake) as queue:
        result = queue.submit(task).result(timeout=10)

What it draws follows from what it was given, so tests can measure it: kept guide frames (black in the mask) and start
and end images appear where they belong, frames between them dissolve from one to the next, and text alone gives a
colour drawn from prompt and seed with a bar that moves one step a frame.
"""

from __future__ import annotations

import hashlib
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from headless.generation import CancelToken, GenerationOutcome, GenerationTask, ModelInfo, OnProgress, Progress
from headless.inputs import check_inputs, generation_size
from headless.options import GenerationOptions
from Wan2GP.architecture import SVI_LEAST_CONTEXT, SVI_OVERLAP
from Wan2GP.errors import InvalidInput, ModelUnavailable, OutOfMemory, UnknownModel, did_you_mean
from Wan2GP.frame_numbers import keep_from_source
from Wan2GP.media import Frame, probe_video, read_frames, read_image, resize, write_image, write_video
from Wan2GP.parameters import LOW_MEMORY_PROFILES

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
DEFAULT_FRAMES = 17
#: a mask pixel below this keeps the guide's
MASK_MIDDLE = 128


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
        _check_continued(task.options)
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
            self._denoise(task.options.num_inference_steps or self._steps, on_progress, cancel)
        except OutOfMemory:
            self.unload_model()
            raise
        if self._answers:
            return GenerationOutcome(self._answers.popleft())
        on_progress(Progress("decoding", 1, 1))
        cancel.raise_if_cancelled()
        on_progress(Progress("saving", 1, 1))
        return GenerationOutcome(self._save(task), notes=(f"seed {_seed(task.options)}",), seed=_seed(task.options))

    # ---- the run

    def _denoise(self, steps: int, on_progress: OnProgress, cancel: CancelToken) -> None:
        on_progress(Progress("encoding", 1, 1))
        for step in range(1, steps + 1):
            cancel.raise_if_cancelled()
            on_progress(Progress("denoising", step, steps))
            if self._gate is not None and step == min(self._gate_step, steps):
                self._gate.hold(cancel)
            if self._step_s:
                self._wait(self._step_s)
            cancel.raise_if_cancelled()
        self._fail("generate")

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
        still = next(draw(options.replace(seed=_seed(options) + number), (width, height), 1))
        yield write_image(stem.with_name(f"{stem.name}_{number + 1}.png"), still)


def draw(options: GenerationOptions, size: tuple[int, int], num_frames: int) -> Iterator[Frame]:
    """`num_frames` RGB frames of `size` (width, height): the given ones exactly, a dissolve between them.

    What is kept of a video that is continued comes first; of the frames asked for, those that it shares with them are
    its own. Control videos count as the engine's do: from the first frame of the result, with letter T from the first
    new one. Before the first given frame and after the last one that frame is held. Holds two given frames in memory.
    """
    before: tuple[int, Frame] | None = None
    num_frames += _kept_of_source(options) - _shared(options)
    for index, frame in _given(options, size, num_frames):
        for position in range(0 if before is None else before[0] + 1, index):
            yield _blend(before[1], frame, (position - before[0]) / (index - before[0])) if before else frame
        yield frame
        before = (index, frame)
    if before is None:
        yield from _invented(options, size, num_frames)
    else:
        yield from itertools.repeat(before[1], num_frames - 1 - before[0])


def _given(options: GenerationOptions, size: tuple[int, int], num_frames: int) -> Iterator[tuple[int, Frame]]:
    """(index, frame) of each frame that the task fixes, in order."""
    begun, end = _kept_of_source(options), options.image_end if num_frames > 1 else None
    if options.video_source:
        for index, shown in enumerate(read_frames(Path(options.video_source), 0, begun)):
            yield index, resize(shown, size)
    elif options.image_start:
        begun = 1
        yield 0, resize(read_image(Path(options.image_start)), size)
    first = begun if options.video_source and "T" in (options.video_prompt_type or "") else 0
    for index, frame in enumerate(itertools.islice(_kept(options), num_frames - first), start=first):
        if frame is not None and index >= begun and not (end and index == num_frames - 1):
            yield index, resize(frame, size)
    if end:
        yield num_frames - 1, resize(read_image(Path(end)), size)


def _kept_of_source(options: GenerationOptions) -> int:
    """Frames of the continued video that begin the result; 0 without one. Raises InvalidInput when none is kept."""
    if not options.video_source:
        return 0
    there = probe_video(options.video_source).num_frames
    return keep_from_source(options.keep_frames_video_source or "", there)


def _shared(options: GenerationOptions) -> int:
    """Frames of the continued video that count among the frames asked for."""
    asked = 1 if options.sliding_window_overlap is None else options.sliding_window_overlap
    return min(SVI_OVERLAP if options.svi2pro else asked, _kept_of_source(options))


def _check_continued(options: GenerationOptions) -> None:
    """Raises what the engine raises for a video that cannot be gone on from, or that nothing would be added to."""
    kept = _kept_of_source(options)
    if kept and options.image_start:
        raise InvalidInput("video_source is where the video begins; give one of the two", field="image_start")
    if kept and (options.video_length or DEFAULT_FRAMES) <= _shared(options):
        raise InvalidInput("leaves nothing to add to video_source", field="sliding_window_overlap")
    if options.svi2pro and 0 < kept < SVI_LEAST_CONTEXT:
        raise InvalidInput(f"SVI goes on from {SVI_LEAST_CONTEXT} frames or more, not {kept}", field="video_source")


def _kept(options: GenerationOptions) -> Iterator[Frame | None]:
    """The control video, None where its mask asks for a new frame. Without a mask every frame is kept."""
    if not options.video_guide:
        return
    guide = read_frames(Path(options.video_guide))
    if not options.video_mask:
        yield from guide
        return
    inverted = "N" in (options.video_prompt_type or "")
    for frame, mask in zip(guide, read_frames(Path(options.video_mask)), strict=False):
        yield frame if (mask.mean() < MASK_MIDDLE) != inverted else None


def _blend(first: Frame, second: Frame, share: float) -> Frame:
    mixed = first.astype(np.float32) * (1 - share) + second.astype(np.float32) * share
    return np.rint(mixed).astype(np.uint8)


def _invented(options: GenerationOptions, size: tuple[int, int], num_frames: int) -> Iterator[Frame]:
    """A plain colour from prompt and seed; a white bar an eighth as wide as the picture crosses it once."""
    width, height = size
    digest = hashlib.sha256(f"{options.prompt}|{_seed(options)}".encode()).digest()
    bar = max(1, width // 8)
    for index in range(num_frames):
        frame = np.empty((height, width, 3), np.uint8)
        frame[:] = np.frombuffer(digest[:3], np.uint8) // 2 + 32
        left = (width - bar) * index // max(1, num_frames - 1)
        frame[:, left : left + bar] = 255
        yield frame


def _seed(options: GenerationOptions) -> int:
    return options.seed if options.seed is not None and options.seed >= 0 else 0


def _fps(options: GenerationOptions, model: ModelInfo) -> float:
    text = options.force_fps or ""
    return float(text) if text.replace(".", "", 1).isdigit() else float(model.fps)
