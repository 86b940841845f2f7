"""Brings a SQLite file to the current schema, in numbered steps; `user_version` says how many were applied."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from source.errors import StoreError
from source.store.sqlite_rows import NOW

_SCHEMA = Path(__file__).with_name("schema.sql")

#: each runs once, in order, inside one transaction; never edit a released one
STEPS: list[Callable[[sqlite3.Connection], None]] = []
step = STEPS.append


def migrate(db: sqlite3.Connection) -> None:
    """Apply the steps that `db` has not seen. Safe to run from several processes at once.

    Raises StoreError when a newer version of this program wrote the file.
    """
    if _version(db) == len(STEPS):
        return
    with db:
        db.execute("BEGIN IMMEDIATE")
        done = _version(db)
        if done > len(STEPS):
            raise StoreError(
                f"the database has schema {done}, this program knows {len(STEPS)}: update the program, "
                "or name another file"
            )
        for number, apply in enumerate(STEPS[done:], done + 1):
            apply(db)
            db.execute(f"PRAGMA user_version = {number}")


@step
def m001_tasks(db: sqlite3.Connection) -> None:
    """The first schema. A `tasks` table of the predecessor is taken over; another program's file is refused."""
    tables = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    older = "tasks" in tables
    if not older and any(not name.startswith("sqlite_") for name in tables):
        raise StoreError(
            f"the file belongs to another program (it holds {', '.join(sorted(tables))}); name another one"
        )
    if older:
        db.execute("ALTER TABLE tasks RENAME TO tasks_older")
    for statement in _statements(_SCHEMA.read_text(encoding="utf-8")):
        db.execute(statement)
    if older:
        _take_over(db)
        db.execute("DROP TABLE tasks_older")


_ORDER = """
ALTER TABLE tasks ADD COLUMN passed_over INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tasks ADD COLUMN passed_over_since TEXT;
ALTER TABLE workers ADD COLUMN served TEXT;
ALTER TABLE workers ADD COLUMN metadata TEXT NOT NULL DEFAULT '{}';
DROP INDEX tasks_claim;
DROP INDEX tasks_claim_model;
CREATE INDEX tasks_claim ON tasks (status, priority DESC, project_id, created_at)
    WHERE status = 'Queued' AND paused = 0;
CREATE INDEX tasks_claim_model ON tasks (status, priority DESC, project_id, coalesce(model, task_type), created_at)
    WHERE status = 'Queued' AND paused = 0;
"""


@step
def m002_order(db: sqlite3.Connection) -> None:
    """What the order of claims needs. passed_over, passed_over_since: how often, and since when, rows of a loaded model
    were taken before this one although it was its project's oldest. served: the project whose row a worker was given
    last. metadata: a JSON object, what a worker says of itself."""
    for statement in _statements(_ORDER):
        db.execute(statement)


_CHECK_BOUNDS = """SELECT CASE
    WHEN NEW.priority NOT BETWEEN -9007199254740991 AND 9007199254740991
        THEN RAISE(ABORT, 'priority: must be between -9007199254740991 and 9007199254740991')
    WHEN CASE WHEN json_valid(NEW.dependant_on) THEN json_array_length(NEW.dependant_on) END > 1000
        THEN RAISE(ABORT, 'dependant_on: a task may depend on 1000 others at most') END;"""
_BOUNDS = f"""
CREATE TRIGGER tasks_bounds_added BEFORE INSERT ON tasks BEGIN {_CHECK_BOUNDS} END;
CREATE TRIGGER tasks_bounds_changed BEFORE UPDATE OF priority, dependant_on ON tasks BEGIN {_CHECK_BOUNDS} END;
DROP TRIGGER tasks_priority;
CREATE TRIGGER tasks_priority AFTER INSERT ON tasks
WHEN NEW.priority = 0 AND json_valid(NEW.params) AND json_type(NEW.params, '$.priority') = 'integer'
    AND json_extract(NEW.params, '$.priority') BETWEEN -999999999 AND 999999999
BEGIN
    UPDATE tasks SET priority = json_extract(NEW.params, '$.priority') WHERE id = NEW.id;
END;
"""


@step
def m003_bounds(db: sqlite3.Connection) -> None:
    """What a row may ask for at most, whoever writes it. A larger priority in the params is none."""
    for statement in _statements(_BOUNDS):
        db.execute(statement)


