"""Our branch of the error tree, and the one table that says what an error means for a task."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from enum import StrEnum

from Wan2GP.errors import (
    DeviceLost,
    EngineError,
    GenerationCancelled,
    InvalidInput,
    InvalidMedia,
    ModelUnavailable,
    NoOutput,
    OutOfMemory,
    UnknownModel,
    Unsupported,
    WanError,
)

__all__ = [
    "ConfigurationError",
    "DamagedUpload",
    "DeviceLost",
    "DiskFull",
    "EngineError",
    "GenerationCancelled",
    "Hang",
    "InvalidInput",
    "InvalidMedia",
    "ModelUnavailable",
    "NoOutput",
    "OutOfMemory",
    "Outcome",
    "ProgramUnavailable",
    "RefusedUpload",
    "RefusedWrite",
    "ShuttingDown",
    "StaleClaim",
    "StorageUnavailable",
    "StoreError",
    "TaskNotFound",
    "Transient",
    "UnknownModel",
    "Unsupported",
    "Verdict",
    "WanError",
    "disk_full",
    "verdict",
]


class ConfigurationError(WanError):
    """The configuration is wrong; the worker does not start."""


class StoreError(WanError):
    """The database could not be read or written."""


class TaskNotFound(StoreError):
    """There is no task with that id."""


class StaleClaim(StoreError):
    """The row is no longer claimed by this worker: it was rescued, ended or released."""


class RefusedWrite(StoreError):
    """The database is well and refuses what was written (a constraint or trigger); the same write never succeeds."""


class StorageUnavailable(StoreError):
    """The storage of results is out of reach or does not answer well; a later try may succeed."""


class RefusedUpload(RefusedWrite):
    """The storage is well and does not take a result; the same upload never succeeds."""


class DamagedUpload(RefusedWrite):
    """An upload did not arrive as it was sent; it is to be sent again."""


class Transient(WanError):
    """A passing fault outside this process (network, remote service)."""


class DiskFull(Transient):
    """A disk has no room for what a task needs; the message names it and says what to do."""


class ProgramUnavailable(WanError):
    """A program or service of others that the task needs is not set up for this worker; never retried."""


class ShuttingDown(GenerationCancelled):
    """The worker is shutting down; the task goes back to the queue."""


class Hang(GenerationCancelled):
    """The engine stood still for far longer than it ever did with this model."""


class Outcome(StrEnum):
    """What becomes of the task."""

    FAIL = "fail"
    RETRY = "retry"
    CANCEL = "cancel"
    RELEASE = "release"
    #: say nothing: the row belongs to somebody else now
    ABANDON = "abandon"
    #: release the row and leave the process with exit code 3
    EXIT = "exit"


@dataclass(frozen=True)
class Verdict:
    outcome: Outcome
    error_class: str


#: the first class that matches decides, so subclasses stand before their bases
_VERDICTS: tuple[tuple[type[BaseException], Verdict], ...] = (
    (StaleClaim, Verdict(Outcome.ABANDON, "stale")),
    (ShuttingDown, Verdict(Outcome.RELEASE, "shutdown")),
    (Hang, Verdict(Outcome.RETRY, "hang")),
    (GenerationCancelled, Verdict(Outcome.CANCEL, "cancelled")),
    (DeviceLost, Verdict(Outcome.EXIT, "device_lost")),
    (OutOfMemory, Verdict(Outcome.RETRY, "out_of_memory")),
    (MemoryError, Verdict(Outcome.RETRY, "out_of_memory")),
    (ModelUnavailable, Verdict(Outcome.FAIL, "model_unavailable")),
    (ProgramUnavailable, Verdict(Outcome.FAIL, "program_unavailable")),
    (InvalidInput, Verdict(Outcome.FAIL, "bad_input")),
    (Transient, Verdict(Outcome.RETRY, "transient")),
    (RefusedUpload, Verdict(Outcome.FAIL, "storage")),
    (DamagedUpload, Verdict(Outcome.RETRY, "storage")),
    (RefusedWrite, Verdict(Outcome.FAIL, "database")),
    (StorageUnavailable, Verdict(Outcome.RETRY, "storage")),
    (StoreError, Verdict(Outcome.RETRY, "database")),
    (OSError, Verdict(Outcome.RETRY, "io")),
    (EngineError, Verdict(Outcome.RETRY, "engine")),
)
_UNFORESEEN = Verdict(Outcome.FAIL, "internal")


#: of a task for which the disk had no room
DISK_FULL = "disk_full"
#: errors of a write for which there is no room, and how programs word them
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
_NO_ROOM_IN_WORDS = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT), "database or disk is full")


def verdict(error: BaseException) -> Verdict:
    """What `error` means for the task it ended. An error that nobody foresaw is a bug: the task fails, unretried."""
    decided = next((decided for kind, decided in _VERDICTS if isinstance(error, kind)), _UNFORESEEN)
    if decided.outcome in (Outcome.FAIL, Outcome.RETRY) and disk_full(error):
        return Verdict(Outcome.RETRY, DISK_FULL)
    return decided


def disk_full(error: BaseException | None) -> bool:
    """Whether the error comes of a disk without room: itself, or what it was raised for."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, DiskFull) or (isinstance(error, OSError) and error.errno in NO_ROOM):
            return True
        if any(words in str(error) for words in _NO_ROOM_IN_WORDS):  # ffmpeg's, Rust's, SQLite's
            return True
        error = error.__cause__ or error.__context__
    return False
