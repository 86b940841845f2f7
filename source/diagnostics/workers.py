"""The workers of an installation, and which of them still send heartbeats."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from headless.accounting import IDLE
from source.diagnostics.words import printable
from source.store.types import WorkerRow

View = dict[str, Any]

#: age of the last heartbeat below which a worker is healthy, and from which it is stale
HEALTHY_S, STALE_S = 60.0, 300.0
#: what a worker says when it leaves
STOPPED = "stopped"
STYLES = {"healthy": "green", "late": "yellow", "stale": "red", "stopped": "dim"}


def workers_view(rows: Sequence[WorkerRow], now: datetime) -> list[View]:
    """Each worker with the age of its last heartbeat by the database's clock `now`, the latest first."""
    return [_view(row, now) for row in rows]


def rendered_workers(views: Sequence[View]) -> RenderableType:
    """A table, and how many there are of each state."""
    table = Table("worker", "health", "seconds ago", "status", "GPU busy", "model", box=None, pad_edge=False)
    for view in views:
        age = view["heartbeat_age_s"]
        table.add_row(
            Text(printable(view["id"])),
            Text(view["health"], style=STYLES[view["health"]]),
            "" if age is None else f"{age:.0f}",
            Text(printable(view["status"])),
            _busy(view["gpu_seconds"]),
            Text(printable(view["current_model"] or "")),
        )
    counts = Counter(view["health"] for view in views)
    return Group(*([table] if views else []), Text(", ".join(f"{count} {name}" for name, count in counts.items())
                                                   or "no workers"))  # fmt: skip


def _view(row: WorkerRow, now: datetime) -> View:
    age = None if row.last_heartbeat is None else (now - datetime.fromisoformat(row.last_heartbeat)).total_seconds()
    return {
        "id": row.id,
        "status": row.status,
        "health": _health(row, age),
        "heartbeat_age_s": None if age is None else round(age, 3),
        "last_heartbeat": row.last_heartbeat,
        "current_model": row.current_model,
        "gpu_seconds": row.metadata.get("gpu_seconds"),
        "created_at": row.created_at,
    }


def _busy(seconds: Any) -> str:
    """The share of its time that a worker's GPU was at work; "" where nobody says so."""
    if not isinstance(seconds, Mapping) or not (total := sum(seconds.values())):
        return ""
    return f"{100 * (1 - sum(seconds.get(activity, 0) for activity in IDLE) / total):.0f} %"


def _health(row: WorkerRow, age: float | None) -> str:
    if row.status == STOPPED:
        return STOPPED
    if age is None or age >= STALE_S:
        return "stale"
    return "healthy" if age < HEALTHY_S else "late"
