"""Who may do what at once, across threads and processes. A lock ends with the process that holds it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from source.media.download import proceed

if sys.platform != "win32":
    import fcntl

#: how often one who waits looks whether it is still wanted
LOOK_S = 0.2


@contextlib.contextmanager
def exclusive(path: Path, check: Callable[[], None] = proceed) -> Iterator[None]:
    """Hold the lock file `path` alone. `check` is called while waiting and may raise to give up."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    while True:
        check()
        with contextlib.suppress(Timeout):
            lock.acquire(timeout=LOOK_S)
            break
    try:
        yield
    finally:
        lock.release()


class Pin:
    """Keeps a file from `remove_unpinned`. Any number of tasks may pin the same file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    @classmethod
    def place(cls, path: Path) -> Pin | None:
        """None when there is no such file, or it was removed at this moment."""
        try:
            file = path.open("rb")
        except OSError:
            return None
        if sys.platform != "win32":  # there an open file cannot be removed anyway
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_SH)
        try:
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return cls(file)
        except OSError:
            pass
        file.close()
        return None

    def release(self) -> None:
        self._file.close()


def remove_unpinned(path: Path) -> bool:
    """Remove a file unless somebody has pinned it. Returns whether it is gone."""
    try:
        if sys.platform == "win32":
            path.unlink()
        else:
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
