"""`HeadlessTaskQueue`: one thread owns the accelerator, keeps the model warm and runs one generation at a time.

    submit -> waiting (heap: priority, then age) -> running (the GPU thread) -> the future has its result or error

A run ends exactly once. Whatever an engine raises ends that run and not the thread; only a lost device ends both.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Self, TypeVar

from headless.generation import (
    CancelToken,
    GenerationOutcome,
    GenerationResult,
    GenerationTask,
    OnProgress,
    Orchestrator,
    Progress,
    QueueStatistics,
    QueueStatus,
)
from headless.outputs import new_files, snapshot, still_image
from headless.queued_run import QueuedRun, without_locals
from Wan2GP.errors import DeviceLost, GenerationCancelled, InvalidInput, WanError

logger = logging.getLogger(__name__)

Value = TypeVar("Value")

#: hand-off gaps that the statistics remember
MAX_GAPS = 1000


def _ignore(progress: Progress) -> None:
    """Progress that nobody asked for."""


class HeadlessTaskQueue:
    """Runs generations one after another on a daemon thread named "gpu", which alone works with the orchestrator.

    Use it as a context manager, or call `start` and `stop`; it is started once. Any thread may call any method.
    `history` is how many ended tasks `outcome` remembers; `clock` answers seconds and never goes back.
    `on_device_lost` is called once, on the GPU thread, when the process has to be replaced.
    """

    def __init__(
        self,
        orchestrator: Orchestrator,
        *,
        history: int = 200,
        clock: Callable[[], float] = time.monotonic,
        on_device_lost: Callable[[DeviceLost], None] | None = None,
    ) -> None:
        self._orchestrator = orchestrator
        self._clock = clock
        self._on_device_lost = on_device_lost
        self._changed = threading.Condition()
        self._sequence = itertools.count()
        self._waiting: list[tuple[int, int, QueuedRun]] = []
        self._live: dict[str, QueuedRun] = {}
        self._running: QueuedRun | None = None
        #: why nothing more is accepted; None while the queue is open
        self._closed: WanError | None = None
        self._history: OrderedDict[str, str] = OrderedDict()
        self._history_size = history
        self._totals = QueueStatistics()
        self._gaps: deque[float] = deque(maxlen=MAX_GAPS)
        self._born = clock()
        self._idle_since: float | None = None
        self._free_since: float | None = None
        self._thread: threading.Thread | None = None

    # ---- life

    def start(self, preload_model: str | None = None) -> None:
        """Start the GPU thread. It loads `preload_model` first; a failure to do so is logged and nothing more."""
        with self._changed:
            if self._thread is not None:
                raise RuntimeError("a HeadlessTaskQueue is started once; make a new one")
            self._thread = threading.Thread(target=self._main, args=(preload_model,), name="gpu", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 30.0, *, reason: GenerationCancelled | None = None) -> None:
        """Cancel what runs, fail what waits, unload the model and join the thread.

        The futures end with `reason`, also that of a run which has not stopped after `timeout_s` and is left behind.
        """
        reason = reason or GenerationCancelled("the queue was stopped before this run ended")
        running = self._close(reason)
        if running is not None:
            running.cancel.cancel(reason)
        if self._thread is None or self._thread is threading.current_thread():
            return
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            logger.error("the GPU thread did not stop within %g s; it is left behind", timeout_s)
            if running is not None:
                self._settle(running, reason)

    def __enter__(self) -> Self:
        if self._thread is None:
            self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # ---- tasks

    def submit(
        self, task: GenerationTask, *, on_progress: OnProgress | None = None, cancel: CancelToken | None = None
    ) -> Future[GenerationResult]:
        """Queue `task`. The future ends with its result or with a typed error (Wan2GP/errors.py).

        `on_progress` is called on the GPU thread, and what it raises ends the run. `cancel` stops the run in any state.
        Raises InvalidInput for the id of a task that waits or runs, DeviceLost after the accelerator was lost, and
        GenerationCancelled after `stop`.
        """
        run = QueuedRun(
            task.id, partial(self._execute, task), on_progress or _ignore, cancel or CancelToken(), self._clock()
        )
        self._enqueue(run, task.priority)
        return run.future

    @contextmanager
    def lend(self, borrower: str, *, priority: int = 0, cancel: CancelToken | None = None) -> Iterator[None]:
        """The accelerator for another program: inside the block our model is unloaded and nothing generates.

        Waits its turn as a generation of that id and priority does. Raises what `submit` raises, and
        GenerationCancelled where `cancel` is used while it waits; inside the block it is for the borrower to heed.
        """
        answered, returned = threading.Event(), threading.Event()

        def stand_still(run: QueuedRun) -> None:
            self._orchestrator.unload_model()
            run.cancel.raise_if_cancelled()
            answered.set()
            returned.wait()
            with self._changed:
                self._free_since = self._clock()

        run = QueuedRun(borrower, stand_still, _ignore, cancel or CancelToken(), self._clock())
        self._enqueue(run, priority)
        run.future.add_done_callback(lambda _: answered.set())
        try:
            answered.wait()
            if run.future.done():
                run.future.result()
            yield
        finally:
            returned.set()

    def _enqueue(self, run: QueuedRun, priority: int) -> None:
        with self._changed:
            if self._closed is not None:
                raise self._closed.with_traceback(None)
            if run.id in self._live:
                raise InvalidInput(f"a task with the id {run.id!r} waits or runs already", field="id")
            self._live[run.id] = run
            self._totals.submitted += 1
            heapq.heappush(self._waiting, (-priority, next(self._sequence), run))
            self._changed.notify_all()
        run.cancel.on_cancel(lambda: self._withdraw(run))
        run.future.add_done_callback(lambda future: run.cancel.cancel() if future.cancelled() else None)

    def cancel(self, task_id: str) -> bool:
        """Stop one task, waiting or running. True promises that its future ends with GenerationCancelled."""
        with self._changed:
            run = self._live.get(task_id)
            if run is None:
                return False
            run.stop_asked = True
        run.cancel.cancel()
        return True

    # ---- what others may see

    @property
    def alive(self) -> bool:
        """Whether the queue's thread still runs. After `stop` it does only when the engine hangs, or still loads."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def loaded_model(self) -> str | None:
        """The model in memory."""
        return self._orchestrator.current_model

    def outcome(self, task_id: str) -> str | None:
        """How a recent task ended: "completed", "cancelled" or "failed: why". None when it is not remembered."""
        with self._changed:
            return self._history.get(task_id)

    def status(self) -> QueueStatus:
        with self._changed:
            return QueueStatus(
                pending=len(self._waiting),
                running=self._running.id if self._running else None,
                completed=self._totals.completed,
                failed=self._totals.failed,
                cancelled=self._totals.cancelled,
                loaded_model=self.loaded_model,
                uptime_s=self._clock() - self._born,
            )

    def statistics(self) -> QueueStatistics:
        """A copy of the totals; the idle time runs up to now."""
        with self._changed:
            idle = self._clock() - self._idle_since if self._idle_since is not None else 0.0
            return replace(
                self._totals, idle_seconds=self._totals.idle_seconds + idle, hand_off_seconds=list(self._gaps),
                load_seconds_by_model=dict(self._totals.load_seconds_by_model),
            )  # fmt: skip

    # ---- the GPU thread

    def _main(self, preload_model: str | None) -> None:
        try:
            if preload_model is not None:
                self._preload(preload_model)
            while (run := self._next()) is not None:
                self._process(run)
            if not isinstance(self._closed, DeviceLost):
                self._attempt(self._orchestrator.unload_model)
        finally:
            # only SystemExit and the like come here with the queue still open: the futures must not hang
            self._lose(DeviceLost("the thread that owns the accelerator ended unexpectedly"))

    def _preload(self, model: str) -> None:
        failure = self._attempt(lambda: self._load(model, _ignore))
        if isinstance(failure, Exception):
            logger.warning("model %s could not be loaded in advance: %s", model, failure)
        if isinstance(failure, DeviceLost):
            self._lose(failure)

    def _next(self) -> QueuedRun | None:
        """Wait for work. None once the queue is closed."""
        with self._changed:
            self._idle_since = self._clock()
            self._changed.wait_for(lambda: self._waiting or self._closed)
            self._totals.idle_seconds += self._clock() - self._idle_since
            self._idle_since = None
            if self._closed is not None:
                return None
            self._running = heapq.heappop(self._waiting)[2]
            self._running.claim()
            return self._running

    def _process(self, run: QueuedRun) -> None:
        outcome = run.context.run(self._attempt, lambda: run.work(run))
        if isinstance(outcome, DeviceLost):
            self._lose(outcome)
        self._settle(run, outcome)

    def _attempt(self, work: Callable[[], Value]) -> Value | Exception:
        """The queue's boundary, one of the project's two: an error becomes a value and keeps its type."""
        try:
            return work()
        except WanError as error:
            return without_locals(error)
        except Exception as error:
            logger.exception("an unforeseen error ended the run")
            return without_locals(error)

    def _execute(self, task: GenerationTask, run: QueuedRun) -> GenerationResult:
        run.cancel.raise_if_cancelled()
        self._orchestrator.check(task)
        switched, load_seconds = self._load(task.model, run.report_load)
        run.cancel.raise_if_cancelled()
        task.output_dir.mkdir(parents=True, exist_ok=True)
        before = snapshot(task.output_dir)
        outcome, seconds = self._generate(task, run, load_seconds)
        files = new_files(outcome.files, task.output_dir, before)
        if task.options.video_length == 1 and not self._orchestrator.describe(task.model).image_output:
            files = tuple(still_image(file) for file in files)
        return GenerationResult(
            files=files,
            model=task.model,
            seconds=seconds,
            load_seconds=load_seconds,
            switched=switched,
            peak_memory_bytes=outcome.peak_memory_bytes,
            notes=outcome.notes,
            **task.made_with(outcome),
        )

    def _load(self, model: str, report: OnProgress) -> tuple[bool, float]:
        """Whether another model had to be loaded, and the seconds that took."""
        if self._orchestrator.current_model == model:
            return False, 0.0
        started = self._clock()
        report(Progress("loading", text=model))
        switched = self._orchestrator.load_model(model, report)
        seconds = self._clock() - started
        with self._changed:
            self._totals.model_loads += switched
            self._totals.load_seconds += seconds
            self._totals.load_seconds_by_model |= {model: seconds} if switched else {}
        if switched:
            logger.info("model %s loaded in %.1f s", model, seconds)
        return switched, seconds

    def _generate(self, task: GenerationTask, run: QueuedRun, load_seconds: float) -> tuple[GenerationOutcome, float]:
        """Run the engine; also the seconds it took. Books the gap since the engine was last at work."""
        started = self._clock()
        with self._changed:
            if self._free_since is not None and run.submitted_at <= self._free_since:
                self._gaps.append(started - self._free_since - load_seconds)
        try:
            outcome = self._orchestrator.generate(task, run.report, run.cancel)
        finally:
            ended = self._clock()
            with self._changed:
                self._free_since = ended
                self._totals.generation_seconds += ended - started
        return outcome, ended - started

    # ---- how runs end

    def _withdraw(self, run: QueuedRun) -> None:
        """End a cancelled run that still waits. A running one stops at its next step."""
        with self._changed:
            left = [entry for entry in self._waiting if entry[2] is not run]
            if len(left) == len(self._waiting):
                return
            heapq.heapify(left)
            self._waiting = left
        self._settle(run, GenerationCancelled())

    def _close(self, reason: WanError) -> QueuedRun | None:
        """Accept nothing more, fail what waits, and name what runs."""
        with self._changed:
            if self._closed is None:
                self._closed = reason
            waiting, self._waiting = sorted(self._waiting), []
            running = self._running
            self._changed.notify_all()
        for _, _, run in waiting:
            self._settle(run, reason)
        return running

    def _lose(self, error: DeviceLost) -> None:
        """Close because the accelerator is gone; nothing happens when the queue is closed already."""
        with self._changed:
            if self._closed is not None:
                return
            self._closed = error
        running = self._close(error)
        if running is not None:
            self._settle(running, error)
        logger.error("%s", error)
        if self._on_device_lost is not None:
            self._on_device_lost(error)

    def _settle(self, run: QueuedRun, outcome: GenerationResult | Exception | None) -> None:
        """End `run`, once. The books are closed before its future is, so whoever waits on it sees them right."""
        with self._changed:
            if run.settled:
                return
            run.settled = True
            if (run.stop_asked or run.cancel.cancelled) and not isinstance(outcome, DeviceLost):
                outcome = run.cancel.reason or GenerationCancelled()
            self._book(run.id, outcome)
            del self._live[run.id]
            if self._running is run:
                self._running = None
            wanted = run.claim()
        if not wanted:
            return
        if isinstance(outcome, Exception):
            run.future.set_exception(outcome)
        else:
            run.future.set_result(outcome)

    def _book(self, task_id: str, outcome: GenerationResult | Exception | None) -> None:
        if not isinstance(outcome, Exception):
            self._totals.completed += 1
            text = "completed"
        elif isinstance(outcome, GenerationCancelled):
            self._totals.cancelled += 1
            text = "cancelled"
        else:
            self._totals.failed += 1
            text = f"failed: {outcome}"
        self._history[task_id] = text
        self._history.move_to_end(task_id)
        while len(self._history) > self._history_size:
            self._history.popitem(last=False)
