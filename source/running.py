"""One claimed task on its way: parse, run, deliver, report. Its thread is not the GPU's."""

from __future__ import annotations

import logging
import random
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import cached_property
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from headless.generation import CancelToken, GenerationResult, GenerationTask, ModelInfo, Progress
from headless.model_management import HeadlessTaskQueue
from headless.options import GenerationOptions
from source.checkpoints import Checkpoints
from source.errors import (
    DeviceLost,
    InvalidInput,
    InvalidMedia,
    ModelUnavailable,
    Outcome,
    StaleClaim,
    StoreError,
    TaskNotFound,
    Verdict,
    verdict,
)
from source.logs import redact, task_context
from source.loras import LoRAStore, TaskLoRAs
from source.media.fetch import MediaFetcher
from source.reporting import GENERATING, LostClaim, ProgressReport, cancelled_on_request, persist
from source.settings import Settings
from source.storage import LocalStorage, StagedOutput, sanitise_filename, task_name
from source.store.base import TaskStore
from source.store.types import Status, Task
from source.task_registry import Dependency, Done, Spawned, TaskRegistry

log = logging.getLogger(__name__)

MAX_RETRY_DELAY_S = 3600.0

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
    storage: LocalStorage
    loras: LoRAStore
    watch: Watch
    #: called when a run has come to another stage
    wake: Callable[[], None]
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
        self._downloaded: tuple[str, int, int] | None = None
        self._generations = 0
        self._store_progress = ProgressReport(
            workplace.store, task.claim, token, interval_s=workplace.settings.progress_interval_s
        )

    @cached_property
    def scratch(self) -> Path:
        """A folder of this claim alone. What a dead worker left of an earlier claim is removed first."""
        folder = self.settings.main_output_dir.resolve() / sanitise_filename(self.task.task_type)
        name = task_name(self.task)
        if not self.settings.keep_scratch:
            for number in range(max(1, self.task.claim_number - 20), self.task.claim_number):
                shutil.rmtree(folder / f"{name}-{number}", ignore_errors=True)
        scratch = folder / f"{name}-{self.task.claim_number}"
        scratch.mkdir(parents=True, exist_ok=True)
        return scratch

    @cached_property
    def _fetcher(self) -> MediaFetcher:
        return MediaFetcher(self.settings, self.scratch / "inputs", self._token.raise_if_cancelled)

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
        return self._fetcher.fetch(reference, kind=kind, field=field)

    def dependencies(self) -> Sequence[Dependency]:
        """What this task depends on, with local outputs. Raises InvalidMedia that names the task and the file."""
        rows = persist(lambda: self._workplace.store.dependencies(self.task.id), self._workplace.closing)
        return [Dependency(row, self._output_of(row)) for row in rows]

    def _output_of(self, row: Task) -> Path:
        location = row.output_location
        try:
            if not location:
                raise InvalidMedia("it has no output")
            if location.startswith("files/"):
                return self._workplace.storage.resolve(location)
            return self._fetcher.locate(location)
        except InvalidInput as error:
            raise InvalidMedia(
                f"the output of task {row.id} ({row.task_type}) cannot be used: {error}", field="dependant_on"
            ) from error

    def report(self, phase: str, step: int = 0, total: int = 0, text: str = "") -> None:
        """Report progress. Raises GenerationCancelled when this task should stop."""
        self._token.raise_if_cancelled()
        self._note(Progress(phase, step, total, text))
        self._token.raise_if_cancelled()

    def generate(self, model: str, options: GenerationOptions) -> GenerationResult:
        """Run the engine; media and LoRAs in `options` are fetched and checked first. Raises typed errors.

        Progress is stored on this thread, so that a slow database never holds the GPU.
        """
        task = GenerationTask(
            id=self.task.id,
            model=model,
            options=self._with_local_loras(model, self._with_local_media(options)),
            output_dir=self.scratch / "engine",
            priority=self.task.priority,
            checkpoint_dir=self._checkpoint(),
            checkpoint_interval_s=self.settings.checkpoint_interval_s,
        )
        self._token.raise_if_cancelled()
        self.stage = Stage.BEFORE
        news: SimpleQueue[Progress | None] = SimpleQueue()
        future = self._workplace.queue.submit(task, on_progress=news.put, cancel=self._token)
        future.add_done_callback(lambda _: news.put(None))
        while (progress := news.get()) is not None:
            if progress.phase in GENERATING:
                self._reach(Stage.GENERATING)
            self._note(progress)
        self._reach(Stage.AFTER)
        return future.result()

    def _checkpoint(self) -> Path:
        self._generations += 1
        return Checkpoints(self.settings).folder(self.task, self._generations)

    def _reach(self, stage: Stage) -> None:
        if self.stage is not stage:
            self.stage = stage
            self._workplace.wake()

    def _note(self, progress: Progress) -> None:
        self._workplace.watch(self.task, progress)
        self._store_progress(progress)

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
        paths = [str(self._loras.resolve(reference, info.lora_folder)) for reference in options.activated_loras]
        return options.replace(activated_loras=paths)

    def _note_download(self, name: str, received: int, total: int) -> None:
        """Progress in MB, each time another one has come."""
        megabytes = (received >> 20, total >> 20)
        if self._downloaded == (name, *megabytes):
            return
        self._downloaded = (name, *megabytes)
        share = f" ({100 * received // total} %)" if total else ""
        self.report("downloading", *megabytes, f"LoRA {name}{share}")


