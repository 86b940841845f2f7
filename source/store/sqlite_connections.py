"""Connections to one SQLite file: one per thread, transactions, and errors that say what to do."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from source.errors import RefusedWrite, StoreError

#: how long a write waits for the writers of other processes
BUSY_TIMEOUT_S = 10.0
#: how often wait_for_change looks, and how often a lock that SQLite does not wait for is tried again
LOOK_EVERY_S, TRY_AGAIN_S = 0.25, 0.05

_ADVICE = {
    "SQLITE_NOTADB": "it is not a SQLite database; name another file",
    "SQLITE_CORRUPT": "it is damaged; restore a copy, or save what is left with the `.recover` command of sqlite3",
    "SQLITE_BUSY": f"another program kept it locked for {BUSY_TIMEOUT_S:.0f} s; close what has it open",
    "SQLITE_FULL": "the disk is full; free some space",
    "SQLITE_READONLY": "it cannot be written; check the permissions of the file and of its folder",
    "SQLITE_CANTOPEN": "it cannot be opened; check that it is a file, and the permissions of its folder",
    "SQLITE_IOERR": "the disk did not read or write it; check the disk and the space on it",
}


@dataclass(frozen=True)
class _Opened:
    """A connection, the thread it belongs to, and what that thread holds while it uses it: closing a connection in
    the middle of a statement crashes the process."""

    thread: threading.Thread
    connection: sqlite3.Connection
    in_use: threading.Lock


class _Local(threading.local):
    opened: _Opened | None = None
    #: the state of the file that this thread has seen, as PRAGMA data_version counts it
    version: int = 0


class SqliteConnections:
    """Opens, hands out and closes the connections to the file `path`. Every sqlite3 error leaves as StoreError."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._local = _Local()
        self._opened: list[_Opened] = []
        self._opening = threading.Lock()
        # Threads of one process queue up here, fairly, rather than polling for the lock of the file.
        self._writer = threading.Lock()
        self._closed = threading.Event()
        if sqlite3.sqlite_version_info < (3, 37):
            raise StoreError(f"SQLite {sqlite3.sqlite_version} is too old, 3.37 is needed: use a newer Python")
        if not self.path.parent.is_dir():
            raise StoreError(f"{self.path}: its folder does not exist; create it first")

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """This thread's connection. Not reentrant."""
        try:
            opened = self._local.opened or self._open()
            with opened.in_use:
                self._check_open()
                yield opened.connection
        except sqlite3.Error as error:
            raise explained(self.path, error) from error

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A write transaction: committed at the end, rolled back when anything is raised. Not reentrant."""
        with self._writer, self.reading() as db, db:
            db.execute("BEGIN IMMEDIATE")
            yield db

    def mark_seen(self, db: sqlite3.Connection) -> None:
        """What is in the file now is no change for this thread."""
        self._local.version = _data_version(db)

    def wait_for_change(self, timeout_s: float) -> bool:
        """Wait until another connection has committed since `mark_seen`; False after `timeout_s` or `close`."""
        deadline = time.monotonic() + timeout_s
        while not self._closed.is_set():
            if self._changed():
                return True
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return False
            self._closed.wait(min(LOOK_EVERY_S, left_s))
        return False

    def _changed(self) -> bool:
        try:
            with self.reading() as db:
                seen = self._local.version
                self.mark_seen(db)
                return self._local.version != seen
        except StoreError:
            if self._closed.is_set():
                return False
            raise

    def close(self) -> None:
        """Close all connections, each when its thread is done with what it is doing."""
        self._closed.set()
        with self._opening:
            for opened in self._opened:
                with opened.in_use:
                    opened.connection.close()
            self._opened.clear()

    def _open(self) -> _Opened:
        with self._opening:
            self._check_open()
            self._close_those_of_ended_threads()
            connection = self._connect()
            opened = self._local.opened = _Opened(threading.current_thread(), connection, threading.Lock())
            self._opened.append(opened)
        return opened

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise StoreError(f"{self.path}: the store was closed")

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        try:
            connection.row_factory = sqlite3.Row
            # A front end may write any bytes; a row that cannot be decoded must not block the queue.
            connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
            self._switch_to_wal(connection)
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            self.mark_seen(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _switch_to_wal(self, connection: sqlite3.Connection) -> None:
        """The mode stays with the file. SQLite does not wait for the lock it needs for the switch, so we do."""
        deadline = time.monotonic() + BUSY_TIMEOUT_S
        while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            try:
                mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            except sqlite3.OperationalError as error:
                if not error.sqlite_errorname.startswith("SQLITE_BUSY") or time.monotonic() > deadline:
                    raise
                self._closed.wait(TRY_AGAIN_S)
            else:
                if mode != "wal":
                    raise StoreError(f"{self.path}: the file system cannot share it (no WAL); use a local disk")

    def _close_those_of_ended_threads(self) -> None:
        for opened in self._opened:
            if not opened.thread.is_alive():
                opened.connection.close()
        self._opened = [opened for opened in self._opened if opened.thread.is_alive()]


def explained(path: Path, error: sqlite3.Error) -> StoreError:
    """The same of the file `path`, with what to do about it."""
    if isinstance(error, sqlite3.IntegrityError | sqlite3.DataError | sqlite3.ProgrammingError):
        return RefusedWrite(f"{path}: {error}")
    name = getattr(error, "sqlite_errorname", "")
    advice = next((text for code, text in _ADVICE.items() if name.startswith(code)), None)
    return StoreError(f"{path}: {advice} ({error})" if advice else f"{path}: {error}")


def _data_version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA data_version").fetchone()[0])
