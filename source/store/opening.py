"""The store that the settings name. HTTP is imported for a project alone: commands on a file start quicker without."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from source.errors import StoreError
from source.settings import Settings
from source.store.base import TaskStore
from source.store.sqlite import SqliteStore
from source.store.types import Retention

if TYPE_CHECKING:
    from source.store.supabase import SupabaseStore
    from source.worker_logs import WorkerLogs


def open_store(settings: Settings, logs: WorkerLogs | None = None) -> TaskStore:
    """A file that does not exist yet is made. `logs`: lines that heartbeats take along. Close the store. Raises
    StoreError, and ConfigurationError for a token that cannot be read; whether a project answers is not asked here."""
    if settings.db_type == "supabase":
        return open_supabase(settings, logs)
    kept = Retention(settings.log_lines, settings.log_days, settings.sample_hours, settings.worker_days)
    return SqliteStore(settings.db_file, max_attempts=settings.max_attempts, logs=logs, retention=kept)


def open_watched(settings: Settings) -> TaskStore:
    """As open_store, for somebody who waits before a screen: it is not patient. Raises StoreError."""
    if settings.db_type == "supabase":
        from source.edge_functions import EdgeFunctions, watched_patience
        from source.store.supabase import SupabaseStore

        return SupabaseStore(EdgeFunctions.of(settings, watched_patience), max_attempts=settings.max_attempts)
    return open_store(settings)


def open_existing(settings: Settings) -> TaskStore:
    """As open_watched, for somebody who only looks: that never makes a file. Raises StoreError."""
    if settings.db_type == "supabase":
        return open_watched(settings)
    hint = "name it with --db-file"
    if settings.supabase_url is not None:
        hint += f", or look into {settings.supabase_url} with --db-type supabase"
    check_existing(settings.db_file, hint)
    return SqliteStore(settings.db_file)


def open_supabase(settings: Settings, logs: WorkerLogs | None = None) -> SupabaseStore:
    """The project's store, whatever `db_type` says. Raises ConfigurationError."""
    from source.edge_functions import EdgeFunctions
    from source.store.supabase import SupabaseStore

    return SupabaseStore(
        EdgeFunctions.of(settings), max_attempts=settings.max_attempts, look_s=settings.supabase_look_s, logs=logs
    )


def check_existing(db_file: Path, hint: str = "name it with --db-file") -> None:
    """Raises StoreError when there is no file, or when it is none of ours."""
    if not db_file.is_file():
        raise StoreError(f"there is no database {db_file}; {hint}")
    if not db_file.stat().st_size:
        raise StoreError(f"{db_file} is empty, no database")
    if not _may_be_ours(db_file):
        raise StoreError(
            f"{db_file} has no tasks of this version: name another file, or take over a predecessor's "
            f"with `worker.py --migrate-only --db-file {db_file}`"
        )


def _may_be_ours(db_file: Path) -> bool:
    """Whether opening the file changes nothing in it. Its header (https://sqlite.org/fileformat.html, 1.3) holds the
    number of our migrations; 0 is a file without any, unless the newest header still stands in a write-ahead log."""
    with db_file.open("rb") as file:
        header = file.read(100)
    log = db_file.with_name(f"{db_file.name}-wal")
    foreign = header.startswith(b"SQLite format 3") and not int.from_bytes(header[60:64])
    return not foreign or (log.is_file() and log.stat().st_size > 0)
