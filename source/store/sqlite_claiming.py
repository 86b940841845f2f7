"""How rows of the SQLite store are handed out, and in which order. All inside the caller's transaction.

The order is that of `TaskStore.claim`. No statement reads more queued rows than it has to pass by.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Mapping
from typing import Any

from source.store.sqlite_endings import end, settle
from source.store.sqlite_rows import LATER, NOW, json_object, record, task_of
from source.store.types import Status, Task

_QUEUED = "status = 'Queued' AND paused = 0"

#: what holds for a row, named task, that nothing of its own holds back
ELIGIBLE = f"""{_QUEUED} AND (run_after IS NULL OR run_after <= {NOW}) AND NOT EXISTS (
    SELECT 1 FROM task_dependencies AS edge LEFT JOIN tasks AS needed ON needed.id = edge.depends_on
    WHERE edge.task_id = task.id AND needed.status IS NOT 'Complete')"""

_NEXT_PRIORITY = f"""
SELECT priority FROM tasks INDEXED BY tasks_claim WHERE {_QUEUED} AND priority < :below ORDER BY priority DESC LIMIT 1
"""

# The projects with queued rows of a priority: of whom the fewest rows run, then whose turn it is. The first part jumps
# from project to project in the index: how many rows each of them has costs nothing.
_PROJECTS_IN_TURN = f"""
WITH RECURSIVE project (id) AS (
    SELECT min(project_id) FROM tasks INDEXED BY tasks_claim WHERE {_QUEUED} AND priority = :priority
    UNION ALL
    SELECT (SELECT project_id FROM tasks INDEXED BY tasks_claim
            WHERE {_QUEUED} AND priority = :priority AND project_id > project.id ORDER BY project_id LIMIT 1)
    FROM project WHERE project.id IS NOT NULL
), running (id, number) AS (
    SELECT project_id, count(*) FROM tasks INDEXED BY tasks_lease
    WHERE status = 'In Progress' AND waiting = 0 AND task_type NOT LIKE '%_orchestrator'
        AND task_type <> 'different_pose'
    GROUP BY project_id
)
SELECT project.id FROM project LEFT JOIN running ON running.id = project.id
WHERE project.id IS NOT NULL
ORDER BY coalesce(running.number, 0), coalesce(project.id <= :served, 0), project.id
"""

_OLDEST = f"""
SELECT rowid AS row, passed_over >= :affinity_tasks OR coalesce(
        passed_over_since <= strftime('%Y-%m-%dT%H:%M:%fZ', 'now', -:affinity_wait_s || ' seconds'), 0) AS due
FROM tasks AS task INDEXED BY {{index}}
WHERE priority = :priority AND project_id = :project_id AND {{more}}
    AND (:task_types IS NULL OR task_type IN (SELECT value FROM json_each(:task_types)))
    AND {ELIGIBLE}
ORDER BY created_at, rowid LIMIT 1
"""
_OLDEST_OF_ALL = _OLDEST.format(index="tasks_claim", more="TRUE")
_OLDEST_OF_MODEL = _OLDEST.format(index="tasks_claim_model", more="coalesce(model, task_type) = :loaded_model")

_PASS_OVER = f"""
UPDATE tasks SET passed_over = passed_over + 1, passed_over_since = coalesce(passed_over_since, {NOW})
WHERE rowid = :row
"""

_TAKE = f"""
UPDATE tasks SET status = 'In Progress', worker_id = :worker_id, claimed_at = {NOW}, lease_expires_at = {LATER},
    claim_number = claim_number + 1, generation_started_at = coalesce(generation_started_at, {NOW}),
    run_after = NULL, progress = NULL, passed_over = 0, passed_over_since = NULL, updated_at = {NOW}
WHERE rowid = :row RETURNING *, rowid
"""

_SERVED = "SELECT served FROM workers WHERE id = :worker_id"
_REMEMBER_SERVED = """
INSERT INTO workers (id, status, served) VALUES (:worker_id, 'active', :project_id)
ON CONFLICT (id) DO UPDATE SET served = excluded.served
"""

# By rowid: no text finds this id again, so nothing else about the row can be written either.
_UNNAMED = f"""
UPDATE tasks SET status = 'Failed', error_message = 'id: must be UTF-8 text', error_class = 'bad_input',
    lease_expires_at = NULL, generation_processed_at = {NOW}, updated_at = {NOW}
WHERE rowid = ?
"""


def claim(db: sqlite3.Connection, request: Mapping[str, Any], limit: int) -> list[Task]:
    """Take up to `limit` eligible rows for `request` (worker_id, delay_s, loaded_model, task_types, affinity_tasks,
    affinity_wait_s). Rows that nobody could read fail here and do not count."""
    taken: list[Task] = []
    while len(taken) < limit:
        served = db.execute(_SERVED, request).fetchone()
        wish = {**request, "served": served and served["served"]}
        row = _next_row(db, wish)
        if row is None:
            break
        claimed = db.execute(_TAKE, {**wish, "row": row}).fetchall()[0]
        if claimed["project_id"] != wish["served"]:
            db.execute(_REMEMBER_SERVED, {**wish, "project_id": claimed["project_id"]})
        if _readable(db, claimed):
            taken.append(task_of(claimed))
    return taken


def _next_row(db: sqlite3.Connection, wish: Mapping[str, Any]) -> int | None:
    """The rowid of the row that comes next."""
    below = math.inf
    while (highest := db.execute(_NEXT_PRIORITY, {"below": below}).fetchone()) is not None:
        below = highest["priority"]
        for (project_id,) in db.execute(_PROJECTS_IN_TURN, {**wish, "priority": below}).fetchall():
            row = _row_of(db, {**wish, "priority": below, "project_id": project_id})
            if row is not None:
                return row
    return None


def _row_of(db: sqlite3.Connection, wish: Mapping[str, Any]) -> int | None:
    """A project's next row of one priority: one of the loaded model, unless the oldest was passed over often or long
    enough; then that."""
    oldest = db.execute(_OLDEST_OF_ALL, wish).fetchone()
    if oldest is None:
        return None
    if wish["loaded_model"] is None or oldest["due"]:
        return int(oldest["row"])
    warm = db.execute(_OLDEST_OF_MODEL, wish).fetchone()
    if warm is None or warm["row"] == oldest["row"]:
        return int(oldest["row"])
    db.execute(_PASS_OVER, {"row": oldest["row"]})
    return int(warm["row"])


def _readable(db: sqlite3.Connection, row: sqlite3.Row) -> bool:
    if "\ufffd" in row["id"]:
        db.execute(_UNNAMED, (row["rowid"],))
        return False
    record(db, row["id"], "claimed", worker_id=row["worker_id"], claim_number=row["claim_number"])
    if json_object(row["params"]) is not None:
        return True
    message = f'params: must be a JSON object like {{"prompt": "…"}}, not {row["params"][:80]!r}'
    settle(db, end(db, [row["id"]], Status.FAILED, message=message, error_class="bad_input"))
    return False
