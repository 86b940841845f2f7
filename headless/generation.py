"""What goes into the queue, what comes out, and what is reported on the way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from headless.accounting import IDLE, Activity
from headless.options import GenerationOptions
from Wan2GP.errors import GenerationCancelled
from Wan2GP.previews import Watcher

if TYPE_CHECKING:  # the schedules it names need numpy, which a command that only queues a row does without
    from Wan2GP.architecture import Architecture


@dataclass(frozen=True)
class Prepared:
    """What an orchestrator made of a task before its turn."""

    #: for the orchestrator alone
    content: Any = None
    #: what it takes of memory until the run begins
    num_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class GenerationTask:
    """One run of the engine. Media in `options` are local paths by now."""

    id: str
    model: str
    options: GenerationOptions
    #: the engine writes its files here and nowhere else
    output_dir: Path
    #: larger first
    priority: int = 0
    #: where the run keeps its state, to go on from there when it is submitted again after its process died. The same
    #: folder for the same run, and another for every other; who names it removes it. None: nothing is kept
    checkpoint_dir: Path | None = None
    #: shortest time between two kept states; 0 keeps each step's
    checkpoint_interval_s: float = 2.0
    #: write a video as lossless FFV1 (mkv): for a caller that encodes the frames itself, once
    lossless: bool = False
    #: who is shown what it looks like so far; None: nobody
    watcher: Watcher | None = field(default=None, repr=False, compare=False)
    #: what `Orchestrator.prepare` made of it; None: it is made when the run begins
    prepared: Prepared | None = field(default=None, repr=False, compare=False)

    def made_with(self, outcome: GenerationOutcome) -> dict[str, Any]:
        """`seed`, `settings` and `beside` of its result."""
        drawn = {} if outcome.seed is None else {"seed": outcome.seed}
        return {"seed": outcome.seed, "settings": self.options.to_engine() | drawn, "beside": outcome.beside}


@dataclass(frozen=True, kw_only=True)
class GenerationResult:
    """What one run produced."""

    #: new files of this run, in the order in which the engine reported them
    files: tuple[Path, ...]
    model: str
    #: seconds in the engine, without loading
    seconds: float
    load_seconds: float
    #: whether another model had to be loaded for this run
    switched: bool
    peak_memory_bytes: int
    #: remarks of the engine: options that the model ignores, values it changed
    notes: tuple[str, ...] = ()
    #: the seed that was used, drawn or given; None when the engine has not said
    seed: int | None = None
    #: every knob that was asked for, by the engine's names, with that seed; media are local paths
    settings: Mapping[str, Any] = field(default_factory=dict)
    #: models that prepared or finished the run beside its own
    beside: tuple[str, ...] = ()

    @property
    def output(self) -> Path:
        """The last file: with several, the complete one."""
        return self.files[-1]


@dataclass(frozen=True)
class Progress:
    """Where a run is. `phase` is queued, loading, encoding, denoising, decoding or saving."""

    phase: str
    step: int = 0
    total: int = 0
    text: str = ""
    #: the window of a long video that is made, counted from 1, and how many there are; 0 where that is not known
    window: int = 0
    windows: int = 0
    #: median of the latest denoising steps
    seconds_per_step: float | None = None
    #: seconds until the frames of all windows are there, as far as it can be told
    eta_s: float | None = None

    @property
    def fraction(self) -> float:
        """0-1 within the phase."""
        return self.step / self.total if self.total else 0.0


OnProgress = Callable[[Progress], None]


class CancelToken:
    """Asks one run to stop. Thread-safe; the first reason stays."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._reason: GenerationCancelled | None = None
        self._callbacks: list[Callable[[], None]] = []

    @property
    def cancelled(self) -> bool:
        return self._event.is_set()

    @property
    def reason(self) -> GenerationCancelled | None:
        """What `cancel` was given; None while nobody asked to stop."""
        return self._reason

    def cancel(self, reason: GenerationCancelled | None = None) -> None:
        with self._lock:
            if self._event.is_set():
                return
            self._reason = reason or GenerationCancelled()
            self._event.set()
            callbacks = list(self._callbacks)
        for callback in callbacks:
            callback()

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Call `callback` once when cancelled; at once when that happened already."""
        with self._lock:
            self._callbacks.append(callback)
            late = self._event.is_set()
        if late:
            callback()

    def wait(self, timeout_s: float) -> None:
        """Wait, at most until it is cancelled; that raises as `raise_if_cancelled` does."""
        self._event.wait(timeout_s)
        self.raise_if_cancelled()

    def raise_if_cancelled(self) -> None:
        """Raises the reason given to `cancel` (GenerationCancelled or a subclass)."""
        if self._reason is not None:
            raise self._reason


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """What callers need to know of a model before they plan work for it. Declared, never guessed from its name."""

    name: str
    architecture: str
    #: among text, image_start, image_end, control_video, mask, references, video_source, audio, loras
    inputs: frozenset[str]
    fps: int
    #: a valid length is `frame_step * k + 1` and at least `min_frames`
    frame_step: int = 4
    min_frames: int = 5
    #: both sides are multiples of this
    pixel_block: int = 16
    #: the inputs, among `inputs`, without which it cannot work
    required: frozenset[str] = frozenset()
    image_output: bool = False
    #: makes stills: always, or when `image_mode` is 1
    stills: bool = False
    #: answers with text, in a file of its own
    text_output: bool = False
    #: goes on from a video by an anchor image and that video's last latent frame (SVI 2 Pro), when `svi2pro` is 1
    svi: bool = False
    #: folder of its family's LoRA files, inside the folder of all LoRA files
    lora_folder: str = "wan"
    #: files or device that are missing on this machine, with the command that fetches them; None when it works here
    unavailable: str | None = None

    @classmethod
    def of(
        cls, name: str, architecture_name: str, architecture: Architecture, *, has_prompt: bool = False,
        unavailable: str | None = None,
    ) -> Self:  # fmt: skip
        """A model as its architecture declares it. `has_prompt`: it brings one, so none has to be given."""
        needs = {
            "text": "text" in architecture.inputs and not has_prompt,
            "control_video": architecture.vace,
            "image_start": architecture.i2v,
        }
        return cls(
            name=name,
            architecture=architecture_name,
            inputs=architecture.inputs,
            required=frozenset(each for each, needed in needs.items() if needed),
            fps=architecture.fps,
            frame_step=architecture.frame_step,
            min_frames=architecture.min_frames,
            pixel_block=architecture.pixel_block,
            image_output=architecture.image_output,
            stills=architecture.image_output or architecture.image_too,
            text_output=architecture.text_output,
            svi=architecture.svi,
            lora_folder=architecture.lora_folder,
            unavailable=unavailable,
        )

    def takes(self, *inputs: str) -> bool:
        return self.inputs.issuperset(inputs)


@dataclass(frozen=True)
class QueueStatus:
    """The queue at one moment."""

    pending: int
    running: str | None
    completed: int
    failed: int
    cancelled: int
    loaded_model: str | None
    uptime_s: float


@dataclass
class QueueStatistics:
    """Totals since the queue started."""

    submitted: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    model_loads: int = 0
    #: what the latest load of each model took
    load_seconds_by_model: dict[str, float] = field(default_factory=dict)
    #: seconds by activity (`headless.accounting.Activity`); together they are `uptime_s`
    seconds: Mapping[str, float] = field(default_factory=dict)
    uptime_s: float = 0.0
    #: seconds between the end of one run and the start of the next, when the next was already waiting
    hand_off_seconds: list[float] = field(default_factory=list)

    @property
    def load_seconds(self) -> float:
        return self.seconds[Activity.LOAD]

    @property
    def generation_seconds(self) -> float:
        """Seconds of our own runs, without loading."""
        return self.uptime_s - self.load_seconds - self.seconds[Activity.LENT] - self.idle_seconds

    @property
    def idle_seconds(self) -> float:
        return sum(self.seconds[activity] for activity in IDLE)


class Orchestrator(Protocol):
    """The seam between the queue and an engine. `WanOrchestrator` is the real one, `headless.testing` has a fake.

    Called by the queue's one thread, except `models`, `describe`, `weight_files` and `prepare`, which any thread may
    call while a run is at work.
    """

    @property
    def current_model(self) -> str | None:
        """The model in memory."""

    def models(self) -> list[ModelInfo]:
        """Every model definition."""

    def describe(self, model: str) -> ModelInfo:
        """Raises UnknownModel, naming the nearest."""

    def prepare(self, task: GenerationTask) -> GenerationTask:
        """Validate everything, and read what the run is given, without the accelerator: the same task with what was
        `prepared`. Raises InvalidInput, ModelUnavailable or OutOfMemory (of the host)."""

    def weight_files(self, model: str) -> tuple[Path, ...]:
        """The local files that `model` is loaded from. Raises UnknownModel. Any thread may call it."""

    def load_model(self, model: str, on_progress: OnProgress, profile: int = -1) -> bool:
        """Make `model` the one at work, at a memory profile; True when it had to be read from its files, and not when
        it was in memory in the form of that profile. Raises UnknownModel, ModelUnavailable, OutOfMemory.

        What `on_progress` raises ends the load and leaves no model in memory: so a load is cancelled.
        """

    def unload_model(self) -> None:
        """Free the memory of all models."""

    def memory_report(self) -> Mapping[str, Any]:
        """What is in memory, and how often what was found there, as JSON; {} where nothing is told. Any thread may
        call it."""

    def generate(self, task: GenerationTask, on_progress: OnProgress, cancel: CancelToken) -> GenerationOutcome:
        """Run the loaded model; uses up what `prepare` made. Raises GenerationCancelled, OutOfMemory, DeviceLost,
        EngineError, InvalidInput."""


@dataclass(frozen=True)
class GenerationOutcome:
    """What an orchestrator returns of one run."""

    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()
    peak_memory_bytes: int = 0
    #: the seed that was used
    seed: int | None = None
    #: models that helped beside the run's own
    beside: tuple[str, ...] = ()
    #: where files are still being written: waits for them, on any thread, and returns all in place of `files`. Raises
    #: what kept them from being written
    saved: Callable[[], tuple[Path, ...]] | None = None

    def written(self) -> tuple[Path, ...]:
        """The files, as soon as they are there."""
        return self.saved() if self.saved is not None else self.files
