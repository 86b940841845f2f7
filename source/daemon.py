"""The worker: claims rows and has threads of its own carry them, until it is told to stop or nothing is left.

    claim -> Run (parse, prepare, wait for the GPU's queue, deliver, report) -> slot free -> claim …

What is done on a run's thread happens while the GPU works on another task. One inbox wakes the main loop: a run ended,
the table changed, somebody asked to stop. Nothing here sleeps.
"""

from __future__ import annotations

import logging
import queue as stdlib_queue
import socket
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from headless.generation import ModelInfo, Progress
from headless.model_management import HeadlessTaskQueue
from headless.options import GenerationOptions
from source.checkpoints import Checkpoints
from source.comfy.program import ComfyProgram
from source.disk import Disk, Room
from source.errors import Outcome, ShuttingDown, StoreError
from source.hangs import Hangs
from source.leases import ACTIVE, Changes, Leases
from source.leftovers import Leftovers
from source.logs import secret_values
from source.loras import LoRAStore
from source.metrics.samples import Measurements
from source.outbox import Outbox
from source.provenance.weights import WeightDigests
from source.run_context import Stage, Watch, Workplace
from source.running import Run
from source.settings import Settings
from source.storage import LocalStorage, Storage
from source.store.base import TaskStore
from source.store.discreet import discreet
from source.store.types import AffinityBound, Claim, Task, affinity_key
from source.task_registry import TaskRegistry

log = logging.getLogger(__name__)

EXIT_OK = 0
EXIT_DEVICE_LOST = 3

#: first and longest wait after a claim that the database did not answer
FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 30.0
#: what runs that were asked to stop get at least, and how long their rows are then put back
MIN_STOPPING_S = 2.0
#: what the worker's row says while it claims nothing for want of room
LOW_DISK = "low_disk"
#: time between two looks for undelivered results that nobody wants any more
SWEEP_S = 600.0


def _nobody(task: Task, progress: Progress | None) -> None:
    """Nobody watches."""


def _no_files(model: str) -> Sequence[Path]:
    """A model that is loaded from nothing."""
    return ()


def new_worker_id(name: str | None) -> str:
    """Unique for each start of a process: a restart under the same name is another worker."""
    return f"{name or socket.gethostname()}-{uuid.uuid4().hex[:8]}"


