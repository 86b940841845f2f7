"""A log file that several processes write to, and that never grows beyond a bound."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from filelock import FileLock, Timeout


class SharedLogFile(logging.Handler):
    """Appends whole lines. A file that is full becomes FILE.1, the one before FILE.2 …; `keep` of them stay, the
    current one included. Whoever rotates has a lock (FILE.lock); the others go on in the new file with their next line.

    max_bytes: one longer line has a file of its own. A disk that refuses is said once, and costs no task.
    """

    def __init__(self, filename: str | Path, *, max_bytes: int, keep: int) -> None:
        super().__init__()
        self._path = Path(filename).absolute()
        self._max_bytes = max_bytes
        self._keep = keep
        self._file: int | None = None
        self._refused = False

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._write(f"{self.format(record)}\n".encode("utf-8", "backslashreplace"))
            self._refused = False
        except OSError:
            if not self._refused:
                self._refused = True
                self.handleError(record)
        except Exception:  # noqa: BLE001 - as every handler of the standard library: a line must not end its task
            self.handleError(record)

    def close(self) -> None:
        self.acquire()
        try:
            self._let_go()
        finally:
            self.release()
        super().close()

    def _write(self, line: bytes) -> None:
        """One call of the system, so that lines of several processes do not mix."""
        file = self._opened()
        if self._full(os.fstat(file).st_size, line):
            self._rotate(line)
            file = self._opened()
        os.write(file, line)

    def _full(self, size: int, line: bytes) -> bool:
        return size > 0 and size + len(line) > self._max_bytes

    def _opened(self) -> int:
        """The file of that name, which another process may have put aside."""
        if self._file is not None and not self._is_current(self._file):
            self._let_go()
        if self._file is None:
            self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        return self._file

    def _is_current(self, file: int) -> bool:
        try:
            return os.path.samestat(os.fstat(file), os.stat(self._path))
        except FileNotFoundError:
            return False

    def _rotate(self, line: bytes) -> None:
        """Put the files aside, unless somebody else does that now or just did."""
        try:
            with FileLock(self._aside("lock")).acquire(timeout=0):
                if not self._full(self._path.stat().st_size, line):
                    return
                for number in range(self._keep - 1, 1, -1):
                    if self._aside(number - 1).exists():
                        os.replace(self._aside(number - 1), self._aside(number))
                if self._keep > 1:
                    os.replace(self._path, self._aside(1))
                else:
                    self._path.unlink()
        except (Timeout, FileNotFoundError):
            return

    def _aside(self, what: int | str) -> Path:
        return self._path.with_name(f"{self._path.name}.{what}")

    def _let_go(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
