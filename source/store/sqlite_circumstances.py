"""What surrounds a row of the SQLite store, and its workers. Reads alone; several statements in one transaction."""

from __future__ import annotations

import sqlite3
from dataclasses import fields
from typing import Any

from source.store.circumstances import Ahead, Circumstances, Owner
from source.store.sqlite_claiming import ELIGIBLE
from source.store.sqlite_rows import NOW, json_object, task_of
from source.store.types import Status, Task, WorkerRow, affinity_key

#: the columns of a row, without what may be long
_BRIEF = ", ".join(
    f"'{{}}' AS {field.name}" if field.name == "params" else
    f"NULL AS {field.name}" if field.name == "result_data" else f"task.{field.name}"
    for field in fields(Task)
)  # fmt: skip

_NEEDED = """
WITH RECURSIVE needed (id) AS (
    SELECT depends_on FROM task_dependencies WHERE task_id = :id
    UNION SELECT edge.depends_on FROM needed CROSS JOIN tasks AS task ON task.id = needed.id
    CROSS JOIN task_dependencies AS edge ON edge.task_id = task.id WHERE +task.status <> 'Complete')
"""
_NEEDED_ROWS = f"""{_NEEDED}
SELECT {_BRIEF} FROM needed CROSS JOIN tasks AS task ON task.id = needed.id
WHERE +task.status <> 'Complete' ORDER BY task.rowid LIMIT 500
"""
_MISSING = (
    f"{_NEEDED} SELECT id FROM needed WHERE NOT EXISTS (SELECT 1 FROM tasks WHERE tasks.id = needed.id) LIMIT 500"
)
_CHILDREN = f"""
SELECT {_BRIEF} FROM tasks AS task WHERE parent_id = :id AND +status <> 'Complete' ORDER BY rowid LIMIT 50
"""
_PARENT = f"SELECT {_BRIEF} FROM tasks AS task WHERE id = :parent_id"
_RUNNING = f"""
SELECT {_BRIEF} FROM tasks AS task INDEXED BY tasks_lease
WHERE status = 'In Progress' AND waiting = 0 ORDER BY claimed_at LIMIT 100
"""
_RUNNING_OF_OWNER = """
SELECT count(*) FROM tasks INDEXED BY tasks_lease
WHERE status = 'In Progress' AND waiting = 0 AND project_id = :project_id AND task_type NOT LIKE '%_orchestrator'
    AND task_type <> 'different_pose'
"""
_WORKERS = """
SELECT id, status, last_heartbeat, current_model, created_at, metadata FROM workers WHERE last_heartbeat IS NOT NULL
ORDER BY last_heartbeat DESC, rowid DESC
"""

_HIGHER = f"SELECT count(*) FROM tasks AS task INDEXED BY tasks_claim WHERE {ELIGIBLE} AND priority > :priority"
_LEVEL = f"FROM tasks AS task INDEXED BY tasks_claim WHERE {ELIGIBLE} AND priority = :priority"
_OLDER = f"""
SELECT count(*) {_LEVEL} AND project_id = :project_id AND (created_at, rowid) < (:created_at, :row)
"""
_OTHERS = f"SELECT count(*) AS number {_LEVEL} AND project_id <> :project_id GROUP BY project_id ORDER BY number DESC"
_LOADED = f"""
SELECT coalesce(model, task_type) AS key, count(*) {_LEVEL}
    AND project_id = :project_id AND (created_at, rowid) > (:created_at, :row) AND key <> :key AND key IN (
        SELECT coalesce(json_extract(metadata, '$.takes_first'), current_model) FROM workers
        WHERE status <> 'stopped' AND last_heartbeat > strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-5 minutes'))
GROUP BY key
"""


def workers(db: sqlite3.Connection) -> list[WorkerRow]:
    """Those that ever sent a heartbeat, the latest first."""
    rows = [dict(row) for row in db.execute(_WORKERS)]
    return [WorkerRow(**{**row, "metadata": json_object(row["metadata"]) or {}}) for row in rows]


def circumstances(db: sqlite3.Connection, row: sqlite3.Row) -> Circumstances:
    """What surrounds `row`."""
    values = {name: row[name] for name in ("id", "parent_id", "project_id", "priority", "created_at")} | {
        "row": db.execute("SELECT rowid FROM tasks WHERE id = ?", (row["id"],)).fetchone()[0],
        "key": affinity_key(row["model"], row["task_type"]),
    }
    queued = row["status"] == Status.QUEUED
    return Circumstances(
        now=db.execute(f"SELECT {NOW}").fetchone()[0],
        task=task_of(db.execute(f"SELECT {_BRIEF} FROM tasks AS task WHERE id = :id", values).fetchone()),
        passed_over=row["passed_over"],
        passed_over_since=row["passed_over_since"],
        needed=_tasks(db, _NEEDED_ROWS, values),
        missing=tuple(found[0] for found in db.execute(_MISSING, values)),
        parent=next(iter(_tasks(db, _PARENT, values)), None),
        children=_tasks(db, _CHILDREN, values),
        owner=Owner(running=db.execute(_RUNNING_OF_OWNER, values).fetchone()[0]),
        workers=tuple(workers(db)[:20]),
        running=_tasks(db, _RUNNING, values),
        ahead=_ahead(db, values) if queued else None,
        loaded=dict(db.execute(_LOADED, values).fetchall()) if queued else {},
    )


def _ahead(db: sqlite3.Connection, values: dict[str, Any]) -> Ahead:
    return Ahead(
        higher=db.execute(_HIGHER, values).fetchone()[0],
        older=db.execute(_OLDER, values).fetchone()[0],
        others=tuple(number for (number,) in db.execute(_OTHERS, values)),
    )


def _tasks(db: sqlite3.Connection, query: str, values: dict[str, Any]) -> tuple[Task, ...]:
    return tuple(task_of(row) for row in db.execute(query, values))
