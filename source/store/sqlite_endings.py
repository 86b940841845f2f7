"""How rows of the SQLite store end, and what ends or starts again with them. All inside the caller's transaction."""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from source.store.encoding import encoded, plain
from source.store.sqlite_rows import IN_IDS, NOW, ids, json_object, record
from source.store.types import UNSUCCESSFUL, Status

#: error classes of rows that ended because of another one
DEPENDENCY, PARENT = "dependency", "parent"

# `+status` keeps SQLite from walking the index of a status, which may hold most of the table.
_END = f"""
UPDATE tasks SET status = :status, error_message = :message, error_class = :error_class, waiting = 0,
    lease_expires_at = NULL, run_after = NULL, generation_processed_at = {NOW}, updated_at = {NOW}
WHERE id {IN_IDS} AND +status IN ('Queued', 'In Progress')
RETURNING id, worker_id, claim_number
"""

_COMPLETE = f"""
UPDATE tasks SET status = 'Complete', output_location = :output_location, result_data = :result_data, waiting = 0,
    lease_expires_at = NULL, error_message = NULL, error_class = NULL,
    generation_processed_at = {NOW}, updated_at = {NOW}
WHERE id = :id
RETURNING id, worker_id, claim_number
"""

_DEPENDANTS = """
SELECT tasks.id FROM task_dependencies AS edge CROSS JOIN tasks ON tasks.id = edge.task_id
WHERE edge.depends_on = ? AND +tasks.status = 'Queued'
"""

_QUEUED_CHILDREN = "SELECT id FROM tasks WHERE parent_id = ? AND +status = 'Queued'"

_OPEN_SUBTREE = """
WITH RECURSIVE subtree (id) AS (
    SELECT :id UNION SELECT child.id FROM subtree CROSS JOIN tasks AS child ON child.parent_id = subtree.id
    WHERE child.status IN ('Queued', 'In Progress'))
SELECT id, status FROM subtree CROSS JOIN tasks USING (id) WHERE +status IN ('Queued', 'In Progress')
"""

_ENDED_PARENT = """
SELECT * FROM tasks AS parent WHERE id = ? AND +status = 'In Progress' AND waiting = 1 AND NOT EXISTS (
    SELECT 1 FROM tasks AS child WHERE child.parent_id = parent.id AND child.status IN ('Queued', 'In Progress'))
"""

# A cascade carries the time of its cause, or the next millisecond: the cause sorts first.
_FIRST_UNSUCCESSFUL_CHILD = """
SELECT * FROM tasks WHERE parent_id = ? AND +status IN ('Failed', 'Cancelled')
ORDER BY status = 'Cancelled', generation_processed_at, error_class IS 'dependency', rowid LIMIT 1
"""

# -- ending ---------------------------------------------------------------------------------------------------------


def end(
    db: sqlite3.Connection, task_ids: Iterable[str], status: Status, *, message: str | None = None,
    error_class: str | None = None,
) -> list[str]:  # fmt: skip
    """End those of the rows that are not terminal as Failed or Cancelled. Returns their ids; `settle` them next."""
    message = plain(message) if message else None
    values = {"ids": ids(task_ids), "status": status, "message": message, "error_class": error_class}
    rows = db.execute(_END, values).fetchall()
    for row in rows:
        record(
            db, row["id"], status.lower(), worker_id=row["worker_id"], claim_number=row["claim_number"],
            detail=message,
        )  # fmt: skip
    return [row["id"] for row in rows]


def complete(
    db: sqlite3.Connection, task_id: str, output_location: str | None, result_data: Mapping[str, Any] | None
) -> None:
    """Complete the row; `settle` it next."""
    values = {
        "id": task_id,
        "output_location": plain(output_location) if output_location is not None else None,
        "result_data": encoded(result_data, "result_data") if result_data is not None else None,
    }
    [row] = db.execute(_COMPLETE, values).fetchall()
    worker_id, claim_number = row["worker_id"], row["claim_number"]
    record(db, task_id, "complete", worker_id=worker_id, claim_number=claim_number, detail=output_location)


