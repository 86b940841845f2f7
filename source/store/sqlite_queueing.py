"""How rows of the SQLite store come back into the queue: requeue, rescue, retry. All in the caller's transaction."""

from __future__ import annotations

import sqlite3
from collections import deque

from source.store.encoding import plain
from source.store.sqlite_dependencies import queued_cycle
from source.store.sqlite_endings import DEPENDENCY, PARENT, end, end_parent, settle
from source.store.sqlite_rows import IN_IDS, LATER, NOW, ids, record
from source.store.types import Status

_REQUEUE = f"""
UPDATE tasks SET status = 'Queued', worker_id = NULL, claimed_at = NULL, lease_expires_at = NULL, waiting = 0,
    attempts = attempts + :burned, run_after = CASE WHEN :delay_s IS NULL THEN NULL ELSE {LATER} END,
    error_message = coalesce(:message, error_message), error_class = coalesce(:error_class, error_class),
    updated_at = {NOW}
WHERE id = :id
"""

_RESTART = f"""
UPDATE tasks SET status = 'Queued', worker_id = NULL, claimed_at = NULL, attempts = 0, run_after = NULL,
    progress = NULL, result_data = NULL, output_location = NULL, error_message = NULL, error_class = NULL,
    cancel_requested = 0, generation_started_at = NULL, generation_processed_at = NULL, updated_at = {NOW}
WHERE id {IN_IDS} AND +status = 'Failed' RETURNING id
"""

_FAILED_SUBTREE = """
WITH RECURSIVE subtree (id) AS (
    SELECT :id UNION SELECT child.id FROM subtree CROSS JOIN tasks AS child ON child.parent_id = subtree.id
    WHERE +child.status = 'Failed')
SELECT id FROM subtree
"""

# What failed because :id did: its dependants, its children, its parent.
_FAILED_WITH = """
SELECT id FROM task_dependencies CROSS JOIN tasks ON id = task_id
WHERE depends_on = :id AND +status = 'Failed' AND error_class = :dependency
UNION SELECT id FROM tasks WHERE parent_id = :id AND +status = 'Failed' AND error_class = :parent
UNION SELECT id FROM tasks WHERE +status = 'Failed' AND id = (SELECT parent_id FROM tasks WHERE id = :id)
"""

_EXPIRED = f"""
SELECT * FROM tasks INDEXED BY tasks_lease
WHERE status = 'In Progress' AND waiting = 0 AND lease_expires_at <= {NOW}
"""

_DEATHS = """
SELECT count(*) FROM task_events WHERE task_id = :id AND name = 'rescued'
AND id > (SELECT coalesce(max(id), 0) FROM task_events WHERE task_id = :id AND name = 'queued')
"""

# -- back into the queue --------------------------------------------------------------------------------------------


def requeue(
    db: sqlite3.Connection, row: sqlite3.Row, event: str, *, burned: int = 0, delay_s: float | None = None,
    message: str | None = None, error_class: str | None = None,
) -> Status:  # fmt: skip
    """Queue a running row again, or cancel it when that was asked for meanwhile. `burned` attempts are counted."""
    record(
        db, row["id"], event, worker_id=row["worker_id"], claim_number=row["claim_number"], detail=message
    )  # fmt: skip
    if row["cancel_requested"]:
        settle(db, end(db, [row["id"]], Status.CANCELLED))
        return Status.CANCELLED
    message = plain(message) if message else None
    db.execute(
        _REQUEUE,
        {
            "id": row["id"], "burned": burned, "delay_s": delay_s, "message": message, "error_class": error_class,
        },
    )  # fmt: skip
    return Status.QUEUED


def retry(db: sqlite3.Connection, task_id: str) -> None:
    """Queue a failed row again, with its failed descendants and all that failed because of any of them."""
    pending = deque(_restart(db, [row["id"] for row in db.execute(_FAILED_SUBTREE, {"id": task_id})]))
    while pending:
        values = {"id": pending.popleft(), "dependency": DEPENDENCY, "parent": PARENT}
        pending += _restart(db, [row["id"] for row in db.execute(_FAILED_WITH, values)])
    end_stuck(db)


