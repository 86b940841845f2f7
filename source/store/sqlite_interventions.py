"""What whoever looks after the SQLite store's tasks does to them: pause, resume, requeue. Writes are inside the
caller's transaction."""

from __future__ import annotations

import sqlite3

from source.errors import InvalidInput
from source.store.sqlite_endings import open_subtree
from source.store.sqlite_queueing import requeue
from source.store.sqlite_rows import IN_IDS, NOW, ids, record
from source.store.types import TERMINAL

_SET_PAUSED = f"""
UPDATE tasks SET paused = :paused, updated_at = {NOW} WHERE id {IN_IDS} AND paused <> :paused RETURNING id
"""

_RUNNING = f"SELECT * FROM tasks WHERE id {IN_IDS} AND +status = 'In Progress' AND waiting = 0 ORDER BY rowid"


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
