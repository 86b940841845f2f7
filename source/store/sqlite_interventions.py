"""What whoever looks after the SQLite store's tasks does to them: pause, resume, requeue; and which tasks a choice
means. Writes are inside the caller's transaction."""

from __future__ import annotations

import sqlite3
from typing import Any

from source.errors import InvalidInput
from source.store.sqlite_endings import open_subtree
from source.store.sqlite_queueing import requeue
from source.store.sqlite_rows import IN_IDS, NOW, ids, record, task_of
from source.store.types import TERMINAL, Task, TaskFilter

_SET_PAUSED = f"""
UPDATE tasks SET paused = :paused, updated_at = {NOW} WHERE id {IN_IDS} AND paused <> :paused RETURNING id
"""

_RUNNING = f"SELECT * FROM tasks WHERE id {IN_IDS} AND +status = 'In Progress' AND waiting = 0 ORDER BY rowid"

# An orchestrator by its id, or those of a travel by its run_id, with all that came of them.
_RUN = """
WITH RECURSIVE run (id) AS (
    SELECT id FROM tasks WHERE id = :run OR (
        task_type GLOB '*_orchestrator' AND json_valid(params)
        AND json_extract(params, '$.orchestrator_details.run_id') = :run)
    UNION SELECT child.id FROM run CROSS JOIN tasks AS child ON child.parent_id = run.id)
"""

_CONDITIONS = {
    "statuses": "status IN (SELECT value FROM json_each(:statuses))",
    "task_type": "task_type = :task_type",
    # a name with what `new_worker_id` puts behind it: gpu is not gpu-1
    "worker_id": f"""(worker_id = :worker_id OR (substr(worker_id, 1, length(:worker_id) + 1) = :worker_id || '-'
        AND substr(worker_id, length(:worker_id) + 2) GLOB '{8 * "[0-9a-f]"}'))""",
    "error_class": "error_class = :error_class",
    "older_than_s": "created_at <= strftime('%Y-%m-%dT%H:%M:%fZ', 'now', -:older_than_s || ' seconds')",
    "run": "id IN run",
    "paused": "paused = :paused",
}


def select(db: sqlite3.Connection, chosen: TaskFilter, limit: int) -> list[Task]:
    """The rows for which everything that is given holds, the oldest first."""
    values: dict[str, Any] = {name: value for name, value in chosen.given().items() if value is not None}
    if "statuses" in values:
        values["statuses"] = ids(values["statuses"])
    where = " AND ".join(_CONDITIONS[name] for name in values) or "TRUE"
    query = f"{_RUN if chosen.run else ''} SELECT * FROM tasks WHERE {where} ORDER BY created_at, rowid LIMIT :limit"
    return [task_of(row) for row in db.execute(query, {**values, "limit": max(limit, 0)})]


def set_paused(db: sqlite3.Connection, row: sqlite3.Row, paused: bool) -> None:
    """Mark the row and its open descendants. Raises InvalidInput for a row that has ended."""
    if row["status"] in TERMINAL:
        raise InvalidInput(
            f"task {row['id']} is {row['status']}; only a task that has not ended can be paused or resumed",
            field="status",
        )
    values = {"ids": ids(each["id"] for each in open_subtree(db, row["id"])), "paused": int(paused)}
    for changed in db.execute(_SET_PAUSED, values).fetchall():
        record(db, changed["id"], "paused" if paused else "resumed")


def requeue_running(db: sqlite3.Connection, row: sqlite3.Row) -> None:
    """Queue again what runs of the row and its descendants; no attempt is burned. Raises InvalidInput when nothing of
    it runs."""
    open_rows = ids(each["id"] for each in open_subtree(db, row["id"]))
    running = db.execute(_RUNNING, {"ids": open_rows}).fetchall()
    if not running:
        raise InvalidInput(
            f"task {row['id']} is {row['status']}, and nothing of it runs; only what runs can be requeued",
            field="status",
        )
    for each in running:
        requeue(db, each, "requeued")


def pause_children(db: sqlite3.Connection, parent_id: str) -> None:
    """The children that a paused parent has just made are paused."""
    values = {"ids": ids(each["id"] for each in open_subtree(db, parent_id)), "paused": 1}
    db.execute(_SET_PAUSED, values)
