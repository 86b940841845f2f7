"""The room on the disks that tasks write to, and whether there is enough of it to begin another one."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from source.settings import Settings

log = logging.getLogger(__name__)

GB = 1e9
#: what a pause needs more than what began it, so that it does not flap
MARGIN = 1.1
#: time between two measurements of folders that have a quota, and between two attempts to make room
MEASURE_S, CLEAN_S = 30.0, 60.0

#: bytes that a user may still write to the disk of a folder. Raises OSError
FreeBytes = Callable[[Path], int]


def free_bytes(folder: Path) -> int:
    """Bytes that may still be written to the disk of a folder, which need not exist yet. Raises OSError."""
    try:
        return shutil.disk_usage(folder).free
    except FileNotFoundError:
        return shutil.disk_usage(existing(folder)).free


def existing(folder: Path) -> Path:
    """The folder, or what of its path exists: it is made when it is needed."""
    return next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder. What goes away meanwhile counts as nothing."""
    total = 0
    try:
        if not path.is_dir():
            return path.lstat().st_size
        for folder, _, names in os.walk(path):
            for name in names:
                total += _size(Path(folder, name))
    except OSError:
        pass
    return total


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0


@dataclass(frozen=True)
class Shortage:
    """Why no task is begun: what a person is told."""

    folder: Path
    what: str
    #: it ends as results are delivered, which the next claims of their tasks do: one at a time is begun all the same
    delivers: bool = False

    @property
    def begun(self) -> str:
        """How many tasks are."""
        return "one task at a time" if self.delivers else "no task"

    def __str__(self) -> str:
        return (
            f"{self.folder}: {self.what}; free some space there (debug.py disk shows what lies where, "
            "debug.py disk --clean removes what nobody needs)"
        )


class Disk:
    """The disks of scratch and results. `free_bytes`: how they are measured."""

    def __init__(self, settings: Settings, *, free_bytes: FreeBytes = free_bytes) -> None:
        self._settings = settings
        self._free_bytes = free_bytes
        self._scratch = settings.main_output_dir.resolve()
        self._results = settings.public_dir
        self._measured_at: float | None = None
        self._quotas: Shortage | None = None

    def folders(self) -> Iterator[tuple[str, Path]]:
        """What tasks write to. Weights may lie on a disk that is only read, and full: that stops nobody."""
        yield "scratch", self._scratch
        if self._settings.db_type == "sqlite":
            yield "results", self._results

    def shortage(self, *, margin: float = 1.0, given_back: int = 0) -> Shortage | None:
        """What is short; None when a task may begin. `given_back`: bytes of scratch that are about to go. A disk that
        cannot be measured is not short."""
        least = self._settings.min_free_gb * margin
        for name, folder in self.folders():
            free = self._free(folder)
            if free is not None and (free + (given_back if name == "scratch" else 0)) / GB < least:
                return Shortage(folder, f"{free / GB:.1f} GB are free, MIN_FREE_GB is {self._settings.min_free_gb:g}")
        return self._over_quota()

    def explained(self, error: BaseException, message: str) -> str:
        """An error of a disk without room, with the folder and what to do."""
        named = getattr(error, "filename", None)
        folder = Path(named).parent if isinstance(named, str) else self._fullest()
        return f"{message}: {Shortage(folder, self._free_in_words(folder))}"

    def _fullest(self) -> Path:
        folders = [folder for _, folder in self.folders()]
        return min(folders, key=lambda folder: self._free(folder) or 0)

    def _free_in_words(self, folder: Path) -> str:
        free = self._free(folder)
        return "no room is left" if free is None else f"{free / GB:.1f} GB are free"

    def _free(self, folder: Path) -> int | None:
        """None when it cannot be measured."""
        try:
            return self._free_bytes(folder)
        except OSError as error:
            log.debug("%s cannot be measured: %s", folder, error)
            return None

    def _over_quota(self) -> Shortage | None:
        now = time.monotonic()
        if self._measured_at is None or now - self._measured_at >= MEASURE_S:
            self._measured_at, self._quotas = now, self._measure_quotas()
        return self._quotas

    def forget_measures(self) -> None:
        """Something was removed: folders are measured anew."""
        self._measured_at = None

    def _measure_quotas(self) -> Shortage | None:
        scratch_gb, outbox_gb = self._settings.scratch_quota_gb, self._settings.outbox_quota_gb
        outbox = self._scratch / "outbox"
        undelivered = size_of(outbox) / GB if scratch_gb or outbox_gb else 0
        if scratch_gb and (held := size_of(self._scratch) / GB - undelivered) > scratch_gb:
            what = f"holds {held:.1f} GB beside undelivered results, SCRATCH_QUOTA_GB is {scratch_gb:g}"
            return Shortage(self._scratch, what)
        if outbox_gb and undelivered > outbox_gb:
            return Shortage(outbox, f"holds {undelivered:.1f} GB, OUTBOX_QUOTA_GB is {outbox_gb:g}", delivers=True)
        return None


class Room:
    """Whether tasks may be claimed: not while a disk is short. What can be cleaned is cleaned first; a pause is said
    once, and so is its end. For one thread."""

    def __init__(self, disk: Disk, clean: Callable[[], None]) -> None:
        self._disk = disk
        self._clean = clean
        self._cleaned_at: float | None = None
        #: why nothing is claimed now
        self.shortage: Shortage | None = None

    def __call__(self) -> bool:
        """Look, and say whether there is room."""
        short = self._look()
        if short and self._may_clean():
            self._clean()
            self._disk.forget_measures()
            short = self._look()
        if short and self.shortage is None:
            log.warning("%s is claimed until there is room again: %s", short.begun, short)
        elif short is None and self.shortage is not None:
            log.info("there is room again in %s; tasks are claimed", self.shortage.folder)
        self.shortage = short
        return short is None

    def _look(self) -> Shortage | None:
        return self._disk.shortage(margin=1.0 if self.shortage is None else MARGIN)

    def _may_clean(self) -> bool:
        now = time.monotonic()
        due = self._cleaned_at is None or now - self._cleaned_at >= CLEAN_S
        if due:
            self._cleaned_at = now
        return due
