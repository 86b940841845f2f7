"""What tasks left on this machine's disks, whose it is, and what of it nobody needs any more.

A row decides: what belongs to a claim that still runs stays, and so does an undelivered result that its row may still
want. What cannot be told to belong to a row of this database stays as well: another one may use the same folder.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from source.checkpoints import Checkpoints
from source.disk import size_of
from source.errors import InvalidInput, TaskNotFound
from source.outbox import Outbox
from source.params.base import levels
from source.settings import Settings
from source.storage import UPLOADS
from source.store.base import TaskStore
from source.store.types import Status, Task, TaskFilter

log = logging.getLogger(__name__)

#: flags of a row that keep its scratch folder
KEEPING = ("debug_mode_enabled", "skip_cleanup_enabled", "debug")
#: folders of the scratch space that are no task type's
OUTBOX, CHECKPOINTS, DELIVERED = "outbox", "checkpoints", "delivered"

#: the name of a task, the number of its claim, the mark of its database
#: unfinished tasks that are looked through for uploads
_MOST_ROWS = 10_000
_CLAIMED = re.compile(r"\.?(?P<task>.+)-(?P<claim>\d+)-(?P<database>[0-9a-f]{8})")
_STAGED = re.compile(r"(?P<task>.+?)-(?P<claim>\d+)_.+", re.DOTALL)


@dataclass(frozen=True)
class Leftover:
    """Something that a task keeps on a disk."""

    #: scratch, outbox, staging, checkpoints, delivered, upload
    kind: str
    path: Path
    size_bytes: int
    #: the task's id as far as it is known
    task: str
    #: the row's status, or that there is none here
    state: str
    removable: bool
    #: why it may go, or why it stays
    why: str


def keeps_intermediates(settings: Settings, params: Mapping[str, Any]) -> bool:
    """Whether a scratch folder stays when its claim ends: a setting of the worker, or a flag of the row. Raises
    InvalidInput for parameters that are none."""
    asked = (values.get(name) for _, values in levels(params) for name in KEEPING)
    return settings.keep_scratch or any(value in (True, 1, "true") for value in asked)


class Leftovers:
    """All that tasks keep on this machine. Raises StoreError where the database does not answer."""

    def __init__(self, settings: Settings, store: TaskStore) -> None:
        self._settings = settings
        self._store = store
        self._scratch = settings.main_output_dir.resolve()
        self._mark = settings.database_mark
        self._rows: dict[str, Task | None] = {}

    def found(self) -> list[Leftover]:
        """By kind."""
        return [
            *self._scratches(), *self._parcels(), *self._staged(), *self._checkpoints(), *self._delivered(),
            *self._uploads(),
        ]  # fmt: skip

    def clean(self) -> list[Leftover]:
        """Remove what nobody needs. Returns what was removed."""
        removed = []
        for each in self.found():
            if each.removable and _remove(each.path):
                log.info("removed %s (%s)", each.path, each.why)
                removed.append(each)
        return removed

    # ---- kinds

    def _scratches(self) -> Iterator[Leftover]:
        others = {OUTBOX, CHECKPOINTS, DELIVERED}
        for kind in _folders(self._scratch):
            for folder in _folders(kind) if kind.name not in others else ():
                if named := _CLAIMED.fullmatch(folder.name):
                    yield self._of_claim("scratch", folder, named, debugging=True)

    def _parcels(self) -> Iterator[Leftover]:
        unwanted = set(Outbox(self._settings).unwanted(self._store))
        for folder in _folders(self._scratch / OUTBOX):
            if (named := _CLAIMED.fullmatch(folder.name)) is None:
                continue
            if folder.name.startswith(".") or named["database"] != self._mark:  # was being written, or is not ours
                yield self._of_claim("outbox", folder, named)
                continue
            gone = folder in unwanted
            why = "its row needs it no more" if gone else "not delivered yet"
            yield self._leftover("outbox", folder, named["task"], gone, why)

    def _staged(self) -> Iterator[Leftover]:
        staging = self._settings.public_dir.resolve() / ".staging"
        for path in sorted(staging.iterdir()) if staging.is_dir() else ():
            if named := _STAGED.fullmatch(path.name):
                yield self._of_claim("staging", path, named)

    def _checkpoints(self) -> Iterator[Leftover]:
        useless = set(Checkpoints(self._settings).useless(self._store))
        for folder in _folders(self._scratch / CHECKPOINTS):
            task, _, mark = folder.name.rpartition("-")
            gone = folder in useless
            if mark != self._mark and not gone:
                yield _of_another("checkpoints", folder, task)
                continue
            why = "its task has ended, or it is too old" if gone else "an interrupted task goes on from it"
            yield self._leftover("checkpoints", folder, task, gone, why)

    def _delivered(self) -> Iterator[Leftover]:
        folder = self._scratch / DELIVERED
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            yield Leftover(
                "delivered", path, size_of(path), "", "", True, "the project has it; kept to save a download"
            )

    def _uploads(self) -> Iterator[Leftover]:
        """What people uploaded: it may go when it is old and no unfinished task names it."""
        folder = self._settings.public_dir.resolve() / UPLOADS
        old = [path for path in _files(folder) if _age_days(path) > self._settings.upload_days]
        named = self._named_by_unfinished(old)
        for path in _files(folder):
            if path not in old:
                why = "it was uploaded lately"
            else:
                why = "an unfinished task names it" if path in named else "no unfinished task names it"
            yield Leftover("upload", path, size_of(path), "", "", path in old and path not in named, why)

    def _named_by_unfinished(self, paths: list[Path]) -> set[Path]:
        """Those whose name stands anywhere in the parameters of a task that may still read it; all where there are too
        many tasks to look at."""
        if not paths:
            return set()
        rows = self._store.select(TaskFilter(statuses=(Status.QUEUED, Status.IN_PROGRESS)), limit=_MOST_ROWS)
        if len(rows) == _MOST_ROWS:
            return set(paths)
        texts = [json.dumps(row.params, ensure_ascii=False) for row in rows]
        return {path for path in paths if any(path.name in text for text in texts)}

    # ---- whose

    def _of_claim(self, kind: str, path: Path, named: re.Match[str], *, debugging: bool = False) -> Leftover:
        """Something that only the claim that made it needs."""
        if named.groupdict().get("database", self._mark) != self._mark:
            return _of_another(kind, path, named["task"])
        row = self._row(named["task"])
        if row is None:
            return self._leftover(kind, path, named["task"], False, "its row is not known here")
        claim = int(named["claim"])
        holds = row.status is Status.IN_PROGRESS and not row.waiting and row.claim_number == claim
        if holds or claim > row.claim_number:  # claimed since the row was read
            return self._leftover(kind, path, named["task"], False, f"claim {claim} runs")
        if debugging and self._kept_for_debugging(row):
            return self._leftover(kind, path, named["task"], False, "kept for debugging; remove it by hand")
        return self._leftover(kind, path, named["task"], True, f"claim {claim} is over")

    def _leftover(self, kind: str, path: Path, name: str, removable: bool, why: str) -> Leftover:
        row = self._row(name)
        task, state = (name, "no row here") if row is None else (row.id, str(row.status))
        return Leftover(kind, path, size_of(path), task, state, removable, why)

    def _row(self, name: str) -> Task | None:
        """The row that a file is named after. An id that could not be a name is not found by it."""
        if name not in self._rows:
            try:
                self._rows[name] = self._store.get(name)
            except TaskNotFound:
                self._rows[name] = None
        return self._rows[name]

    def _kept_for_debugging(self, row: Task) -> bool:
        try:
            return keeps_intermediates(self._settings, row.params)
        except InvalidInput:
            return self._settings.keep_scratch


def _of_another(kind: str, path: Path, task: str) -> Leftover:
    return Leftover(kind, path, size_of(path), task, "", False, "it belongs to another database")


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_file() and not path.is_symlink())
    except OSError:
        return []


def _age_days(path: Path) -> float:
    """Since it was written, or uploaded again; 0 for a file that is gone."""
    try:
        return (time.time() - path.stat().st_mtime) / 86400
    except OSError:
        return 0.0


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())
    except OSError:
        return []


def _remove(path: Path) -> bool:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
    return not path.exists()
