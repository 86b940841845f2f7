"""Outputs that this machine delivered lately: a task that goes on from one needs no download of what was made here."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

from source.storage import bring, sanitise_filename

log = logging.getLogger(__name__)

GB = 1e9


class KeptOutputs:
    """A folder of at most so many gigabytes; the least recently used file goes first. Workers may share it.

    What an address names never changes, since it holds the number of the claim; so a file is never out of date.
    """

    def __init__(self, folder: Path, most_gb: float) -> None:
        self._folder = folder
        self._most_bytes = int(most_gb * GB)

    def add(self, location: str, path: Path) -> None:
        """Take a delivered file over: it leaves its place. Raises OSError."""
        if path.stat().st_size > self._most_bytes:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        os.replace(path, self._folder / _name(location))
        self._make_room()

    def link(self, location: str, folder: Path) -> Path | None:
        """The file of an address under a second name in `folder`, which stays when this one goes; None without it."""
        own, target = self._folder / _name(location), folder / _name(location)
        if target.exists():
            return target
        try:
            os.utime(own)
            folder.mkdir(parents=True, exist_ok=True)
            bring(own, target)
        except OSError:
            return None
        return target

    def _make_room(self) -> None:
        files = []
        for path in self._folder.iterdir():
            try:
                files.append((path.stat().st_mtime_ns, path.stat().st_size, path))
            except OSError:  # another worker made room
                continue
        total = 0
        for _, size, path in sorted(files, reverse=True):
            total += size
            if total > self._most_bytes:
                path.unlink(missing_ok=True)


def _name(location: str) -> str:
    """Different for different addresses; ends as the file's own name does."""
    name = sanitise_filename(location.rpartition("/")[2].partition("?")[0])[-80:]
    return f"{hashlib.sha256(location.encode()).hexdigest()[:24]}_{name}"
