"""Results in a Supabase project. A file is uploaded to an address that the project signs, under a key of the claim.

    outbox/…/clip.mp4 -> PUT -> {user}/tasks/{task}/{claim number}-clip.mp4 in the bucket; the row says its public URL

What a claim uploaded is seen by nobody until the completing write names it, so there is nothing to publish here, and
nothing to take back.
"""

from __future__ import annotations

import contextlib
import logging
import mimetypes
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from source.errors import InvalidMedia, RefusedUpload, RefusedWrite, StorageUnavailable, TaskNotFound
from source.kept_outputs import KeptOutputs
from source.settings import Settings
from source.storage import (
    LocalStorage,
    OnSent,
    OnStop,
    Storage,
    never,
    prepare_folder,
    refuse_missing,
    sanitise_filename,
    unwatched,
)
from source.store.base import TaskStore
from source.store.supabase import Functions, SupabaseStore
from source.store.types import Task
from source.upload import Measure, measured, upload

log = logging.getLogger(__name__)

Answer = TypeVar("Answer", bound=BaseModel)

#: how often an upload that the storage refuses is signed anew: the address may have expired on the way
SIGNINGS = 3


class _Target(BaseModel):
    """Where the project wants a file to be put."""

    upload_url: str
    upload_headers: dict[str, str]
    public_url: str


class _Source(BaseModel):
    """Where a file of the project can be had."""

    download_url: str


@dataclass(frozen=True)
class Uploaded:
    """A file that is there, under a key of the claim."""

    location: str

    def publish(self) -> None:
        """The completing write does that by naming it."""

    def withdraw(self) -> None:
        """Nobody saw it."""

    def discard(self) -> None:
        """It lies under a claim that no row names."""


class SupabaseStorage:
    """The bucket of a project. Safe to share between threads."""

    wants_posters = True

    def __init__(self, settings: Settings, functions: Functions) -> None:
        self._functions = functions
        self._scratch = settings.main_output_dir.resolve()
        self._ours = f"{settings.supabase_url}/storage/v1/object/public/{settings.supabase_video_bucket}/"
        self._kept = KeptOutputs(self._scratch / "delivered", settings.kept_outputs_gb)
        #: whether files of ours need no signed address; None: not known yet
        self._public: bool | None = None

    def prepare(self) -> None:
        """Create the scratch folder. Raises OSError."""
        prepare_folder(self._scratch)

    def stage(self, task: Task, path: Path, *, on_sent: OnSent = unwatched, on_stop: OnStop = never) -> Uploaded:
        """Upload a file under a key of the claim, which is refused when it is stale.

        Raises InvalidMedia, OSError, StaleClaim, StorageUnavailable, RefusedUpload, StoreError.
        """
        refuse_missing(task, path)
        measure = measured(path, lambda: on_sent(0, path.stat().st_size))
        for attempt in range(1, SIGNINGS + 1):
            target = self._target(task, path, measure)
            try:
                upload(
                    path, target.upload_url, target.upload_headers, measure.size_bytes, on_sent, on_stop=on_stop
                )  # fmt: skip
            except RefusedUpload as error:
                if attempt == SIGNINGS:
                    raise
                log.warning("%s; it is signed anew and tried again", error)
            else:
                break
        return Uploaded(target.public_url)

    def resolve(self, location: str) -> Path:
        """Raises InvalidMedia: outputs are URLs here."""
        raise InvalidMedia(f"{location!r} is a file of another installation; outputs on Supabase are URLs")

    def kept(self, location: str, folder: Path) -> Path | None:
        """An output that this machine delivered lately, linked into `folder`."""
        return self._kept.link(location, folder) if self._is_ours(location) else None

    def address(self, location: str, reader: str | None) -> str | None:
        """A signed URL for a file of ours in a private bucket, else the URL itself; None where the project does not
        give the file to the owner of the task `reader`. Raises StoreError."""
        if self._public or not self._is_ours(location):
            return location
        body = {"location": location} | ({"task_id": reader} if reader else {})
        try:
            answer = checked(_Source, self._functions.call("generate-download-url", body))
        except (RefusedWrite, TaskNotFound) as error:
            log.debug("the project does not give %s to task %s: %s", location, reader, error)
            return None
        self._public = answer.download_url == location
        return answer.download_url

    def keep(self, location: str, path: Path) -> None:
        """A task after this one may want it soon."""
        with contextlib.suppress(OSError):
            self._kept.add(location, path)

    def is_scratch(self, path: Path) -> bool:
        """Whether a file lies where tasks make what nobody keeps."""
        return path.resolve().is_relative_to(self._scratch)

    def _is_ours(self, location: str) -> bool:
        return location.startswith(self._ours)

    def _target(self, task: Task, path: Path, measure: Measure) -> _Target:
        name = sanitise_filename(path.name)
        body = {
            "task_id": task.id,
            "worker_id": task.claim.worker_id,
            "claim_number": task.claim_number,
            "filename": name,
            "content_type": content_type(name),
            "size_bytes": measure.size_bytes,
            "sha256": measure.sha256,
            "md5": measure.md5,
        }
        return checked(_Target, self._functions.call("generate-upload-url", body))


def storage_for(settings: Settings, store: TaskStore) -> Storage:
    """Where the results of tasks of a database go: into its project, or beside its file."""
    if isinstance(store, SupabaseStore):
        return SupabaseStorage(settings, store.functions)
    return LocalStorage(settings)


def content_type(name: str) -> str:
    """What a browser is told: media and plain text by their suffix. Anything that could be a page is just bytes."""
    kind = mimetypes.guess_type(name)[0] or ""
    plain = kind.startswith(("image/", "video/", "audio/")) and kind != "image/svg+xml"
    return kind if plain or kind in ("text/plain", "application/json") else "application/octet-stream"


def checked(kind: type[Answer], answer: Any) -> Answer:
    """An answer of a function. Raises StorageUnavailable for one without what is needed; it may hold a secret."""
    try:
        return kind.model_validate(answer)
    except ValidationError as error:
        lacking = ", ".join(".".join(map(str, each["loc"])) for each in error.errors())
        raise StorageUnavailable(f"the project answered without a usable {lacking}") from None
