"""One generation: prepared on a thread of its own, then loaded and run on the one that owns the accelerator. What is
left of it, until its files are there and looked at, is done on a third."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from headless.accounting import Activity, Listener
from headless.books import Books
from headless.generation import (
    GenerationOutcome,
    GenerationResult,
    GenerationTask,
    OnProgress,
    Orchestrator,
    Progress,
)
from headless.inputs import profile_of
from headless.memory_limits import MemoryLimits
from headless.outputs import new_files, snapshot, still_image
from headless.queued_run import QueuedRun, without_locals
from Wan2GP.errors import OutOfMemory

logger = logging.getLogger(__name__)

#: what is run instead of a task for which there was no memory
OnOutOfMemory = Callable[[OutOfMemory], GenerationTask]
#: what is left of a run that needs the accelerator no longer
Finish = Callable[[], GenerationResult]


def ignore(progress: Progress) -> None:
    """Progress that nobody asked for."""


class EngineWork:
    """What one queue has its engine do: all but `prepare` and `finish` on the thread that owns the accelerator."""

    def __init__(self, orchestrator: Orchestrator, books: Books, clock: Callable[[], float]) -> None:
        self._orchestrator = orchestrator
        self._books = books
        self._account = books.account
        self._clock = clock
        self._limits = MemoryLimits()
        self.listener = Listener(clock)
        #: likewise for the thread on which runs are finished
        self.writing = Listener(clock)
        #: whether a model is being loaded, or could not be
        self._loading = False
        #: when the accelerator was last let go
        self.free_since: float | None = None
        #: what the accelerator stands still for: the next run, which is being prepared
        self.awaited: QueuedRun | None = None

    def hear(self, on_progress: OnProgress, progress: Progress) -> None:
        """Note where the run is, and tell whoever asked."""
        self._account.hear(progress.phase)
        self.listener.hear(progress.phase)
        on_progress(progress)

    def prepare(self, run: QueuedRun) -> GenerationTask | None:
        """What is generated, with all that can be done for it without the accelerator."""
        run.cancel.raise_if_cancelled()
        task = run.task
        return None if task is None else self._orchestrator.prepare(self._limits.fitted(task))

    def stand_still(self, run: QueuedRun | None) -> None:
        """Nothing is to be done but to wait for `run` to be prepared: idle, and silent until then."""
        if run is self.awaited:
            return
        self.awaited = run
        if run is None or run.task is None:
            self._account.idle()
            self.listener.end(learn=False)
        else:
            self._account.begin(Activity.IDLE_WAITING)
            self.listener.begin(run.id, run.task.model, "preparing")

    def run(self, instead: OnOutOfMemory | None, run: QueuedRun) -> Finish:
        """Run the prepared task; when memory runs out, release all of it and run what `instead` says, once."""
        task, run.task = run.task, None  # what was prepared for it is nobody's once it is used up
        assert task is not None, "a loan has its own work"
        try:
            return self._run_once(task, run)
        except OutOfMemory as error:
            failure = without_locals(error)
        self._limits.ran_out(task, loading=self._loading)
        if instead is None or run.cancel.cancelled:
            raise failure
        del task
        self._orchestrator.unload_model()
        return self._run_once(self._orchestrator.prepare(instead(failure)), run)

    def finish(self, run: QueuedRun, finish: Finish) -> GenerationResult:
        """Do what is left of a run, on another thread."""
        self.writing.begin(run.id, "the thread that writes files", "saving")
        try:
            result = finish()
        except BaseException:
            self.writing.end(learn=False)
            raise
        self.writing.end(learn=True)
        return result

    def load(self, model: str, profile: int, report: OnProgress) -> tuple[bool, float]:
        """Whether another model had to be loaded, or the same in another way, and the seconds that took."""
        started, same = self._clock(), self._orchestrator.current_model == model

        def reading(progress: Progress) -> None:
            self._account.begin(Activity.LOAD)
            report(progress)

        if not same:
            reading(Progress("loading", text=model))
        self._loading = True
        # the same model may have to be read again: at another profile, or because its files have changed
        switched = self._orchestrator.load_model(model, reading, profile)
        self._loading = False
        if same and not switched:
            return False, 0.0
        seconds = self._clock() - started
        self._account.begin(Activity.ENCODE)
        if switched:
            self._books.loaded(model, seconds)
            logger.info("model %s loaded in %.1f s", model, seconds)
        return switched, seconds

    def _run_once(self, task: GenerationTask, run: QueuedRun) -> Finish:
        self.listener.begin(task.id, task.model)
        self._loading = False
        run.cancel.raise_if_cancelled()
        switched, load_seconds = self.load(task.model, profile_of(task), run.report_load)
        run.cancel.raise_if_cancelled()
        task.output_dir.mkdir(parents=True, exist_ok=True)
        before = snapshot(task.output_dir)
        outcome, seconds = self._generate(task, run, load_seconds)
        task = replace(task, prepared=None)
        still = task.options.video_length == 1 and not self._orchestrator.describe(task.model).image_output

        def finish() -> GenerationResult:
            files = new_files(outcome.written(), task.output_dir, before)
            return GenerationResult(
                files=tuple(still_image(file) for file in files) if still else files,
                model=task.model,
                seconds=seconds,
                load_seconds=load_seconds,
                switched=switched,
                peak_memory_bytes=outcome.peak_memory_bytes,
                notes=outcome.notes,
                **task.made_with(outcome),
            )

        return finish

    def _generate(self, task: GenerationTask, run: QueuedRun, load_seconds: float) -> tuple[GenerationOutcome, float]:
        """Run the engine; also the seconds it took. Books the gap since the engine was last at work."""
        started = self._clock()
        if self.free_since is not None and run.submitted_at <= self.free_since:
            self._books.handed_off(started - self.free_since - load_seconds)
        try:
            outcome = self._orchestrator.generate(task, run.report, run.cancel)
        finally:
            self.free_since = self._clock()
            self._account.begin(Activity.SAVE)
        return outcome, self.free_since - started