_PREVIEWS = """
CREATE TABLE task_previews (
    task_id TEXT PRIMARY KEY NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    claim_number INTEGER NOT NULL,
    at TEXT NOT NULL,
    step INTEGER NOT NULL CHECK (step >= 0),
    media_type TEXT NOT NULL CHECK (media_type IN ('image/webp', 'image/png', 'image/jpeg')),
    image BLOB NOT NULL CHECK (length(image) BETWEEN 1 AND 32768)
) STRICT;
CREATE TRIGGER tasks_previews_gone AFTER UPDATE OF status, waiting ON tasks
WHEN OLD.status = 'In Progress' AND (NEW.status <> 'In Progress' OR NEW.waiting = 1)
BEGIN
    DELETE FROM task_previews WHERE task_id = NEW.id;
END;
"""


@step
def m004_previews(db: sqlite3.Connection) -> None:
    """What a task that runs looks like so far; gone when its claim ends."""
    for statement in _statements(_PREVIEWS):
        db.execute(statement)


_FACTS = """
CREATE TABLE log_lines (
    id INTEGER PRIMARY KEY,
    at TEXT NOT NULL,
    level TEXT NOT NULL,
    message TEXT NOT NULL,
    worker_id TEXT,
    task_id TEXT,
    metadata TEXT NOT NULL DEFAULT '{}'
) STRICT;
CREATE INDEX log_lines_by_age ON log_lines (at);
CREATE INDEX log_lines_by_task ON log_lines (task_id, at) WHERE task_id IS NOT NULL;
CREATE TABLE worker_samples (
    id INTEGER PRIMARY KEY,
    worker_id TEXT NOT NULL REFERENCES workers (id) ON DELETE CASCADE,
    at TEXT NOT NULL,
    measured TEXT NOT NULL
) STRICT;
CREATE INDEX worker_samples_by_age ON worker_samples (at);
CREATE INDEX worker_samples_by_worker ON worker_samples (worker_id, at);
CREATE INDEX tasks_ended ON tasks (generation_processed_at, status, task_type, generation_started_at)
    WHERE status IN ('Complete', 'Failed', 'Cancelled');
"""


@step
def m005_facts(db: sqlite3.Connection) -> None:
    """What workers say of themselves: log lines, and samples of how they do; and an index of what ended when."""
    for statement in _statements(_FACTS):
        db.execute(statement)


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _statements(script: str) -> Iterator[str]:
    """The statements of a script, triggers whole. (`executescript` would commit the transaction first.)"""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _take_over(db: sqlite3.Connection) -> None:
    """Copy the predecessor's rows. It had no leases, so running rows are queued again; it kept the text of an error
    in output_location, so that moves."""
    present = {row[1] for row in db.execute("PRAGMA table_info(tasks_older)")}

    def old(column: str, missing: str = "NULL") -> str:
        return f"coalesce(CAST({column} AS TEXT), {missing})" if column in present else missing

    named = (
        "CASE WHEN json_valid(params) THEN json_extract(params, '$.task_type') END" if "params" in present else "NULL"
    )
    task_type = f"coalesce({old('task_type')}, CAST({named} AS TEXT), 'standard_wgp_task')"

    status = (
        "CASE status WHEN 'Complete' THEN 'Complete' WHEN 'Cancelled' THEN 'Cancelled' WHEN 'Canceled' THEN"
        " 'Cancelled' WHEN 'Failed' THEN 'Failed' WHEN 'Error' THEN 'Failed' ELSE 'Queued' END"
    )
    failed = "status IN ('Failed', 'Error')"
    db.execute(
        f"""
        INSERT INTO tasks (id, task_type, params, status, dependant_on, output_location, error_message, error_class,
                           created_at, updated_at, generation_started_at, generation_processed_at, project_id)
        SELECT CAST(id AS TEXT), {task_type}, {old("params", "'{}'")},
               {status}, {old("dependant_on")},
               CASE WHEN {failed} THEN NULL ELSE {old("output_location")} END,
               CASE WHEN {failed} THEN {old("output_location")} END,
               CASE WHEN {failed} THEN 'unknown' END,
               {old("created_at", NOW)}, {old("updated_at")}, {old("generation_started_at")},
               {old("generation_processed_at")}, {old("project_id", "'default_project_id'")}
        FROM tasks_older ORDER BY rowid
        """
    )
