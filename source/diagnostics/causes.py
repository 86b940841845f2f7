"""Which task is to blame for the end of another."""

from __future__ import annotations

from collections.abc import Iterable

from source.diagnostics.views import View, picked
from source.store.base import TaskStore
from source.store.circumstances import Circumstances
from source.store.types import UNSUCCESSFUL, Task

#: error classes of rows that failed because another did
BECAUSE_OF_OTHERS = ("dependency", "parent")
_KEYS = ("id", "task_type", "status", "child_key", "error_class", "error_message")


def cause_view(store: TaskStore, facts: Circumstances) -> View | None:
    """The row with which the failure or cancellation of this one began; None for one that ended by itself, or well."""
    task = facts.task
    if task.status not in UNSUCCESSFUL:
        return None
    found = _first(facts.needed) or _first(facts.children)
    if found is None and facts.parent is not None and facts.parent.status in UNSUCCESSFUL and _blames_others(task):
        siblings = [row for row in store.children(facts.parent.id) if row.id != task.id]
        found = _first(siblings) or facts.parent
    return picked(found, _KEYS) if found else None


def _first(rows: Iterable[Task]) -> Task | None:
    """Of those that ended badly by themselves, the one that ended first."""
    own = [row for row in rows if row.status in UNSUCCESSFUL and not _blames_others(row)]
    return min(own, key=lambda row: (row.generation_processed_at or "", row.created_at), default=None)


def _blames_others(row: Task) -> bool:
    """A cancelled row has no class."""
    return row.error_class in BECAUSE_OF_OTHERS