class Run:
    """One claimed task. Call it once, on a thread that may be busy with it for long."""

    def __init__(self, workplace: Workplace, task: Task, *, after: Run | None = None) -> None:
        self.task = task
        self.claim = task.claim
        self.token = CancelToken()
        self.ended = threading.Event()
        #: how it ended, when not well
        self.outcome: Outcome | None = None
        self._after = after
        self._claimed_at = time.monotonic()
        self._reporting = False
        self._workplace = workplace
        self._store = workplace.store
        self._context = RunContext(workplace, task, self.token)

    @property
    def stage(self) -> Stage:
        """A task that uses no GPU has it behind it from the start."""
        registry = self._workplace.registry
        uses_gpu = self.task.task_type in registry and registry.get(self.task.task_type).uses_gpu
        return self._context.stage if uses_gpu else Stage.AFTER

    @property
    def age_s(self) -> float:
        """Seconds since the claim."""
        return time.monotonic() - self._claimed_at

    def __call__(self) -> None:
        started_at = time.monotonic()
        with task_context(self.task.id):
            log.info("%s started, claim %d", self.task.task_type, self.task.claim_number)
            try:
                result = self._work()
                log.info("%s %s in %.1f s", self.task.task_type, result, time.monotonic() - started_at)
            except Exception as error:  # noqa: BLE001 - one of the two boundaries of the architecture
                self._end(self.token.reason if self._stopped_for(error) else error)
            finally:
                self._tidy()
                self._workplace.watch(self.task, None)
                self.ended.set()

    def lose(self) -> None:
        """The claim is somebody else's: stop. A run that reports its end learns that from the database."""
        if not self._reporting and not self.token.cancelled:
            log.warning("task %s: the claim is lost; its run stops", self.task.id)
            self.token.cancel(LostClaim())

    def cancel(self) -> None:
        """Somebody asked for cancellation."""
        self.token.cancel(cancelled_on_request())

    # ---- the work

    def _work(self) -> str:
        """Returns how it ended, in words."""
        if self._after is not None:
            self._after.ended.wait()
        kind = self._workplace.registry.get(self.task.task_type)
        parsed = kind.parse(self._params(), self._workplace.options_class)
        if parsed.unknown:
            log.warning("ignored parameters that nothing knows: %s", ", ".join(parsed.unknown))
        result = kind.run(parsed.params, self._context)
        self.token.raise_if_cancelled()
        if isinstance(result, Spawned):
            self._write(lambda: self._store.fan_out(self.claim, result.children, final_child=result.final_child))
            return f"created {len(result.children)} tasks"
        return self._deliver(result)

    def _params(self) -> Mapping[str, Any]:
        """The row's parameters. A child without its orchestrator's details gets them from its orchestrator's row."""
        raw = self.task.params
        parent = raw.get("orchestrator_task_id_ref")
        if not isinstance(parent, str) or "orchestrator_details" in raw or "full_orchestrator_payload" in raw:
            return raw
        try:
            details = persist(lambda: self._store.get(parent), self._workplace.closing).params.get(
                "orchestrator_details"
            )
        except TaskNotFound:
            return raw
        return {**raw, "orchestrator_details": details} if details else raw

    def _deliver(self, done: Done) -> str:
        output = done.output
        if output is None:
            self._write(lambda: self._store.complete(self.claim, None, result_data=done.result_data))
            return "complete"
        self._context.report("publishing")
        staged = persist(lambda: self._stage(output), self._workplace.closing)
        try:
            self._write(
                lambda: self._store.complete(
                    self.claim, staged.location, result_data=done.result_data, publish=staged.publish
                )
            )
        finally:
            staged.discard()
        return f"complete: {staged.location}"

    def _stage(self, output: Path) -> StagedOutput:
        self.token.raise_if_cancelled()
        return self._workplace.storage.stage(self.task, output)

    def _write(self, write: Callable[[], object]) -> None:
        """The write that ends the run."""
        self._reporting = True
        persist(write, self._workplace.closing)

    # ---- a bad end

    def _stopped_for(self, error: Exception) -> bool:
        """Whether what was asked of the run (cancel, shutdown, lost claim) explains its failure."""
        return self.token.cancelled and not isinstance(error, DeviceLost | StaleClaim)

    def _end(self, error: BaseException | None) -> None:
        assert error is not None
        decided = self._decide(error)
        self.outcome = decided.outcome
        message = redact(str(error) or type(error).__name__)
        if decided.error_class == "internal":
            message = f"internal error: {type(error).__name__}: {message}"
        self._log_end(decided, message, error)
        try:
            self._write(lambda: self._report(decided, message))
        except StaleClaim:
            log.warning("the claim was lost before the end was reported; nothing was stored")
        except StoreError as failure:
            log.error("the end was not reported; the task runs again when its lease expires: %s", failure)

    def _decide(self, error: BaseException) -> Verdict:
        decided = verdict(error)
        if decided.error_class == "out_of_memory" == self.task.error_class:
            return Verdict(Outcome.FAIL, decided.error_class)
        return decided

    def _report(self, decided: Verdict, message: str) -> None:
        match decided.outcome:
            case Outcome.FAIL:
                self._store.fail(self.claim, message, error_class=decided.error_class)
            case Outcome.RETRY:
                self._retry(decided, message)
            case Outcome.CANCEL:
                self._store.cancelled(self.claim)
            case Outcome.RELEASE | Outcome.EXIT:
                self._store.release(self.claim)
            case Outcome.ABANDON:
                return

    def _retry(self, decided: Verdict, message: str) -> None:
        delay_s = retry_delay_s(self._workplace.settings.retry_delay_s, self.task.attempts)
        status = self._store.retry_later(self.claim, message, error_class=decided.error_class, delay_s=delay_s)
        if status is Status.QUEUED:
            log.info("attempt %d failed; it is tried again in %.0f s", self.task.attempts + 1, delay_s)

    def _log_end(self, decided: Verdict, message: str, error: BaseException) -> None:
        if decided.outcome in (Outcome.CANCEL, Outcome.RELEASE, Outcome.ABANDON):
            log.info("%s stopped: %s", self.task.task_type, message)
        else:
            trace = error if decided.error_class in ("internal", "engine") else None
            log.error("%s failed (%s): %s", self.task.task_type, decided.error_class, message, exc_info=trace)

    def _tidy(self) -> None:
        self._context.release()
        try:
            Checkpoints(self._workplace.settings).settle(self.task, self._store)
        except StoreError as failure:
            log.debug("whether the task is at its end is not known: %s", failure)
        if "scratch" in vars(self._context) and not self._workplace.settings.keep_scratch:
            shutil.rmtree(self._context.scratch, ignore_errors=True)


def retry_delay_s(first_s: float, attempts: int) -> float:
    """Doubled with each attempt, within a quarter at random so that many tasks do not come back at once."""
    return min(first_s * 2.0 ** min(attempts, 32), MAX_RETRY_DELAY_S) * random.uniform(0.75, 1.25)
