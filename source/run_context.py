"""What a running task may do: the `TaskContext` of one run, and what all runs of a worker share."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from functools import cached_property, partial
from pathlib import Path
from queue import SimpleQueue

from headless.accounting import Seconds
from headless.generation import CancelToken, GenerationResult, GenerationTask, ModelInfo, Progress
from headless.model_management import HeadlessTaskQueue
from headless.options import GenerationOptions
from source.checkpoints import Checkpoints
from source.comfy.program import ComfyProgram
from source.disk import Disk
from source.errors import InvalidInput, InvalidMedia, ModelUnavailable, OutOfMemory, StoreError, TaskNotFound, Transient
from source.leftovers import keeps_intermediates
from source.logs import secret_values
from source.loras import LoRAStore, TaskLoRAs
from source.media.fetch import MediaFetcher
from source.media.places import Folders
from source.outbox import Outbox
from source.provenance.ingredients import Ingredients
from source.provenance.record import FileNote, as_text
from source.provenance.recording import Lineage, lineage_of, pinned_seed, record
from source.provenance.weights import WeightDigests
from source.reporting import GENERATING, ProgressReport, persist, watcher_of
from source.settings import Settings
from source.storage import OnSent, Storage, claim_name, sanitise_filename
from source.store.base import TaskStore
from source.store.types import Event, Status, Task
from source.task_registry import Dependency, TaskRegistry
from source.trail import Trail
from Wan2GP.media.digest import FileDigests
from Wan2GP.parameters import LEAST_MEMORY_PROFILE

log = logging.getLogger(__name__)

#: the timeline's entry of a run that is repeated in little memory
OUT_OF_MEMORY = "out_of_memory"
#: told of every progress of a task, and of its end (None)
Watch = Callable[[Task, Progress | None], None]


@dataclass(frozen=True)
class Workplace:
    """What all runs of a worker share."""

    settings: Settings
    store: TaskStore
    queue: HeadlessTaskQueue
    registry: TaskRegistry
    describe: Callable[[str], ModelInfo]
    options_class: type[GenerationOptions]
    storage: Storage
    outbox: Outbox
    checkpoints: Checkpoints
    loras: LoRAStore
    comfy: ComfyProgram
    watch: Watch
    #: called when a run has come to another stage
    wake: Callable[[], None]
    #: the local files that a model is loaded from
    weights: Callable[[str], Sequence[Path]]
    weight_digests: WeightDigests
    disk: Disk
    digests: FileDigests = field(default_factory=FileDigests)
    #: files that tasks were given, by path or address
    seen: dict[str, FileNote] = field(default_factory=dict)
    #: set when the worker leaves: nothing is waited for any longer
    closing: threading.Event = field(default_factory=threading.Event)


class Stage(Enum):
    """Where a run is on its way past the GPU."""

    BEFORE = auto()
    GENERATING = auto()
    AFTER = auto()


class RunContext:
    """The `TaskContext` of one run."""

    def __init__(self, workplace: Workplace, task: Task, token: CancelToken) -> None:
        self.task = task
        self.settings = workplace.settings
        self.stage = Stage.BEFORE
        self._workplace = workplace
        self._token = token
        self.spent: Seconds = {}  # of the GPU's time, by activity
        self.ran_out = False  # of memory, once, and the run was repeated in little
        self.last_try = False  # out of memory once more, and the task fails
        self._moved: tuple[str, int, int] | None = None
        self._generations = 0
        interval_s = self.settings.report_interval_s
        self.progress_report = ProgressReport(workplace.store, task.claim, token, interval_s=interval_s)

    @cached_property
    def trail(self) -> Trail:
        """The debug trail; its warnings are entries of the task's timeline."""
        return Trail(self.remember)

    def remember(self, name: str, detail: str) -> None:
        """An entry of the timeline. A database that is out of reach is no reason to stop: it is left out."""
        try:
            self._workplace.store.note(self.task.claim, name, detail)
        except StoreError as error:
            log.debug("the timeline lacks %s: %s", detail, error)

    @cached_property
    def keeps_intermediates(self) -> bool:
        """Whether the scratch folder stays when the claim ends: a setting of the worker, or a flag of the row."""
        return keeps_intermediates(self.settings, self.task.params)

    @cached_property
    def scratch(self) -> Path:
        """A folder of this claim alone. What a dead worker left of an earlier claim is removed first."""
        folder = self.settings.main_output_dir.resolve() / sanitise_filename(self.task.task_type)
        mark = self.settings.database_mark
        if not self.settings.keep_scratch:
            for number in range(max(1, self.task.claim_number - 20), self.task.claim_number):
                shutil.rmtree(folder / claim_name(replace(self.task, claim_number=number), mark), ignore_errors=True)
        scratch = folder / claim_name(self.task, mark)
        scratch.mkdir(parents=True, exist_ok=True)
        return scratch

    @cached_property
    def _fetcher(self) -> MediaFetcher:
        return MediaFetcher(
            self.settings, self.scratch / "inputs", self._token.raise_if_cancelled,
            storage=self._workplace.storage, own=(self.scratch,), reader=self.task.id,
        )  # fmt: skip

    @cached_property
    def _made_of(self) -> Ingredients:
        check = self._token.raise_if_cancelled
        place = self._workplace
        may_read = Folders.of(self.settings, self.scratch).allow
        return Ingredients(place.digests, place.storage, self.settings.ckpts, check, place.seen, may_read)

    @cached_property
    def _lineage(self) -> Lineage:
        return persist(lambda: lineage_of(self.task, self._workplace.store), self._workplace.closing)

    def record(self) -> str:
        """How the output was made, for the output itself. Waits for digests of weights; raises GenerationCancelled."""
        return as_text(record(self._lineage, self._made_of, self._output_here), secret_values(self.settings))

    @cached_property
    def _loras(self) -> TaskLoRAs:
        return self._workplace.loras.for_task(self._token.raise_if_cancelled, self._note_download)

    def release(self) -> None:
        """The task is over: what it held for itself alone is let go."""
        if "_loras" in vars(self):
            self._loras.release()

    def model(self, name: str) -> ModelInfo:
        """Raises UnknownModel, and ModelUnavailable when it cannot run on this machine."""
        info = self._workplace.describe(name)
        if info.unavailable:
            raise ModelUnavailable(info.unavailable)
        return info

    def fetch(self, reference: str, *, kind: str, field: str) -> Path:
        """A path or URL as a local file, checked to be an `image`, `video` or `audio`. Raises InvalidMedia."""
        self._token.raise_if_cancelled()
        path = self._fetcher.fetch(reference, kind=kind, field=field)
        if not path.is_relative_to(self.scratch) or path.is_relative_to(self._fetcher.folder):
            self._made_of.given(reference, path)  # what the task made itself on the way is none of its inputs
        return path

    def dependencies(self) -> Sequence[Dependency]:
        """What this task depends on; asking one for its output raises InvalidMedia that names the task and the file."""
        if not self.task.dependant_on:
            return []
        rows = persist(lambda: self._workplace.store.dependencies(self.task.id), self._workplace.closing)
        return [Dependency(row, partial(self._located, row, "dependant_on")) for row in rows]

    def output_of(self, task_id: str, *, field: str) -> Path:
        """The output of a finished task as a local file. Raises InvalidInput for one that is not there or not Complete,
        InvalidMedia for an output that is missing."""
        self._token.raise_if_cancelled()
        try:
            row = persist(lambda: self._workplace.store.get(task_id), self._workplace.closing)
        except TaskNotFound:
            raise InvalidInput(f"there is no task {task_id}", field=field) from None
        if not self._may_read(row):
            raise InvalidInput(f"there is no task {task_id} in the project of this one", field=field)
        if row.status is not Status.COMPLETE:
            raise InvalidInput(
                f"task {row.id} ({row.task_type}) is {row.status}, so it has no output; "
                "name it in dependant_on too, so that this task waits for it",
                field=field,
            )
        return self._located(row, field)

    def _may_read(self, row: Task) -> bool:
        """A worker sees the rows of everybody, and this row was written by somebody. What it depends on was looked at
        when it was added."""
        own = row.project_id == self.task.project_id or row.id in self.task.dependant_on
        return own or self.settings.db_type == "sqlite"

    def _output_here(self, row: Task) -> Path | None:
        """The output of another task as a local file; None where it has none, or none that can be had."""
        try:
            return self._located(row, "dependant_on")
        except (InvalidInput, Transient, StoreError, OSError):
            return None

    def _located(self, row: Task, field: str) -> Path:
        location = row.output_location
        try:
            if not location:
                raise InvalidMedia("it has no output")
            if location.startswith("files/"):
                return self._workplace.storage.resolve(location)
            return self._fetcher.locate(location)
        except InvalidInput as error:
            raise InvalidMedia(
                f"the output of task {row.id} ({row.task_type}) cannot be used: {error}", field=field
            ) from error

    @property
    def comfy(self) -> ComfyProgram:
        """The worker's ComfyUI."""
        return self._workplace.comfy

    @contextmanager
    def gpu_for_another(self) -> Iterator[None]:
        """The GPU for another program: inside the block our model is unloaded and nothing generates. Waits its turn."""
        self.report("queued")
        with self._workplace.queue.lend(
            self.task.id, priority=self.task.priority, cancel=self._token, spent=self.spent
        ):
            self._reach(Stage.GENERATING)
            try:
                yield
            finally:
                self._reach(Stage.AFTER)

    def without_gpu(self) -> None:
        """This task has no use for the GPU after all: generations may be claimed beside it."""
        self._reach(Stage.AFTER)

    def wait(self, seconds: float) -> None:
        """Wait. Raises GenerationCancelled as soon as this task should stop; 0 only looks."""
        self._token.wait(seconds)

    def on_stop(self, tell: Callable[[], None]) -> None:
        """Have `tell` called once when this task should stop."""
        self._token.on_cancel(tell)

    def entries(self, name: str) -> list[Event]:
        """The timeline's entries of that name since the row was queued from outside: first, or for another try."""
        events = persist(lambda: self._workplace.store.events(self.task.id), self._workplace.closing)
        queued = max((index for index, event in enumerate(events) if event.name == "queued"), default=0)
        return [event for event in events[queued:] if event.name == name]

    def keep(self, name: str, detail: str) -> None:
        """Make an entry of the task's timeline, which a later claim of it may read (`kept`)."""
        persist(lambda: self._workplace.store.note(self.task.claim, name, detail), self._workplace.closing)

    def kept(self, name: str) -> str | None:
        """The latest entry of that name, by whichever claim."""
        events = persist(lambda: self._workplace.store.events(self.task.id), self._workplace.closing)
        return next((event.detail for event in reversed(events) if event.name == name), None)

    def report(self, phase: str, step: int = 0, total: int = 0, text: str = "") -> None:
        """Report progress. Raises GenerationCancelled when this task should stop."""
        self._token.raise_if_cancelled()
        self._note(Progress(phase, step, total, text))
        self._token.raise_if_cancelled()

    def generate(self, model: str, options: GenerationOptions, *, lossless: bool = False) -> GenerationResult:
        """Run the engine; media and LoRAs in `options` are fetched and checked first. Raises typed errors. `lossless`
        asks for an FFV1 video, for a caller that encodes the frames itself. Progress is stored on this thread, so that
        a slow database never holds the GPU."""
        self._generations += 1
        options = self._with_pinned_seed(self._with_local_loras(model, self._with_local_media(options)))
        task = GenerationTask(
            id=self.task.id,
            model=model,
            options=options,
            output_dir=self.scratch / "engine",
            priority=self.task.priority,
            checkpoint_dir=self._workplace.checkpoints.folder(self.task, self._generations),
            checkpoint_interval_s=self.settings.checkpoint_interval_s,
            lossless=lossless,
            watcher=watcher_of(self._workplace.store, self.task.claim, self.settings),
        )
        self._token.raise_if_cancelled()
        self.last_try |= self.task.claim_number > 1 and bool(self.entries(OUT_OF_MEMORY))
        self.stage = Stage.BEFORE
        news: SimpleQueue[Progress | None] = SimpleQueue()
        self.progress_report.enter("queued")
        future = self._workplace.queue.submit(
            task, on_progress=news.put, cancel=self._token, spent=self.spent,
            on_out_of_memory=partial(self._in_little_memory, task) if not self.last_try else None,
        )  # fmt: skip
        future.add_done_callback(lambda _: news.put(None))
        while (progress := news.get()) is not None:
            if progress.phase in GENERATING and self.stage is Stage.BEFORE:
                self._reach(Stage.GENERATING)
                self._read_weights(model)
            self._note(progress)
        self._reach(Stage.AFTER)
        self.progress_report.enter("finishing")
        result = future.result()
        self._made_of.generated(result)
        for name in result.beside:
            self._read_weights(name)
        return result

    def _in_little_memory(self, task: GenerationTask, failure: OutOfMemory) -> GenerationTask:
        """The same run, in as little memory as the engine can do with."""
        self.ran_out = self.last_try = True
        told = f"{failure}; once more at memory profile {LEAST_MEMORY_PROFILE}"
        log.warning("%s", told)
        self.remember(OUT_OF_MEMORY, told)
        return replace(task, options=task.options.replace(override_profile=LEAST_MEMORY_PROFILE))

    def _with_pinned_seed(self, options: GenerationOptions) -> GenerationOptions:
        """A replay brings the seeds that were drawn; one that is given stays."""
        if options.seed is not None and options.seed >= 0:
            return options
        seed = pinned_seed(self._lineage, self._generations)
        return options if seed is None else options.replace(seed=seed)

    def _read_weights(self, model: str) -> None:
        """Have the model's files hashed while the GPU is at work; they are in memory now, just loaded."""
        self._made_of.weights(model, self._workplace.weight_digests.begin(partial(self._workplace.weights, model)))

    def _reach(self, stage: Stage) -> None:
        if self.stage is not stage:
            self.stage = stage
            self._workplace.wake()

    def _note(self, progress: Progress) -> None:
        self._workplace.watch(self.task, progress)
        self.progress_report(progress)

    def _with_local_media(self, options: GenerationOptions) -> GenerationOptions:
        changes: dict[str, str | list[str]] = {}
        for name, kind in options.media().items():
            value: str | list[str] = getattr(options, name)
            if isinstance(value, str):
                changes[name] = str(self.fetch(value, kind=kind, field=name))
            else:
                changes[name] = [str(self.fetch(item, kind=kind, field=name)) for item in value]
        return options.replace(**changes) if changes else options

    def _with_local_loras(self, model: str, options: GenerationOptions) -> GenerationOptions:
        """A model that takes none or cannot run here refuses the task itself: nothing is downloaded for that."""
        info = self._workplace.describe(model)
        if not options.activated_loras or info.unavailable or not info.takes("loras"):
            return options
        paths = [self._local_lora(reference, info.lora_folder) for reference in options.activated_loras]
        return options.replace(activated_loras=paths)

    def _local_lora(self, reference: str, family: str) -> str:
        path = self._loras.resolve(reference, family)
        self._made_of.lora(reference, path, self._workplace.weight_digests.begin(lambda: (path,)))
        return str(path)

    def _note_download(self, name: str, received: int, total: int) -> None:
        self._note_bytes("downloading", f"LoRA {name}", received, total)

    def sending(self, name: str) -> OnSent:
        """Reports the progress of an upload; raises when this task should stop."""

        def sent(so_far: int, total: int) -> None:
            self._token.raise_if_cancelled()
            self._note_bytes("uploading", name, so_far, total)

        return sent

    def _note_bytes(self, phase: str, name: str, so_far: int, total: int) -> None:
        """Progress in MB, each time another one has come."""
        megabytes = (so_far >> 20, total >> 20)
        if self._moved == (name, *megabytes):
            return
        self._moved = (name, *megabytes)
        share = f" ({100 * so_far // total} %)" if total else ""
        self.report(phase, *megabytes, f"{name}{share}")

    def drop(self, made: Iterable[Path]) -> None:
        """What was delivered needs no second place on the disk."""
        for path in made:
            if path.resolve().is_relative_to(self.scratch):
                path.unlink(missing_ok=True)
