"""`HeadlessTaskQueue`: one thread owns the accelerator, keeps the model warm and runs one generation at a time.

    submit -> waiting (priority, then age), the first of them prepared (a thread of its own: checked, media read)
           -> running (the GPU thread)
           -> finishing (a thread of its own: files are written and looked at, while the GPU works on)
           -> the future has its result or error

A run ends exactly once. Whatever an engine raises ends that run and not the thread; only a lost device ends both.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from typing import Self, TypeVar

from headless.accounting import Activity, Seconds, Silence
from headless.books import Books
from headless.engine_work import EngineWork, Finish, OnOutOfMemory, ignore
from headless.generation import (
    CancelToken,
    GenerationResult,
    GenerationTask,
    OnProgress,
    Orchestrator,
    QueueStatistics,
    QueueStatus,
)
from headless.line import Line
from headless.queued_run import QueuedRun, without_locals
from Wan2GP.errors import DeviceLost, GenerationCancelled, InvalidInput, WanError

logger = logging.getLogger(__name__)

Value = TypeVar("Value")


class HeadlessTaskQueue:
    """Runs generations one after another on a daemon thread named "gpu", which alone works with the orchestrator.

    Use it as a context manager, or call `start` and `stop`; it is started once. Any thread may call any method.
    `history` is how many ended tasks `outcome` remembers; `clock` answers seconds and never goes back.
    With `unload_when_idle` no model stays in memory after a run that nothing waits behind.
    `on_device_lost` is called once, on the GPU thread, when the process has to be replaced.
    """

    def __init__(
        self, orchestrator: Orchestrator, *, history: int = 200, clock: Callable[[], float] = time.monotonic,
        on_device_lost: Callable[[DeviceLost], None] | None = None, unload_when_idle: bool = False,
    ) -> None:  # fmt: skip
        self._orchestrator = orchestrator
        self._unload_when_idle = unload_when_idle
        self._clock = clock
        self._on_device_lost = on_device_lost
        self._changed = threading.Condition()
        self._waiting = Line()
        self._live: dict[str, QueuedRun] = {}
        self._running: QueuedRun | None = None
        #: why nothing more is accepted; None while the queue is open
        self._closed: WanError | None = None
        self._books = Books(clock, history)
        self._account = self._books.account
        self._work = EngineWork(orchestrator, self._books, clock)
        self._thread: threading.Thread | None = None
        self._preparer = threading.Thread(target=self._prepare_all, name="prepare", daemon=True)
        self._finisher = threading.Thread(target=self._finish_all, name="finish", daemon=True)
        #: runs that are done with the accelerator; None ends the thread. The engine bounds it: it goes on to the next
        #: frames only when all but one of the files before are written
        self._unfinished: SimpleQueue[tuple[QueuedRun, Finish] | None] = SimpleQueue()

    # ---- life

    def start(self, preload_model: str | None = None) -> None:
        """Start the GPU thread. It loads `preload_model` first; a failure to do so is logged and nothing more."""
        with self._changed:
            if self._thread is not None:
                raise RuntimeError("a HeadlessTaskQueue is started once; make a new one")
            self._thread = threading.Thread(target=self._main, args=(preload_model,), name="gpu", daemon=True)
        self._thread.start()
        self._finisher.start()

    def stop(self, timeout_s: float = 30.0, *, reason: GenerationCancelled | None = None) -> None:
        """Cancel what runs or is finished, fail what waits, unload the model and join the threads.

        The futures end with `reason`, also that of a run which has not stopped after `timeout_s` and is left behind.
        """
        reason = reason or GenerationCancelled("the queue was stopped before this run ended")
        self._close(reason)
        with self._changed:
            live = list(self._live.values())
        for run in live:
            run.cancel.cancel(reason)
        if self._thread is None or self._thread is threading.current_thread():
            return
        deadline = time.monotonic() + timeout_s
        for thread in self._threads():
            if thread.is_alive():
                thread.join(max(deadline - time.monotonic(), 0))
        if self.alive:
            names = ", ".join(thread.name for thread in self._threads() if thread.is_alive())
            logger.error("threads of the queue (%s) did not stop within %g s; they are left behind", names, timeout_s)
            for run in live:
                self._settle(run, reason)

    def __enter__(self) -> Self:
        if self._thread is None:
            self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # ---- tasks

    def submit(
        self, task: GenerationTask, *, on_progress: OnProgress | None = None, cancel: CancelToken | None = None,
        spent: Seconds | None = None, on_out_of_memory: OnOutOfMemory | None = None,
    ) -> Future[GenerationResult]:  # fmt: skip
        """Queue `task`. The future ends with its result or with a typed error (Wan2GP/errors.py).

        `on_progress` is called on the GPU thread, and what it raises ends the run. `cancel` stops the run in any state.
        The GPU thread's seconds are added to `spent` by activity, however the run ends. When memory runs out, the model
        is unloaded and what `on_out_of_memory` says is run instead, once and at once.
        Raises InvalidInput for the id of a task that waits or runs, DeviceLost after the accelerator was lost, and
        GenerationCancelled after `stop`.
        """
        report, work = partial(self._work.hear, on_progress or ignore), partial(self._work.run, on_out_of_memory)
        spent = {} if spent is None else spent
        run = QueuedRun(task.id, work, report, cancel or CancelToken(), self._clock(), spent, task)
        self._enqueue(run, task.priority)
        return run.future

    @contextmanager
    def lend(
        self, borrower: str, *, priority: int = 0, cancel: CancelToken | None = None, spent: Seconds | None = None
    ) -> Iterator[None]:
        """The accelerator for another program: inside the block our model is unloaded and nothing generates.

        Waits its turn as a generation of that id and priority does. Raises what `submit` raises, and
        GenerationCancelled where `cancel` is used while it waits; inside the block it is for the borrower to heed.
        """
        answered, returned = threading.Event(), threading.Event()

        def stand_still(run: QueuedRun) -> None:
            self._account.begin(Activity.LENT)
            self._orchestrator.unload_model()
            run.cancel.raise_if_cancelled()
            answered.set()
            returned.wait()
            self._work.free_since = self._clock()

        token, spent = cancel or CancelToken(), {} if spent is None else spent
        run = QueuedRun(borrower, stand_still, ignore, token, self._clock(), spent, ready=True)
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
            self._books.submitted()
            self._waiting.add(run, priority)
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
        """Whether a thread of the queue still runs. After `stop` one does only when the engine hangs or still loads."""
        return any(thread.is_alive() for thread in self._threads())

    def _threads(self) -> list[threading.Thread]:
        return [] if self._thread is None else [self._thread, self._preparer, self._finisher]

    @property
    def lost(self) -> bool:
        """Whether the accelerator is: nothing runs here any more."""
        return isinstance(self._closed, DeviceLost)

    @property
    def loaded_model(self) -> str | None:
        """The model in memory."""
        return self._orchestrator.current_model

    def expect(self, tasks: int) -> None:
        """Say how many tasks that want the accelerator are being prepared: idle time is `idle_waiting` then."""
        self._account.expect(tasks)

    def silence(self) -> Silence | None:
        """How long the run at work has not reported progress; None while nothing runs, or another program does."""
        return self._work.listener.silence()

    def writing(self) -> Silence | None:
        """How long the files of a run have been waited for, and all others behind them; None while none are."""
        return self._work.writing.silence()

    def on_work(self, tell: Callable[[], None]) -> None:
        """Have `tell` called when a run, and so a silence, begins. It is to return at once."""
        self._work.listener.on_begin = self._work.writing.on_begin = tell

    def outcome(self, task_id: str) -> str | None:
        """How a recent task ended: "completed", "cancelled" or "failed: why". None when it is not remembered."""
        return self._books.outcome(task_id)

    def status(self) -> QueueStatus:
        statistics = self.statistics()
        with self._changed:
            return QueueStatus(
                pending=len(self._waiting), running=self._running.id if self._running else None,
                completed=statistics.completed, failed=statistics.failed, cancelled=statistics.cancelled,
                loaded_model=self.loaded_model, uptime_s=statistics.uptime_s,
            )  # fmt: skip

    def statistics(self) -> QueueStatistics:
        """A copy of the totals, up to now."""
        return self._books.statistics()

    # ---- the GPU thread

    def _main(self, preload_model: str | None) -> None:
        try:
            if preload_model is not None:
                self._preload(preload_model)
            self._preparer.start()  # now: two threads must not import a model's libraries at once
            while (run := self._next()) is not None:
                self._process(run)
            if not isinstance(self._closed, DeviceLost):
                self._attempt(self._orchestrator.unload_model)
        finally:
            # only SystemExit and the like come here with the queue still open: the futures must not hang
            self._lose(DeviceLost("the thread that owns the accelerator ended unexpectedly"))
            self._unfinished.put(None)

    def _preload(self, model: str) -> None:
        failure = self._attempt(lambda: self._work.load(model, -1, ignore))
        self._account.idle()
        if isinstance(failure, Exception):
            logger.warning("model %s could not be loaded in advance: %s", model, failure)
        if isinstance(failure, DeviceLost):
            self._lose(failure)

    def _next(self) -> QueuedRun | None:
        """Wait for work that is ready. None once the queue is closed."""
        with self._changed:
            while self._closed is None and not self._waiting.ready:
                self._work.stand_still(self._waiting.first)
                self._changed.wait()
            self._work.stand_still(None)
            if self._closed is not None:
                return None
            self._running = self._waiting.take()
            self._running.claim()
            self._changed.notify_all()
            return self._running

    def _process(self, run: QueuedRun) -> None:
        self._account.begin(Activity.ENCODE, run.spent)
        outcome = run.context.run(self._attempt, lambda: run.work(run))
        self._work.listener.end(learn=not isinstance(outcome, Exception))
        if self._unload_when_idle and not self._waiting:
            self._attempt(self._orchestrator.unload_model)
        self._account.idle()
        if isinstance(outcome, DeviceLost):
            self._lose(outcome)
        if outcome is None or isinstance(outcome, Exception):
            self._settle(run, outcome)
            return
        with self._changed:
            self._running = None
        self._unfinished.put((run, outcome))

    # ---- the threads beside it

    def _prepare_all(self) -> None:
        try:
            while (run := self._next_to_prepare()) is not None:
                self._prepared(run, run.context.run(self._attempt, partial(self._work.prepare, run)))
        finally:
            self._lose(DeviceLost("the thread that prepares runs ended unexpectedly"))

    def _next_to_prepare(self) -> QueuedRun | None:
        """Wait for a run to prepare. None once the queue is closed."""
        with self._changed:
            while self._closed is None:
                if run := self._waiting.to_prepare():
                    return run
                self._changed.wait()
            return None

    def _prepared(self, run: QueuedRun, outcome: GenerationTask | Exception | None) -> None:
        with self._changed:
            failed = outcome if isinstance(outcome, Exception) else run.cancel.reason
            if failed is None and not run.settled:
                self._waiting.prepared(run, outcome if isinstance(outcome, GenerationTask) else None)
            else:
                self._waiting.remove(run)
            self._changed.notify_all()
        if isinstance(failed, DeviceLost):
            self._lose(failed)
        if failed is not None:
            self._settle(run, failed)

    def _finish_all(self) -> None:
        while (left := self._unfinished.get()) is not None:
            run, finish = left
            self._settle(run, run.context.run(self._attempt, partial(self._work.finish, run, finish)))
            del left, run, finish

    def _attempt(self, work: Callable[[], Value]) -> Value | Exception:
        """The queue's boundary, one of the project's two: an error becomes a value and keeps its type."""
        try:
            return work()
        except WanError as error:
            return without_locals(error)
        except Exception as error:
            logger.exception("an unforeseen error ended the run")
            return without_locals(error)

    # ---- how runs end

    def _withdraw(self, run: QueuedRun) -> None:
        """End a cancelled run that still waits. A running one stops at its next step; one for which the accelerator
        stands still ends with its preparing, so that one that never ends is seen as the hang that it is."""
        with self._changed:
            if run is self._work.awaited or not self._waiting.remove(run):
                return
            run.task = None
            self._changed.notify_all()
        self._settle(run, GenerationCancelled())

    def _close(self, reason: WanError) -> QueuedRun | None:
        """Accept nothing more, fail what waits, and name what runs."""
        with self._changed:
            if self._closed is None:
                self._closed = reason
            waiting, running = self._waiting.clear(), self._running
            self._changed.notify_all()
        for run in waiting:
            self._settle(run, reason)
        return running

    def _lose(self, error: DeviceLost) -> None:
        """Close because the accelerator is gone; nothing happens when the queue is closed already."""
        with self._changed:
            if self._closed is not None:
                return
            self._closed = error
        if (running := self._close(error)) is not None:
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
            self._books.ended(run.id, outcome)
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
