"""A SQLite file: whether it is ours, whole, of this version, and from no other time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import cache
from pathlib import Path

from source.doctor.checks import Check, Finding, doubtful, failed, well
from source.doctor.clocks import Clock, compared
from source.settings import Settings
from source.store.opening import check_existing
from source.store.sqlite_health import FileHealth, file_health

#: SQLite reads all of it, a few hundred megabytes a second
WHOLE_S = 300.0


def sqlite_checks(settings: Settings, clock: Clock) -> list[Check]:
    """The database and its clock."""
    db_file = settings.db_file
    looked = cache(lambda: file_health(db_file))
    migrate = f"`python worker.py --migrate-only --db-file {db_file}` makes it, or brings it up to date"
    return [
        Check("database", lambda: database(db_file, looked, migrate), migrate, WHOLE_S),
        Check("clock", lambda: newest_time(looked(), settings, clock), needs="database"),
    ]


def database(db_file: Path, looked: Callable[[], FileHealth], migrate: str) -> Finding:
    """The file itself. Raises StoreError when there is none, when it is another program's, or cannot be used."""
    check_existing(db_file)
    health = looked()
    schema = f"schema {health.schema}"
    if health.problems:
        return failed(
            "\n".join(("it is damaged:", *health.problems)),
            "stop the workers, keep a copy, and save what is left with the `.recover` command of sqlite3",
        )
    if health.schema < health.newest_schema:
        return failed(f"{schema}, this program needs {health.newest_schema}", migrate)
    if health.schema > health.newest_schema:
        return failed(f"{schema}, this program knows {health.newest_schema}", "update the program")
    told = f"{db_file}: {schema}, {health.journal_mode.upper()}, whole, {health.num_tasks} tasks"
    if health.journal_mode != "wal":
        return doubtful(told, "WAL is what several workers need; a worker switches to it when it starts")
    return well(told)


def newest_time(health: FileHealth, settings: Settings, clock: Clock) -> Finding:
    """SQLite's clock is this machine's. Rows from the future say that it was set back, or that another machine writes:
    then leases last longer than they should."""
    if health.newest_time is None:
        return well("this machine's; nothing was written yet")
    ahead_s = (datetime.fromisoformat(health.newest_time) - clock()).total_seconds()
    if ahead_s <= 0:
        return well("this machine's; no row is from the future")
    return compared(ahead_s, settings.lease_s, f"the newest row is from {ahead_s:.1f} s in the future")
