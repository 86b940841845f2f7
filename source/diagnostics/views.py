"""Tasks as plain JSON values, without secrets."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any

from source.ledger import claim_lines
from source.logs import redact_values
from source.store.base import TaskStore
from source.store.types import Event, Status, Task

View = dict[str, Any]

_TASK_KEYS = (
    "id", "task_type", "status", "paused", "params", "attempts", "worker_id", "output_location", "error_message",
    "progress", "created_at", "generation_started_at", "generation_processed_at",
)  # fmt: skip
_LIST_KEYS = (
    "id", "task_type", "status", "paused", "attempts", "worker_id", "model", "output_location", "error_message",
    "progress", "parent_id", "created_at", "generation_started_at", "generation_processed_at",
)  # fmt: skip
_CHILD_KEYS = ("id", "task_type", "status", "child_key", "output_location", "error_message")
_EVENT_KEYS = ("at", "name", "worker_id", "claim_number", "detail")


def task_view(store: TaskStore, task_id: str) -> View:
    """One task with its timeline, how each claim of it ended, and its children. Raises TaskNotFound."""
    task, events = store.get(task_id), store.events(task_id)
    view = _picked(task, _TASK_KEYS)
    view["timeline"] = [_picked(event, _EVENT_KEYS) for event in events]
    view["claims"] = [asdict(line) for line in claim_lines(events, task.result_data)]
    view["children"] = [_picked(child, _CHILD_KEYS) for child in store.children(task_id)]
    return view


def outputs_of(store: TaskStore, task_id: str) -> list[str]:
    """The files of a task that made several; empty for any other. Raises TaskNotFound."""
    listed = (store.get(task_id).result_data or {}).get("outputs")
    return [str(each) for each in listed] if isinstance(listed, list) else []


def tasks_view(
    store: TaskStore, *, status: Status | None = None, task_type: str | None = None, limit: int = 50
) -> list[View]:
    """The newest tasks first."""
    return [_picked(task, _LIST_KEYS) for task in store.tasks(status=status, task_type=task_type, limit=limit)]


def seconds_between(start: str | None, end: str | None) -> float | None:
    """Between two times of the database; None when one is missing."""
    if not start or not end:
        return None
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def _picked(row: Task | Event, keys: tuple[str, ...]) -> View:
    return {key: redact_values(getattr(row, key)) for key in keys}
