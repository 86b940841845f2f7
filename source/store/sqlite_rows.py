"""Rows of the SQLite store: reading them as values, the clock, the timeline."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from source.store.encoding import plain
from source.store.types import Event, Status, Task

#: the only clock
NOW = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')"
#: now + :delay_s
LATER = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now', :delay_s || ' seconds')"
#: now - :since_s
EARLIER = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now', -:since_s || ' seconds')"
#: of a worker, or of every start of one with that name: an id is that with what `new_worker_id` puts behind it, so gpu
#: is not gpu-1
OF_WORKER = f"""(worker_id = :worker_id OR (substr(worker_id, 1, length(:worker_id) + 1) = :worker_id || '-'
    AND substr(worker_id, length(:worker_id) + 2) GLOB '{8 * "[0-9a-f]"}'))"""
#: the rows whose ids are bound by `ids(…)`
IN_IDS = "IN (SELECT value FROM json_each(:ids))"

_TASK_FIELDS = tuple(field.name for field in fields(Task))
_FLAGS = ("waiting", "paused", "cancel_requested")
_DETAIL_CHARACTERS = 500


def task_of(row: sqlite3.Row) -> Task:
    """The row as a `Task`. Params that are no JSON object (a front end wrote them) are shown under `unreadable`."""
    values: dict[str, Any] = {name: row[name] for name in _TASK_FIELDS}
    values |= {name: bool(row[name]) for name in _FLAGS}
    values |= {name: json_object(row[name]) for name in ("progress", "result_data")}
    params = json_object(row["params"])
    values["params"] = {"unreadable": row["params"]} if params is None else params
    values["status"] = Status(row["status"])
    values["dependant_on"] = dependencies_of(row["dependant_on"])
    return Task(**values)


def event_of(row: sqlite3.Row) -> Event:
    return Event(row["task_id"], row["at"], row["name"], row["worker_id"], row["claim_number"], row["detail"])


def json_object(text: str | None) -> dict[str, Any] | None:
    """The JSON object in `text`, or None when there is none."""
    if text is None:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def dependencies_of(text: str | None) -> tuple[str, ...]:
    """The ids in `dependant_on`: a JSON array, or one bare id. Reads as the view task_dependency_lists does."""
    if text is None or not text.strip():
        return ()
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return (text,)
    if isinstance(value, list):
        return tuple(dict.fromkeys(str(entry) for entry in value if entry is not None))
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else (text,)


def ids(values: Iterable[str]) -> str:
    """Ids bound as one value, for IN_IDS."""
    return json.dumps(list(values))


def record(
    db: sqlite3.Connection, task_id: str, name: str, *, worker_id: str | None = None,
    claim_number: int | None = None, detail: str | None = None,
) -> None:  # fmt: skip
    """Add an entry to a task's timeline."""
    db.execute(
        "INSERT INTO task_events (task_id, name, worker_id, claim_number, detail) VALUES (?, ?, ?, ?, ?)",
        (task_id, name, worker_id, claim_number, plain(detail)[:_DETAIL_CHARACTERS] if detail else None),
    )
