"""What came of a task: its children, and theirs, with how far each is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from source.diagnostics.views import View, picked, seconds_at_work, share_done
from source.store.base import TaskStore
from source.store.types import Task

#: generations of children that are looked at
DEPTH = 4
_KEYS = (
    "id", "task_type", "status", "paused", "waiting", "child_key", "output_location", "error_message", "error_class",
    "progress", "attempts", "worker_id", "dependant_on", "generation_started_at", "generation_processed_at",
)  # fmt: skip


def children_view(store: TaskStore, children: Sequence[Task], now: str, depth: int = DEPTH) -> list[View]:
    """Each child with its `share` (0 to 1 that is done), `seconds` (at work, up to now) and its own `children`.

    Their children are asked for only where there may be some: of orchestrators.
    """
    return [_child(store, child, now, depth) for child in children]


def tally(children: Sequence[View]) -> View:
    """How far all of them are: {total, share, and the number of each status}."""
    statuses = Counter(str(child["status"]) for child in children)
    share = sum(child["share"] for child in children) / len(children) if children else 0.0
    return {"total": len(children), "share": round(share, 4), "by_status": dict(statuses)}


def _child(store: TaskStore, row: Task, now: str, depth: int) -> View:
    has_own = depth > 1 and (row.waiting or row.task_type.endswith("_orchestrator"))
    own = children_view(store, store.children(row.id), now, depth - 1) if has_own else []
    share = tally(own)["share"] if own and not row.terminal else share_done(row)
    return {
        **picked(row, _KEYS),
        "share": round(share, 4),
        "seconds": seconds_at_work(row, now),
        "children": own,
    }