def _restart(db: sqlite3.Connection, task_ids: list[str]) -> list[str]:
    restarted = [row["id"] for row in db.execute(_RESTART, {"ids": ids(task_ids)}).fetchall()]
    for task_id in restarted:
        record(db, task_id, "queued", detail="retried")
    return restarted


# -- rescue ---------------------------------------------------------------------------------------------------------


def any_expired(db: sqlite3.Connection) -> bool:
    return db.execute(f"{_EXPIRED} LIMIT 1").fetchone() is not None


def rescue_expired(db: sqlite3.Connection, max_attempts: int) -> int:
    """Take back the rows whose lease ran out. Returns how many."""
    rows = db.execute(_EXPIRED).fetchall()
    for row in rows:
        death = f"worker {row['worker_id']} stopped renewing its lease"
        if row["attempts"] + 1 < max_attempts or row["cancel_requested"]:
            requeue(db, row, "rescued", burned=1, message=death, error_class="worker_died")
        else:
            _poisoned(db, row, death)
    return len(rows)


def _poisoned(db: sqlite3.Connection, row: sqlite3.Row, death: str) -> None:
    record(
        db, row["id"], "rescued", worker_id=row["worker_id"], claim_number=row["claim_number"], detail=death
    )  # fmt: skip
    db.execute("UPDATE tasks SET attempts = attempts + 1 WHERE id = ?", (row["id"],))
    died = db.execute(_DEATHS, {"id": row["id"]}).fetchone()[0]
    message = (
        f"a worker died {died} time(s) while it ran this task, the last was {row['worker_id']}; "
        f"given up after {row['attempts'] + 1} attempt(s)"
    )
    settle(db, end(db, [row["id"]], Status.FAILED, message=message, error_class="poison"))


# Rows that will never run by themselves, each named by what holds them up. Only rows written from outside get there.
_DEAD_CAUSES = """
SELECT DISTINCT needed.id FROM tasks AS task JOIN task_dependencies AS edge ON edge.task_id = task.id
JOIN tasks AS needed ON needed.id = edge.depends_on
WHERE task.status = 'Queued' AND needed.status IN ('Failed', 'Cancelled')
UNION
SELECT DISTINCT parent.id FROM tasks AS task JOIN tasks AS parent ON parent.id = task.parent_id
WHERE task.status = 'Queued' AND parent.status IN ('Failed', 'Cancelled')
"""

_MISSING_DEPENDENCIES = """
SELECT task.id, edge.depends_on FROM tasks AS task JOIN task_dependencies AS edge ON edge.task_id = task.id
WHERE task.status = 'Queued' AND NOT EXISTS (SELECT 1 FROM tasks AS needed WHERE needed.id = edge.depends_on)
"""

_CHILDLESS_PARENTS = """
SELECT parent.id FROM tasks AS parent INDEXED BY tasks_waiting
WHERE status = 'In Progress' AND waiting = 1 AND NOT EXISTS (
    SELECT 1 FROM tasks AS child WHERE child.parent_id = parent.id AND child.status IN ('Queued', 'In Progress'))
"""


def any_stuck(db: sqlite3.Connection) -> bool:
    queries = (_DEAD_CAUSES, _MISSING_DEPENDENCIES, _CHILDLESS_PARENTS)
    return any(db.execute(query).fetchone() for query in queries) or bool(queued_cycle(db))


def end_stuck(db: sqlite3.Connection) -> int:
    """End queued rows that can never run, and waiting parents that wait for nothing. Returns how many rows ended."""
    count = settle(db, [row["id"] for row in db.execute(_DEAD_CAUSES).fetchall()])
    for row in db.execute(_MISSING_DEPENDENCIES).fetchall():
        message = f"Not run, because task {row['depends_on']}, on which it depends, does not exist"
        count += _fail_dependant(db, row["id"], message)
    for row in db.execute(_CHILDLESS_PARENTS).fetchall():
        if end_parent(db, row["id"]):
            count += 1 + settle(db, [row["id"]])
    while cycle := queued_cycle(db):
        message = f"Not run, because tasks depend on each other in a circle: {' -> '.join(cycle)}"
        count += _fail_dependant(db, cycle[0], message)
    return count


def _fail_dependant(db: sqlite3.Connection, task_id: str, message: str) -> int:
    ended = end(db, [task_id], Status.FAILED, message=message, error_class=DEPENDENCY)
    return len(ended) + settle(db, ended)
