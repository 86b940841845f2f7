"""What a worker did, as it did it: one JSON line each, on disk before the worker goes on.

Several processes may write one file. Times are seconds of the machine's monotonic clock, so they compare between the
processes of one machine, until it restarts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError


class Outcome(StrEnum):
    """What the database said to a write."""

    #: it has not answered yet: a completion is written down before as well, for it may be the last that a worker does
    ASKED = "asked"
    OK = "ok"
    #: refused: the claim was another's by then
    STALE = "stale"
    #: no answer, or a failure: it may have been done
    UNKNOWN = "unknown"


class Record(BaseModel):
    """One thing that a worker did of one claim."""

    model_config = ConfigDict(frozen=True)

    #: up (a process is), claim, start, step, upload, fan_out, complete, fail, retry, release, cancelled, lost,
    #: misfortune
    name: str
    task: str
    claim: int
    worker: str
    #: before the database was asked, and after it had answered
    began: float
    ended: float
    outcome: Outcome = Outcome.OK
    #: of an upload the file's name and SHA-256, of a misfortune which
    detail: str = ""


class History:
    """Appends records to a file."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def note(
        self, name: str, task: str, claim: int, worker: str, *, began: float | None = None,
        outcome: Outcome = Outcome.OK, detail: str = "",
    ) -> None:  # fmt: skip
        """Returns when the record is on the disk. Raises OSError."""
        now = time.monotonic()
        record = Record(
            name=name, task=task, claim=claim, worker=worker, began=now if began is None else began, ended=now,
            outcome=outcome, detail=detail,
        )  # fmt: skip
        os.write(self._file, f"{record.model_dump_json()}\n".encode())
        os.fsync(self._file)

    def close(self) -> None:
        """No more records."""
        os.close(self._file)


def read_histories(folder: Path) -> list[Record]:
    """All records of the `*.jsonl` files of a folder, in the order of their ends. A line that a death cut off is none:
    what it says had not been acknowledged to anybody."""
    found = [record for path in sorted(folder.glob("*.jsonl")) for record in _records(path)]
    return sorted(found, key=lambda record: record.ended)


def _records(path: Path) -> Iterator[Record]:
    for line in path.read_bytes().splitlines():
        try:
            yield Record.model_validate_json(line)
        except ValidationError:
            continue
