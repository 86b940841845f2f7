"""What `debug.py watch` shows at one moment, asked for as seldom as it changes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

from source.diagnostics.logs import logs_view
from source.diagnostics.views import View, picked, seconds_at_work, seconds_between, share_done, time_of
from source.diagnostics.workers import STOPPED, gpu_busy, worker_line
from source.store.base import TaskStore
from source.store.types import LogFilter, Status, Task, TaskFilter, ThroughputBucket, WorkerRow, WorkerSample

Found = TypeVar("Found")

#: how far back rates and courses go, and how far back a worker that is gone is shown
SPAN_S, GONE_S = 3600.0, 600.0
#: and how far back endings are looked for at least; they are counted by so many seconds
LEAST_SPAN_S, BUCKET_S = 30.0, 60.0
#: endings and log lines that are asked for: as many as a tall terminal shows
MOST_ENDED, MOST_LINES = 20, 40
#: samples of all workers within SPAN_S
MOST_SAMPLES = 2000
#: seconds for which an answer is good, on a file, and where each question is a request
AT_ONCE, SOON, SELDOM = (0.0, 4.5), (2.0, 14.5), (5.0, 59.5)

_RUNNING_KEYS = ("id", "task_type", "progress", "worker_id", "claimed_at", "generation_started_at", "waiting")
_ENDED_KEYS = ("id", "task_type", "status", "error_message", "error_class", "generation_processed_at", "worker_id")


class Looker:
    """Looks at a store again and again. What changes seldom is asked for seldom: where each question is a request, a
    minute costs 12 each for what runs, what ended and the log, 4 each for the counts and the workers, and 1 each for
    the clock, the throughput and the samples: 47 in all."""

    def __init__(self, store: TaskStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._known: dict[str, tuple[float, Any]] = {}

    def look(self) -> View:
        """The facts of one moment.

        now         by the database's clock
        tasks       rows by status; per_hour: ended as Complete within the last hour; eta_s: seconds until the queue is
                    empty at the rate since the first of these, None where there is none
        workers     alive or gone lately: `workers.worker_line` with running [{id, task_type, share, phase, progress,
                    seconds}], course (the GPU's use, 0 to 1, over the last hour, oldest first), use (now)
        parents     orchestrators that wait for their children
        ended       the latest: [{id, task_type, status, error_message, seconds, …}], newest first
        logs        the latest lines, oldest first
        """
        store = self._store
        now = self._now()
        running = self._ask(
            "running", AT_ONCE, lambda: store.select(TaskFilter(statuses=(Status.IN_PROGRESS,)), newest_first=True)
        )
        counts = self._ask("counts", SOON, store.counts)
        buckets = self._ask("rate", SELDOM, lambda: store.throughput(since_s=SPAN_S, bucket_s=BUCKET_S))
        all_ended = sum(bucket.count for bucket in buckets)
        per_hour = sum(bucket.count for bucket in buckets if bucket.status is Status.COMPLETE)
        return {
            "now": now,
            "tasks": {str(status): number for status, number in counts.items()},
            "per_hour": per_hour,
            "eta_s": _eta_s(counts[Status.QUEUED], buckets, now),
            "workers": self._workers(running, now),
            "parents": sum(row.waiting for row in running),
            "ended": [_ended(row) for row in self._ask("ended", AT_ONCE, lambda: self._latest_ended(all_ended))],
            "logs": self._ask("logs", AT_ONCE, lambda: logs_view(store, LogFilter(), limit=MOST_LINES)),
        }

    def _ask(self, name: str, good: tuple[float, float], question: Callable[[], Found]) -> Found:
        """The answer; one of before while it is good."""
        known = self._known.get(name)
        good_s = good[0] if self._store.local else good[1]
        if known is not None and self._clock() - known[0] < good_s:
            found: Found = known[1]
            return found
        answer = question()
        self._known[name] = (self._clock(), answer)
        return answer

    def _now(self) -> str:
        """The database's clock, carried on by this machine's."""
        moment, at = self._ask("now", SELDOM, lambda: (self._clock(), self._store.now()))
        return time_of(at + timedelta(seconds=self._clock() - moment))

    def _latest_ended(self, per_hour: int) -> list[Task]:
        """By when they ended; looked for no further back than so many an hour make it necessary."""
        span_s = min(SPAN_S, max(SPAN_S * 3 * MOST_ENDED / max(per_hour, 1), LEAST_SPAN_S))
        rows = self._store.select(TaskFilter(ended_within_s=span_s), limit=10 * MOST_ENDED, newest_first=True)
        return sorted(rows, key=lambda row: row.generation_processed_at or "", reverse=True)[:MOST_ENDED]

    def _workers(self, running: Sequence[Task], now: str) -> list[View]:
        rows = self._ask("workers", SOON, self._store.workers)
        samples = self._ask("samples", SELDOM, lambda: self._store.samples(since_s=SPAN_S, limit=MOST_SAMPLES))
        shown = [_worker(row, running, samples, now) for row in rows]
        return sorted((view for view in shown if _is_shown(view)), key=lambda view: str(view["id"]))


def _eta_s(queued: int, buckets: Sequence[ThroughputBucket], now: str) -> int | None:
    done = [bucket for bucket in buckets if bucket.status is Status.COMPLETE]
    if not queued or not done:
        return None
    since = seconds_between(min(bucket.at for bucket in done), now) or 0.0
    span_s = min(max(since, LEAST_SPAN_S), SPAN_S)
    return round(queued * span_s / sum(bucket.count for bucket in done))


def _worker(row: WorkerRow, running: Sequence[Task], samples: Sequence[WorkerSample], now: str) -> View:
    own = [each.values for each in samples if each.worker_id == row.id]
    course = [use for use in map(_use, [None, *own], own) if use is not None]
    view = worker_line(row, datetime.fromisoformat(now))
    tasks = [task for task in running if task.worker_id == row.id and not task.waiting]
    return view | {
        "running": sorted((_running(task, now) for task in tasks), key=lambda task: not task["on_gpu"]),
        "course": course,
        "use": course[-1] if course else view["gpu_busy"],
    }


def _use(before: Mapping[str, Any] | None, values: Mapping[str, Any]) -> float | None:
    """The GPU's use up to a sample, 0 to 1: as the device measured it, or by what its thread was at since the sample
    before."""
    measured = values.get("gpu_utilization")
    if isinstance(measured, int | float):
        return round(measured / 100, 4)
    return gpu_busy(values.get("gpu_seconds"), before.get("gpu_seconds")) if before else None


def _running(task: Task, now: str) -> View:
    progress = task.progress or {}
    phase = str(progress.get("phase") or "claimed")
    return {
        **picked(task, _RUNNING_KEYS),
        "share": round(share_done(task), 4),
        "phase": phase,
        "on_gpu": phase in ("loading", "encoding", "denoising", "decoding", "generating"),
        "seconds": seconds_at_work(task, now),
    }


def _ended(row: Task) -> View:
    return picked(row, _ENDED_KEYS) | {"seconds": seconds_at_work(row)}


def _is_shown(view: View) -> bool:
    age = view["heartbeat_age_s"]
    return bool(view["running"]) or (view["health"] != STOPPED and age is not None and age < GONE_S)
