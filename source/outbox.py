"""Finished results on their way. What a run made outlives the process that made it, until its row has it.

    <main output dir>/outbox/<task>-<claim number>-<database>/manifest.json and, beside it, the files

A parcel appears whole, by one rename, before anything is sent. It goes when the completion was acknowledged. A later
claim of the row on this machine delivers it instead of running the task again, as long as the row asks for the same.
A result that holds nothing, neither files nor words, is not written down.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from source.errors import InvalidMedia, TaskNotFound
from source.provenance.record import tool
from source.settings import Settings
from source.storage import bring, claim_name, copy, refuse_missing, sync, task_name
from source.store.base import TaskStore
from source.store.encoding import encoded
from source.store.types import Status, Task
from source.task_registry import Done
from Wan2GP.media.metadata import carries_text, embed_text

log = logging.getLogger(__name__)

DAY_S = 86400.0
MANIFEST = "manifest.json"
_PARCEL = re.compile(r"(?P<task>.+)-(?P<claim>\d+)-(?P<database>[0-9a-f]{8})")


class Manifest(BaseModel):
    """What a parcel holds, and whose it is."""

    database: str
    task_id: str
    #: the claim that made it
    claim_number: int
    #: of what the row asked for: see `request_digest`
    request: str
    #: files, relative to the parcel
    output: str | None = None
    extra: list[str] = []
    poster: str | None = None
    result_data: dict[str, Any] | None = None


@dataclass(frozen=True)
class Parcel:
    """A finished result, on disk."""

    folder: Path
    manifest: Manifest

    @property
    def output(self) -> Path | None:
        return self._path(self.manifest.output)

    @property
    def extra(self) -> tuple[Path, ...]:
        return tuple(self.folder / name for name in self.manifest.extra)

    @property
    def poster(self) -> Path | None:
        return self._path(self.manifest.poster)

    def _path(self, name: str | None) -> Path | None:
        return self.folder / name if name else None


def request_digest(task: Task, params: Mapping[str, Any]) -> str:
    """SHA-256 of what a row asks for: its type, its whole parameters, and what it depends on."""
    asked = [task.task_type, params, task.dependant_on]
    return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode(errors="surrogatepass")).hexdigest()


class Outbox:
    """The parcels of this machine; several workers may share the folder."""

    def __init__(self, settings: Settings) -> None:
        self._scratch = settings.main_output_dir.resolve()
        self._root = self._scratch / "outbox"
        self._database = settings.database
        self._mark = settings.database_mark
        self._days = settings.outbox_days

    def put(self, task: Task, request: str, done: Done, record: str) -> Parcel:
        """Keep a finished result. `record` says how it was made; it goes into each file whose kind can carry that.

        Raises InvalidMedia for a file that is missing or empty, InvalidInput for `result_data` that is no JSON, OSError
        when the disk refuses.
        """
        final = self._folder(task)
        if not any(files := (done.output, *done.extra, done.poster)) and not done.result_data:
            return Parcel(final, self._manifest(task, request))
        draft = final.with_name(f".{final.name}")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        try:
            output, *extra, poster = [self._add(task, path, draft, str(i), record) for i, path in enumerate(files)]
            manifest = self._manifest(
                task, request, output=output, extra=[name for name in extra if name], poster=poster,
                result_data=json.loads(encoded(done.result_data, "result_data")) if done.result_data else None,
            )  # fmt: skip
            (draft / MANIFEST).write_text(manifest.model_dump_json(), encoding="utf-8")
            shutil.rmtree(final, ignore_errors=True)
            self._seal(draft, final, lasting=any(files))
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        return Parcel(final, manifest)

    def find(self, task: Task, request: str) -> Parcel | None:
        """What an earlier claim of this row made; it is this claim's from now on. One that the row does not ask for any
        more is removed."""
        for folder in self._parcels_of(task):
            manifest = self._read(folder)
            if manifest is None or (manifest.database, manifest.task_id) != (self._database, task.id):
                continue
            if manifest.request != request or not _whole(folder, manifest):
                log.info("a result of claim %d is not what the row asks for now; it is removed", manifest.claim_number)
                shutil.rmtree(folder, ignore_errors=True)
            elif taken := self._take(folder, self._folder(task)):
                return Parcel(taken, manifest)
        return None

    def remove(self, parcel: Parcel) -> None:
        """It was delivered."""
        shutil.rmtree(parcel.folder, ignore_errors=True)

    def __len__(self) -> int:
        """Parcels that are on their way, whoever's."""
        return sum(1 for _ in self._parcels())

    def settle(self, task: Task, store: TaskStore) -> None:
        """A run of the task is over: forget what it did not deliver, unless the task may go on. Raises StoreError."""
        folder = self._folder(task)
        if folder.is_dir() and _at_its_end(task.id, store):
            shutil.rmtree(folder, ignore_errors=True)

    def sweep(self, store: TaskStore) -> None:
        """Forget what belongs to rows that ended elsewhere, and what is older than `outbox_days`. Raises StoreError."""
        outdated = [folder for folder in (*self._parcels(), *self._root.glob(".*")) if self._outdated(folder)]
        for folder in dict.fromkeys((*outdated, *self.unwanted(store))):
            log.info("the undelivered result in %s is of no use any more; it is removed", folder)
            shutil.rmtree(folder, ignore_errors=True)

    def unwanted(self, store: TaskStore) -> list[Path]:
        """The parcels of rows that ended elsewhere. Raises StoreError."""
        return [folder for folder in self._parcels() if self._ended(folder, store)]

    def _ended(self, folder: Path, store: TaskStore) -> bool:
        manifest = self._read(folder)
        return manifest is not None and manifest.database == self._database and _at_its_end(manifest.task_id, store)

    # ---- parcels as folders

    def _folder(self, task: Task) -> Path:
        return self._root / claim_name(task, self._mark)

    def _manifest(self, task: Task, request: str, **held: Any) -> Manifest:
        return Manifest(
            database=self._database, task_id=task.id, claim_number=task.claim_number, request=request, **held
        )  # fmt: skip

    def _parcels_of(self, task: Task) -> Iterator[Path]:
        """By name: every claim asks, and there may be many."""
        try:
            names = os.listdir(self._root)
        except FileNotFoundError:
            return
        for named in filter(None, map(_PARCEL.fullmatch, names)):
            if (named["task"], named["database"]) == (task_name(task), self._mark) and named[0][0] != ".":
                yield self._root / named[0]

    def _parcels(self) -> Iterator[Path]:
        return (path for path in self._root.glob("*") if not path.name.startswith(".") and path.is_dir())

    @staticmethod
    def _take(folder: Path, own: Path) -> Path | None:
        """One process alone gets it: whoever renames it first."""
        try:
            if folder != own:
                os.rename(folder, own)
        except OSError:
            return None
        return own

    def _add(self, task: Task, path: Path | None, draft: Path, place: str, record: str) -> str | None:
        if path is None:
            return None
        refuse_missing(task, path)
        target = draft / place / path.name
        target.parent.mkdir()
        if not _written_with(record, path, target):
            ours = path.resolve().is_relative_to(self._scratch)
            (bring if ours else copy)(path, target)
        sync(target)
        sync(target.parent)
        return f"{place}/{path.name}"

    def _seal(self, draft: Path, final: Path, *, lasting: bool) -> None:
        """Files survive a power cut too. A few words are made again after one: waiting for the disk would take longer
        than most tasks that make no file, and a manifest that was cut short is none."""
        if lasting:
            sync(draft / MANIFEST)
            sync(draft)
        os.rename(draft, final)
        if lasting:
            sync(self._root)

    @staticmethod
    def _read(folder: Path) -> Manifest | None:
        try:
            return Manifest.model_validate_json((folder / MANIFEST).read_bytes())
        except (OSError, ValidationError):
            return None

    def _outdated(self, folder: Path) -> bool:
        try:
            return time.time() - folder.stat().st_mtime > self._days * DAY_S
        except OSError:
            return False


def _whole(folder: Path, manifest: Manifest) -> bool:
    """Whether every file that was kept is still there."""
    names = [*filter(None, (manifest.output, manifest.poster)), *manifest.extra]
    return all((folder / name).is_file() for name in names)


def _at_its_end(task_id: str, store: TaskStore) -> bool:
    """Whether nobody can want the result any more. A Failed row may be queued again; one that a shared database
    does not show may be another person's, whose worker uses the same folder."""
    try:
        return store.get(task_id).status in (Status.COMPLETE, Status.CANCELLED)
    except TaskNotFound:
        return store.local


def _written_with(record: str, source: Path, target: Path) -> bool:
    """Copy a picture or video and write the record into it; False when it cannot carry one, and nothing is there then.

    A result is not lost for that: a file that the writer of metadata finds damaged goes out as it is.
    """
    try:
        if not carries_text(source):
            return False
        embed_text(source, target, record, tool=tool())
    except InvalidMedia as error:
        log.warning("the result goes out without the record of how it was made: %s", error)
        return False
    return True
