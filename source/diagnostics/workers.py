"""`debug.py workers`: the workers of an installation, which of them still send heartbeats, and how their tasks end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from headless.accounting import IDLE
from source.diagnostics.views import View
from source.diagnostics.words import duration, gigabytes, listed, percent, printable
from source.store.base import TaskStore
from source.store.types import Status, TaskFilter, WorkerRow

#: age of the last heartbeat below which a worker is healthy, and from which it is stale
HEALTHY_S, STALE_S = 60.0, 300.0
#: what a worker says when it leaves
STOPPED = "stopped"
STYLES = {"healthy": "green", "late": "yellow", "stale": "red", "stopped": "dim"}
#: share of failures from which something is wrong, and how many ends it takes to say so
ALARM, LEAST_ENDS = 0.8, 5
#: ended rows that are looked at
MOST_ENDED = 1000


def workers_view(rows: Sequence[WorkerRow], now: datetime) -> list[View]:
    """Each worker with the age of its last heartbeat by the database's clock `now`, the latest first."""
    return [worker_line(row, now) for row in rows]


def worker_line(row: WorkerRow, now: datetime) -> View:
    """One of them: id, status, health (healthy, late, stale or stopped), heartbeat_age_s, current_model, gpu_seconds
    by activity, gpu_busy (0 to 1, since it started), memory_used and memory_total (bytes), created_at."""
    age = None if row.last_heartbeat is None else (now - datetime.fromisoformat(row.last_heartbeat)).total_seconds()
    seconds = row.metadata.get("gpu_seconds")
    return {
        "id": row.id,
        "status": row.status,
        "health": _health(row, age),
        "heartbeat_age_s": None if age is None else round(age, 3),
        "last_heartbeat": row.last_heartbeat,
        "current_model": row.current_model,
        "gpu_seconds": seconds,
        "gpu_busy": gpu_busy(seconds),
        "memory_used": _bytes(row.metadata.get("vram_used_mb")),
        "memory_total": _bytes(row.metadata.get("vram_total_mb")),
        "created_at": row.created_at,
    }


def gpu_busy(seconds: Any, before: Any = None) -> float | None:
    """The share (0 to 1) of its time that a GPU was at work, by seconds by activity; since `before`, where that is
    given. None where nobody says so."""
    if not isinstance(seconds, Mapping):
        return None
    earlier = before if isinstance(before, Mapping) else {}
    spent = {name: each - earlier.get(name, 0.0) for name, each in seconds.items() if isinstance(each, int | float)}
    total = sum(spent.values())
    idle = sum(spent.get(activity, 0.0) for activity in IDLE)
    return round(1 - idle / total, 4) if total > 0 else None


def with_ends(store: TaskStore, views: Sequence[View], hours: float) -> list[View]:
    """Each worker with what it ended within the last hours: ended, failed, failure_rate (0 to 1; None: nothing), and
    the failures by class. Of many ends the latest 1000 count."""
    chosen = TaskFilter(ended_within_s=hours * 3600)
    rows = store.select(chosen, limit=MOST_ENDED, newest_first=True)
    return [view | ends([row for row in rows if row.worker_id == view["id"]]) for view in views]


def ends(rows: Sequence[Any]) -> View:
    """How rows ended: {ended, failed, failure_rate, failures}. Cancelled ones say nothing of a worker."""
    failed = Counter(row.error_class or "unknown" for row in rows if row.status is Status.FAILED)
    done = sum(row.status is not Status.CANCELLED for row in rows)
    rate = round(failed.total() / done, 4) if done else None
    return {"ended": len(rows), "failed": failed.total(), "failure_rate": rate, "failures": dict(failed.most_common())}


def alarming(view: View) -> bool:
    """Whether so many tasks failed that something must be wrong."""
    rate = view.get("failure_rate")
    return rate is not None and rate >= ALARM and view["ended"] >= LEAST_ENDS


def rendered_workers(views: Sequence[View]) -> RenderableType:
    """A table, how many there are of each health, and what failed where."""
    told = bool(views) and "ended" in views[0]
    heads = ("worker", "health", "seen", "status", "GPU busy", "memory", "model")
    table = Table(*heads, *(("ended", "failed") if told else ()), box=None, pad_edge=False)
    for view in views:
        table.add_row(*_cells(view), *(_end_cells(view) if told else ()))
    counts = Counter(view["health"] for view in views)
    parts: list[RenderableType] = [table] if views else []
    parts.append(Text(listed(counts) or "no workers"))
    parts += [
        Text(f"{printable(each['id'])}: {percent(each['failure_rate'])} of its tasks failed", style="bold red")
        for each in views
        if alarming(each)
    ]
    return Group(*parts)


def _cells(view: View) -> list[Text | str]:
    age = view["heartbeat_age_s"]
    return [
        Text(printable(view["id"])),
        Text(view["health"], style=STYLES[view["health"]]),
        "" if age is None else f"{duration(age)} ago",
        Text(printable(view["status"])),
        percent(view["gpu_busy"]),
        memory_words(view),
        Text(printable(view["current_model"] or "")),
    ]


def _end_cells(view: View) -> list[Text | str]:
    failures = f" ({listed(view['failures'])})" if view["failures"] else ""
    return [str(view["ended"]), Text(f"{view['failed']}{printable(failures)}", style="red" if view["failed"] else "")]


def memory_words(view: View) -> str:
    """12 of 24 GB; "" where nobody says so."""
    if view["memory_used"] is None or not view["memory_total"]:
        return ""
    return f"{gigabytes(view['memory_used']).removesuffix(' GB')} of {gigabytes(view['memory_total'])}"


def _bytes(megabytes: Any) -> int | None:
    return round(megabytes * 2**20) if isinstance(megabytes, int | float) else None


def _health(row: WorkerRow, age: float | None) -> str:
    if row.status == STOPPED:
        return STOPPED
    if age is None or age >= STALE_S:
        return "stale"
    return "healthy" if age < HEALTHY_S else "late"
