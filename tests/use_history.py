"""A database as after hours of work: samples of two workers and the ends of tasks, at times that lie back."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

from source.store.sqlite import SqliteStore
from source.store.types import NewTask

GB = 10**9
EVERY_S = 20
#: (seconds, activity): one task after another, with a pause
_CYCLE = (
    (14, "load"),
    (9, "encode"),
    (120, "denoise"),
    (18, "decode"),
    (6, "save"),
    (20, "idle_waiting"),
    (73, "idle_no_task"),
)


def record(store: SqliteStore, hours: float, workers: tuple[str, ...] = ("gpu-1-0badf00d", "gpu-2-5eed5eed")) -> None:
    """Samples each 20 seconds until now, and a task that ended for each cycle of work; one in six failed."""
    # between whole minutes: a span begins at one, and a moment more or less must not matter
    now = datetime.fromtimestamp(store.now().timestamp() // 60 * 60 - 10, UTC)
    with closing(sqlite3.connect(store.path)) as db, db:
        for number, worker in enumerate(workers):
            rows = list(_samples(worker, number, now, hours))
            db.executemany("INSERT INTO worker_samples (worker_id, at, measured) VALUES (?, ?, ?)", rows)
            db.execute(
                "INSERT INTO workers (id, status, last_heartbeat, metadata) VALUES (?, 'running', ?, '{}')",
                (worker, _text(now)),
            )
    _ended(store, now, hours)


def _samples(worker: str, number: int, now: datetime, hours: float) -> Iterator[tuple[str, str, str]]:
    spent: dict[str, float] = {name: 0.0 for _, name in _CYCLE} | {"lent": 0.0}
    steps = int(hours * 3600 / EVERY_S)
    for step in range(steps):
        name = _at(step * EVERY_S + 90 * number)
        spent[name] += EVERY_S
        busy = {"denoise": 94.0, "decode": 71.0, "encode": 38.0, "load": 12.0}.get(name, 0.0)
        measured: dict[str, Any] = {
            "gpu_utilization": busy and round(busy + 4 * math.sin(step / 3 + number), 1),
            "gpu_memory_used": (9 + 11 * (busy > 30) + number) * GB,
            "gpu_memory_total": 24 * GB,
            "rss": int((5.5 + number + math.sin(step / 40)) * GB),
            "gpu_seconds": dict(spent),
        }
        yield worker, _text(now - timedelta(seconds=(steps - 1 - step) * EVERY_S)), json.dumps(measured)


def _at(second: int) -> str:
    rest = second % sum(length for length, _ in _CYCLE)
    for length, name in _CYCLE:
        if rest < length:
            return name
        rest -= length
    raise AssertionError


def _ended(store: SqliteStore, now: datetime, hours: float) -> None:
    ids = store.add_many(
        [
            NewTask(task_type=("t2v", "vace", "travel_segment")[number % 3], params={})
            for number in range(int(hours * 12))
        ]
    )
    with closing(sqlite3.connect(store.path)) as db, db:
        for number, task_id in enumerate(ids):
            end = now - timedelta(seconds=300 * number + 20)
            db.execute(
                "UPDATE tasks SET status = ?, generation_started_at = ?, generation_processed_at = ? WHERE id = ?",
                ("Failed" if number % 6 == 5 else "Complete", _text(end - timedelta(seconds=100)), _text(end), task_id),
            )


def _text(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z"
