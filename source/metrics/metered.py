"""A store that counts what passes through it. A worker that serves no metrics has none of this between."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from source.errors import InvalidInput, StoreError
from source.metrics import names
from source.metrics.names import OTHER, Metric
from source.metrics.stages import STAGES, Spent
from source.store.base import TaskStore
from source.store.types import Claim, HeartbeatReply, Status, Task

#: from a picture in a tenth of a second to an hour of denoising
BUCKETS = (0.1, 0.3, 1, 3, 10, 30, 60, 120, 300, 600, 1800, 3600)


class Meters:
    """The numbers that events make. `task_types`: those that are named; others count as `other`."""

    def __init__(self, registry: CollectorRegistry, task_types: Iterable[str]) -> None:
        def counter(metric: Metric) -> Counter:
            return Counter(metric.name, metric.meaning, metric.labels, registry=registry)

        self._task_types = frozenset(task_types)
        self.claims = counter(names.CLAIMS)
        self.ended = counter(names.TASKS_ENDED)
        self.requeued = counter(names.TASKS_REQUEUED)
        self.failures = counter(names.FAILURES)
        self.heartbeats = counter(names.HEARTBEATS)
        self.heartbeats_failed = counter(names.HEARTBEATS_FAILED)
        self.leases_lost = counter(names.LEASES_LOST)
        self.last_heartbeat = Gauge(names.LAST_HEARTBEAT.name, names.LAST_HEARTBEAT.meaning, registry=registry)
        seconds = names.STAGE_SECONDS
        self.stages = Histogram(seconds.name, seconds.meaning, seconds.labels, buckets=BUCKETS, registry=registry)
        for stage in STAGES:  # what has not happened yet is 0, not absent: a rate needs a beginning
            self.stages.labels(stage)
        for reason in ("retry", "release"):
            self.requeued.labels(reason)

    def type_of(self, task: Task | None) -> str:
        """The label of a task."""
        return task.task_type if task is not None and task.task_type in self._task_types else OTHER


class MeteredStore:
    """What is not counted goes straight to the store. An answer that got lost counts when it is heard at last."""

    def __init__(self, store: TaskStore, meters: Meters, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._meters = meters
        self._clock = clock
        self._lock = threading.Lock()
        #: claims that have not ended
        self._held: dict[Claim, tuple[Task, Spent]] = {}
        #: those among them that the last heartbeat did not name
        self._unnamed: set[Claim] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def claim(self, worker_id: str, **given: Any) -> list[Task]:
        """Each row that is handed out counts."""
        tasks = self._store.claim(worker_id, **given)
        for task in tasks:
            self._meters.claims.labels(self._meters.type_of(task)).inc()
            with self._lock:
                self._held[task.claim] = (task, Spent(self._clock()))
        return tasks

    def progress(self, claim: Claim, progress: Mapping[str, Any], **given: Any) -> bool:
        """It says what the stages took."""
        with self._lock:
            if claim in self._held:
                self._held[claim][1].hear(progress, self._clock())
        return self._store.progress(claim, progress, **given)

    def heartbeat(self, worker_id: str, claims: Sequence[Claim], **given: Any) -> HeartbeatReply:
        """Those that reach the database, those that do not, and what they say is lost."""
        try:
            reply = self._store.heartbeat(worker_id, claims, **given)
        except (StoreError, InvalidInput):
            self._meters.heartbeats_failed.inc()
            raise
        self._meters.heartbeats.inc()
        self._meters.last_heartbeat.set_to_current_time()
        self._meters.leases_lost.inc(len(reply.lost))
        self._forget_others({claim for claim in claims if claim.task_id not in reply.lost})
        return reply

    def complete(self, claim: Claim, output_location: str | None, **given: Any) -> None:
        """Complete."""
        self._store.complete(claim, output_location, **given)
        self._end(claim, Status.COMPLETE)

    def fan_out(self, claim: Claim, children: Sequence[Any], *, final_child: str) -> list[str]:
        """The parent waits: it ends in the database, with its last child."""
        ids = self._store.fan_out(claim, children, final_child=final_child)
        self._let_go(claim)
        return ids

    def fail(self, claim: Claim, message: str, *, error_class: str) -> None:
        """Failed."""
        self._store.fail(claim, message, error_class=error_class)
        self._meters.failures.labels(error_class).inc()
        self._end(claim, Status.FAILED)

    def retry_later(self, claim: Claim, message: str, *, error_class: str, delay_s: float) -> Status:
        """Failed for this time, or for good."""
        status = self._store.retry_later(claim, message, error_class=error_class, delay_s=delay_s)
        self._meters.failures.labels(error_class).inc()
        if status is Status.QUEUED:
            self._meters.requeued.labels("retry").inc()
            self._let_go(claim)
        else:
            self._end(claim, status)
        return status

    def release(self, claim: Claim) -> None:
        """Put back."""
        self._store.release(claim)
        self._meters.requeued.labels("release").inc()
        self._let_go(claim)

    def cancelled(self, claim: Claim) -> None:
        """Cancelled."""
        self._store.cancelled(claim)
        self._end(claim, Status.CANCELLED)

    def _forget_others(self, named: set[Claim]) -> None:
        """A run whose claim was lost ends without another word. One that has just been claimed is not named yet."""
        with self._lock:
            unnamed = self._held.keys() - named
        for claim in unnamed & self._unnamed:
            self._let_go(claim)
        self._unnamed = unnamed

    def _end(self, claim: Claim, status: Status) -> None:
        task = self._let_go(claim)
        self._meters.ended.labels(status.value, self._meters.type_of(task)).inc()

    def _let_go(self, claim: Claim) -> Task | None:
        """The claim is over, however: what it spent is known."""
        with self._lock:
            task, spent = self._held.pop(claim, (None, None))
        if spent is not None:
            for stage, seconds in spent.seconds(self._clock()).items():
                self._meters.stages.labels(stage).observe(seconds)
        return task


def metered(store: TaskStore, meters: Meters) -> TaskStore:
    """The store, and what passes through it counted."""
    return cast(TaskStore, MeteredStore(store, meters))
