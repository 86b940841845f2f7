"""Looking at a SQLite file without changing it: its schema, its mode, whether it is whole and can be written."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from source.store.migrations import STEPS
from source.store.sqlite_connections import BUSY_TIMEOUT_S, explained

#: problems that are told of a damaged file
MAX_PROBLEMS = 5


@dataclass(frozen=True)
class FileHealth:
    """What a file of ours says of itself."""

    schema: int
    #: the schema of this program
    newest_schema: int
    #: "wal" once a store has opened it
    journal_mode: str
    #: what SQLite's own check complains of
    problems: tuple[str, ...]
    num_tasks: int
    #: the newest time that anybody wrote into it, None in an empty one
    newest_time: str | None


def file_health(db_file: Path) -> FileHealth:
    """Look at a file that exists. Raises StoreError when it cannot be read, or not written to."""
    try:
        # Neither created nor migrated nor switched to another mode: a plain connection, by name.
        address = f"{db_file.absolute().as_uri()}?mode=rw"
        with closing(sqlite3.connect(address, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)) as db:
            return _health(db)
    except sqlite3.Error as error:
        raise explained(db_file, error) from error


def _health(db: sqlite3.Connection) -> FileHealth:
    db.execute("BEGIN IMMEDIATE")  # what a claim begins with: refused where nobody may write
    db.execute("ROLLBACK")
    schema = int(_value(db, "PRAGMA user_version"))
    checked = [str(row[0]) for row in db.execute(f"PRAGMA quick_check({MAX_PROBLEMS})")]
    problems = () if checked == ["ok"] else tuple(checked)
    readable = schema == len(STEPS) and not problems
    return FileHealth(
        schema=schema,
        newest_schema=len(STEPS),
        journal_mode=str(_value(db, "PRAGMA journal_mode")),
        problems=problems,
        num_tasks=int(_value(db, "SELECT count(*) FROM tasks")) if readable else 0,
        newest_time=_newest_time(db) if readable else None,
    )


def _newest_time(db: sqlite3.Connection) -> str | None:
    newest = _value(
        db,
        "SELECT max(at) FROM (SELECT max(last_heartbeat) AS at FROM workers UNION ALL"
        " SELECT at FROM (SELECT at FROM task_events ORDER BY id DESC LIMIT 1))",
    )
    return None if newest is None else str(newest)


def _value(db: sqlite3.Connection, query: str) -> Any:
    return db.execute(query).fetchone()[0]