def settle(db: sqlite3.Connection, ended: Iterable[str]) -> int:
    """End what ends with the rows `ended`: the queued dependants and children of those that failed or were cancelled,
    and each waiting parent whose last child this was. Returns how many rows that were."""
    pending: deque[tuple[str, str | None]] = deque((task_id, None) for task_id in ended)
    count = 0
    while pending:
        task_id, reason = pending.popleft()
        row = db.execute("SELECT * FROM tasks WHERE id = ?", (task_id,)).fetchone()
        followers: list[tuple[str, str | None]] = []
        if row["status"] in UNSUCCESSFUL:
            followers += _follow(db, row, reason, _DEPENDANTS, DEPENDENCY, "on which it depends")
            followers += _follow(db, row, reason, _QUEUED_CHILDREN, PARENT, "its parent")
        if row["parent_id"] is not None and end_parent(db, row["parent_id"]):
            followers.append((row["parent_id"], None))
        count += len(followers)
        pending += followers
    return count


def end_parent(db: sqlite3.Connection, parent_id: str) -> bool:
    """End a waiting parent that has no open child left; False when it is not one. `settle` it next."""
    parent = db.execute(_ENDED_PARENT, (parent_id,)).fetchone()
    if parent is None:
        return False
    child = db.execute(_FIRST_UNSUCCESSFUL_CHILD, (parent_id,)).fetchone()
    if parent["cancel_requested"]:
        end(db, [parent_id], Status.CANCELLED)
    elif child is None:
        _complete_parent(db, parent)
    elif child["status"] == Status.FAILED:
        message = f"{_child(child)} failed: {child['error_message'] or 'no reason was given'}"
        end(db, [parent_id], Status.FAILED, message=message, error_class=child["error_class"])
    else:
        end(db, [parent_id], Status.CANCELLED, message=f"{_child(child)} was cancelled")
    return True


def cancel(db: sqlite3.Connection, task_id: str) -> None:
    """Cancel the row and its open descendants: queued ones end here, running ones are asked to stop."""
    rows = open_subtree(db, task_id)
    _ask_to_stop(db, [row["id"] for row in rows])
    settle(db, end(db, [row["id"] for row in rows if row["status"] == Status.QUEUED], Status.CANCELLED))


def open_subtree(db: sqlite3.Connection, task_id: str) -> list[sqlite3.Row]:
    """The id and status of the row and of its descendants, of those that have not ended."""
    return db.execute(_OPEN_SUBTREE, {"id": task_id}).fetchall()


def _complete_parent(db: sqlite3.Connection, parent: sqlite3.Row) -> None:
    final_id = (json_object(parent["result_data"]) or {}).get("final_child")
    final = db.execute("SELECT * FROM tasks WHERE id = ? AND parent_id = ?", (str(final_id), parent["id"])).fetchone()
    if final is None:
        message = f"its final child {final_id} is gone from the table, and its output with it"
        end(db, [parent["id"]], Status.FAILED, message=message, error_class="internal")
    else:
        complete(db, parent["id"], final["output_location"], json_object(final["result_data"]))


def _follow(
    db: sqlite3.Connection, cause: sqlite3.Row, reason: str | None, query: str, error_class: str, relation: str
) -> list[tuple[str, str | None]]:
    """End the rows of `query` because `cause` ended. `reason`: why that ended, when it only followed another itself,
    so that along a chain every row names the first cause. Returns the ended ids with the reason."""
    followers = [row["id"] for row in db.execute(query, (cause["id"],))]
    if not followers:
        return []
    if reason is None:
        how = "failed" if cause["status"] == Status.FAILED else "was cancelled"
        reason = f"Not run, because {cause['task_type']} {cause['id']}, {relation}, {how}"
        reason += f": {cause['error_message']}" if cause["error_message"] else ""
    ended = end(db, followers, Status(cause["status"]), message=reason, error_class=error_class)
    return [(task_id, reason) for task_id in ended]


def _ask_to_stop(db: sqlite3.Connection, task_ids: Iterable[str]) -> None:
    asked = db.execute(
        f"""UPDATE tasks SET cancel_requested = 1, updated_at = {NOW}
        WHERE id {IN_IDS} AND +status = 'In Progress' AND cancel_requested = 0 RETURNING id""",
        {"ids": ids(task_ids)},
    )
    for row in asked.fetchall():
        record(db, row["id"], "cancel_requested")


def _child(child: sqlite3.Row) -> str:
    return f"child {child['child_key'] or child['task_type']} ({child['id']})"