class Worker:
    """Runs tasks until `stop`, until the GPU is lost, or until the table is idle. It runs once."""

    def __init__(
        self, settings: Settings, store: TaskStore, queue: HeadlessTaskQueue, *, registry: TaskRegistry,
        describe: Callable[[str], ModelInfo], options_class: type[GenerationOptions] = GenerationOptions,
        worker_id: str | None = None, watch: Watch = _nobody, weights: Callable[[str], Sequence[Path]] = _no_files,
        storage: Storage | None = None, disk: Disk | None = None,
    ) -> None:  # fmt: skip
        self.worker_id = worker_id or new_worker_id(settings.worker)
        self._settings = settings
        self._store = store = discreet(store, secret_values(settings))
        self._queue = queue
        disk = disk or Disk(settings)
        self._room = Room(disk, self._make_room)
        self._workplace = Workplace(
            settings, store, queue, registry, describe, options_class,
            storage or LocalStorage(settings), Outbox(settings), Checkpoints(settings), LoRAStore(settings),
            ComfyProgram(settings), watch, self._moved, weights, WeightDigests(settings.ckpts), disk,
        )  # fmt: skip
        self._runs: dict[Claim, Run] = {}
        #: claimed, and kept from a thread: one of them or of those that run is alone on its last attempt
        self._held: list[Run] = []
        self._lock = threading.Lock()
        self._carriers = [
            threading.Thread(target=self._carry, name=f"task-{number}", daemon=True)
            for number in range(settings.max_in_flight)
        ]
        #: what may be claimed although a generation is waiting already
        self._without_gpu = frozenset(kind.name for kind in registry if not kind.uses_gpu)
        #: a SimpleQueue may be put to from a signal handler at any moment
        self._inbox: stdlib_queue.SimpleQueue[None] = stdlib_queue.SimpleQueue()
        #: for the carrying threads; None sends one home
        self._assigned: stdlib_queue.SimpleQueue[Run | None] = stdlib_queue.SimpleQueue()
        #: of the generation claimed last; and which that is, with the key before it
        self._last_key: str | None = None
        self._latest: tuple[Claim, str | None] | None = None
        self._stops = 0
        self._hangs = False
        self.measurements = Measurements(queue.statistics, self.runs)
        self.watchdog = Hangs(queue, settings, self.runs, self._lose_device)
        self._rescued_at = self._swept_at = time.monotonic()

    # ---- what others call

    def run(self, *, until_idle: bool = False) -> int:
        """Work. Returns the exit code: 0 when stopped or idle, 3 when the GPU was lost or its engine hangs."""
        log.info("worker %s takes up to %d tasks at once", self.worker_id, self._settings.max_in_flight)
        leases = Leases(
            self._store, self.worker_id, self._settings, self.runs, lambda: self._queue.loaded_model, self._facts,
            lambda: LOW_DISK if self.pauses else ACTIVE, self.measurements.sample,
        )  # fmt: skip
        self._changes = Changes(self._store, self.runs, self._wake, leases.beat)
        with leases, self._changes, self.watchdog:
            for carrier in self._carriers:
                carrier.start()
            try:
                self._claim_until_told(leases, until_idle)
            finally:
                self._leave()
                self.measurements.close()
        return EXIT_DEVICE_LOST if self._without_device else EXIT_OK

    def stop(self) -> None:
        """Claim no more, let running tasks finish or go back to the queue. A second call lets go of them at once.

        Safe in signal handlers.
        """
        self._stops += 1
        self._wake()

    @property
    def told_to_stop(self) -> bool:
        return self._stops > 0

    @property
    def _without_device(self) -> bool:
        """The GPU is lost, or its engine hangs: nothing can run here any more."""
        return self._queue.lost or self._hangs

    def runs(self) -> list[Run]:
        """What runs now."""
        with self._lock:
            return list(self._runs.values())

    # ---- the loop

    def _claim_until_told(self, leases: Leases, until_idle: bool) -> None:
        backoff_s = FIRST_BACKOFF_S
        while not self._stops and not self._without_device:
            try:
                leases.catch_up()
                self._hand_out()
                if not self._claim() and until_idle and not self.runs() and self._store.idle():
                    return
                self._rescue_when_due()
            except StoreError as error:
                log.warning("the database is out of reach, asked again within %g s: %s", backoff_s, error)
                self._wait(backoff_s)
                backoff_s = min(2 * backoff_s, MAX_BACKOFF_S)
            else:
                backoff_s = FIRST_BACKOFF_S
                self._wait(min(self._settings.poll_interval_s, self._settings.rescue_interval_s))

    def _claim(self) -> int:
        """Fill the free slots, generations one at a time. Returns how many tasks were started."""
        if not self._room() and self.pauses:
            return 0
        started = 0
        while (free := self._free_slots()) and not self._without_device:
            only = None if self._wants_generation() else self._without_gpu
            claimed = self._store.claim(
                self.worker_id,
                lease_s=self._settings.lease_s,
                limit=1 if only is None else free,
                loaded_model=self._next_model() if only is None else None,
                task_types=only,
                affinity=self._affinity(),
            )
            for task in claimed:
                self._start(task)
            started += len(claimed)
            if not claimed:
                break
        return started

    @property
    def pauses(self) -> bool:
        """Nothing is claimed for want of room."""
        return self._room.shortage is not None and not self._room.shortage.delivers

    def _next_model(self) -> str | None:
        """The `affinity_key` of what will be loaded when the next generation begins: that of the last one claimed. A
        row whose type implies its model has no other name for it than its type."""
        if self._last_key is not None and (self._queue.loaded_model is not None or self._generations()):
            return self._last_key
        return self._queue.loaded_model

    def _affinity(self) -> AffinityBound:
        """The bound of the settings, by what loads took here."""
        bound = AffinityBound(self._settings.affinity_tasks, self._settings.affinity_wait_s)
        return bound.over_loads(self._queue.statistics().load_seconds_by_model.values())

    def _facts(self) -> dict[str, Any]:
        """What the GPU's seconds went to, what loads took, whose rows are taken first, and what is short."""
        totals = self._queue.statistics()
        return {
            "gpu_seconds": {activity: round(spent, 3) for activity, spent in totals.seconds.items()},
            "load_s": {model: round(spent, 1) for model, spent in totals.load_seconds_by_model.items()},
            "takes_first": self._next_model(),
            LOW_DISK: str(self._room.shortage or ""),
        }

    def _generations(self) -> list[Run]:
        return [run for run in self.runs() if run.task.task_type not in self._without_gpu]

    def _wants_generation(self) -> bool:
        """One is prepared while another generates, so the GPU never waits; more would be kept from idle workers.

        While nothing generates, one that takes long to prepare (a download, say) does not hold up the others.
        """
        waiting = [run for run in self.runs() if run.stage is Stage.BEFORE]
        if any(run.stage is Stage.GENERATING for run in self.runs()):
            return not waiting
        return all(run.age_s >= self._settings.prepare_ahead_s for run in waiting)

    def _free_slots(self) -> int:
        carriers = sum(carrier.is_alive() for carrier in self._carriers)
        if not carriers:
            raise RuntimeError("no thread is left that could carry a task; the log says why they died")
        if any(run.outcome is Outcome.EXIT or self._alone(run) for run in self.runs()):
            return (
                0  # its row is being put back, and this process must not be the one that takes it again; or it is alone
            )
        return max((1 if self._room.shortage else carriers) - len(self.runs()), 0)

    def _start(self, task: Task) -> None:
        """Our own earlier claim of the row, when one still stops, goes first."""
        earlier = next((run for run in self.runs() if run.task.id == task.id), None)
        if earlier is not None:
            earlier.lose()
        run = Run(self._workplace, task, after=earlier)
        if run.stage is Stage.BEFORE:
            self._latest = (run.claim, self._last_key)
            self._last_key = affinity_key(task.model, task.task_type)
        with self._lock:
            self._runs[run.claim] = run
        self._changes.wake()
        self._held.append(run)
        self._moved()
        self._hand_out()

    def _alone(self, run: Run) -> bool:
        """Its last attempt is made with nothing beside it: a neighbour that kills the worker each time would else take
        an innocent task with it."""
        return 0 < run.task.attempts == self._settings.max_attempts - 1

    def _hand_out(self) -> None:
        """Runs get a thread, in the order of their claims."""
        for run in list(self._held):
            beside = [other for other in self.runs() if other not in self._held]
            if run.token.cancelled or not any(self._alone(one) for one in (run, *beside)) or not beside:
                self._held.remove(run)
                self._assigned.put(run)

    def _carry(self) -> None:
        """A thread that carries one run after another, so that its database connection stays open."""
        for run in iter(self._assigned.get, None):
            try:
                run()
            finally:
                with self._lock:
                    del self._runs[run.claim]
                if run.stage is Stage.BEFORE and self._latest is not None and self._latest[0] == run.claim:
                    self._last_key = self._latest[1]  # it never came to the GPU, and nothing was loaded for it
                self._moved()

    def _rescue_when_due(self) -> None:
        now = time.monotonic()
        if now - self._rescued_at >= self._settings.rescue_interval_s:
            self._rescued_at = now
            self._store.rescue()
        if now - self._swept_at >= SWEEP_S:
            self._swept_at = now
            self._workplace.outbox.sweep(self._store)

    def _make_room(self) -> None:
        """A disk is short: remove what nobody needs."""
        try:
            Leftovers(self._settings, self._store).clean()
        except StoreError as error:
            log.debug("what nobody needs is not known: %s", error)

    def _moved(self) -> None:
        """A run came, went, or reached another stage."""
        with self._lock:
            self._queue.expect(sum(run.stage is Stage.BEFORE for run in self._runs.values()))
        self._wake()

    def _lose_device(self) -> None:
        """The engine does not come back: this process is of no use any more."""
        self._hangs = True
        self._wake()

    def _wake(self) -> None:
        self._inbox.put(None)

    def _wait(self, timeout_s: float) -> None:
        """Until somebody wakes us, or for `timeout_s`. Several wake-ups count as one."""
        try:
            self._inbox.get(timeout=max(timeout_s, 0))
            while True:
                self._inbox.get_nowait()
        except stdlib_queue.Empty:
            return

    # ---- leaving

    def _leave(self) -> None:
        """Give running tasks their grace, then ask them to stop, then let go of their rows."""
        if self.runs():
            log.info("stopping; %d task(s) still run", len(self.runs()))
        self._await_runs(0 if self._without_device else self._settings.shutdown_grace_s)
        for run in self.runs():
            run.token.cancel(ShuttingDown())
        self._hand_out()
        self._await_runs(max(self._settings.shutdown_grace_s, MIN_STOPPING_S))
        self._workplace.closing.set()
        self._workplace.comfy.stop()
        for _ in self._carriers:
            self._assigned.put(None)
        self._let_go([run for run in self.runs() if run.outcome is None])

    def _await_runs(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while self.runs() and self._stops < 2 and (left_s := deadline - time.monotonic()) > 0:
            self._wait(left_s)

    def _let_go(self, runs: Sequence[Run]) -> None:
        """The runs may go on for a while; whatever they write from now on is refused. A database that does not answer
        is not asked for each of them: that would take long."""
        deadline = time.monotonic() + MIN_STOPPING_S
        for run in runs:
            try:
                if time.monotonic() > deadline:
                    raise StoreError("there is no time left to ask")
                self._store.release(run.claim)
                log.warning("task %s went back to the queue although its run has not stopped yet", run.task.id)
            except StoreError as error:
                log.warning("task %s could not be put back; its lease will expire: %s", run.task.id, error)
