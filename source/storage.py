"""Where results go, and `LocalStorage`: a folder beside the database.

A result is staged beside its final place and published by one rename, inside the completion.

    outbox/…/clip.mp4 -> public/.staging/<task id>-<claim number>_clip.mp4 -> public/files/<task id>_clip.mp4

The row says `files/<task id>_clip.mp4`. A stale claim never publishes: its rename would run inside a
transaction that is refused first.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from source.errors import InvalidMedia
from source.settings import Settings
from source.store.types import Task

#: folders beside the database whose files rows name by `folder/name`: results, and what people uploaded
FILES, UPLOADS = "files", "uploads"
FALLBACK_NAME = "sanitized_file"
#: together with the claim number these fit into the 255 bytes that every common file system takes
MAX_NAME_BYTES, MAX_OWNER_BYTES = 180, 60

_FORBIDDEN = re.compile(r'[§®©™@·º½¾¿¡~\x00-\x1f\x7f-\x9f<>:"/\\|?*,]')
_RUNS = re.compile(r"[ .]{2,}")


def sanitise_filename(name: str) -> str:
    """A name that is safe on every file system and in URLs.

    Removes `§ ® © ™ @ · º ½ ¾ ¿ ¡ ~`, control characters and `< > : " / \\ | ? * ,`; runs of spaces and dots become one
    space; spaces and dots at the ends go. What is left of nothing is `sanitized_file`.
    """
    clean = _RUNS.sub(" ", _FORBIDDEN.sub("", name)).strip(" .")
    return _shortened(clean) or FALLBACK_NAME


def task_name(task: Task) -> str:
    """A task's id as a file name of its own: an id that had to be changed (`a/b`, a long one) gets a hash of itself."""
    name = sanitise_filename(task.id)
    if name == task.id and len(name.encode()) <= MAX_OWNER_BYTES:
        return name
    return f"{name.encode()[:40].decode(errors='ignore')}-{hashlib.sha256(task.id.encode()).hexdigest()[:12]}"


def claim_name(task: Task, mark: str) -> str:
    """What belongs to one claim of a task is named so. `mark` is the database's, `Settings.database_mark`: another one,
    a copy perhaps, may hold the same ids and use the same folders."""
    return f"{task_name(task)}-{task.claim_number}-{mark}"


def _shortened(name: str) -> str:
    """At most MAX_NAME_BYTES of UTF-8, the suffix kept."""
    if len(name.encode()) <= MAX_NAME_BYTES:
        return name
    suffix = Path(name).suffix[:16]
    return name.encode()[: MAX_NAME_BYTES - len(suffix.encode())].decode(errors="ignore") + suffix


#: told of the bytes of a file that are sent, and of all its bytes; may raise to stop
OnSent = Callable[[int, int], None]


#: has a function called when `OnSent` would raise: what waits for a slow line must hear of it
OnStop = Callable[[Callable[[], None]], None]


def unwatched(sent: int, total: int) -> None:
    """Nobody watches."""


def never(tell: Callable[[], None]) -> None:
    """Nobody stops it."""


class Staged(Protocol):
    """A result that is where it should be and that nobody sees yet: the completing write makes it visible."""

    @property
    def location(self) -> str:
        """What the row will say."""

    def publish(self) -> None:
        """Make it visible, inside the completing write. A repetition does nothing. Raises OSError."""

    def withdraw(self) -> None:
        """Take back a publication that the same write made."""

    def discard(self) -> None:
        """Drop what was not published."""


class Storage(Protocol):
    """Where the results of tasks go, and where those of other tasks come from."""

    @property
    def wants_posters(self) -> bool:
        """Whether front ends expect a picture beside each video."""

    def prepare(self) -> None:
        """Create the folders. Raises OSError; better now than after an hour of generating."""

    def stage(self, task: Task, path: Path, *, on_sent: OnSent = unwatched, on_stop: OnStop = never) -> Staged:
        """Bring a finished file to where it will be published; `path` stays where it is.

        Raises InvalidMedia when there is no such result, OSError when a disk refuses, and where it is sent elsewhere
        StaleClaim, StorageUnavailable (a later try may succeed) and RefusedUpload.
        """

    def resolve(self, location: str) -> Path:
        """The file behind an output location (`files/…`) of this machine. Raises InvalidMedia for what is outside or
        missing, or lies on another machine."""

    def kept(self, location: str, folder: Path) -> Path | None:
        """The file behind the URL of an output where this machine still has it: brought into `folder`, for as long as
        that stays. None when it must be downloaded."""

    def address(self, location: str, reader: str | None) -> str | None:
        """The URL that gives the file of a URL: a signed one where outputs of ours are private. None when `reader`, a
        task's id, has no right to that one; what everybody may read, it may nevertheless. Raises StoreError."""

    def keep(self, location: str, path: Path) -> None:
        """A delivery was acknowledged: `path`, of no further use to the caller, may be taken for `kept`."""

    def is_scratch(self, path: Path) -> bool:
        """Whether a file lies where tasks make what nobody keeps."""


def refuse_missing(task: Task, path: Path) -> None:
    """Raises InvalidMedia when there is no such result."""
    if not path.is_file() or not path.stat().st_size:
        raise InvalidMedia(f"the result {path.name} of task {task.id} is missing or empty")


def bring(source: Path, target: Path) -> None:
    """The same file under a second name, on disk when this returns: a link where the file system has them, else a copy.

    For files of our own: what is changed under one name changes under both. Raises OSError; nothing is left then.
    """
    sync(source)
    try:
        os.link(source.resolve(), target)
    except OSError:  # another file system, or one without links
        copy(source, target)


def copy(source: Path, target: Path) -> None:
    """A copy of a file, on disk when this returns. Raises OSError; nothing is left then."""
    try:
        shutil.copyfile(source, target)
        sync(target)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


@dataclass
class StagedOutput:
    """A result on the right file system, complete and synced, not yet visible."""

    #: what the row will say
    location: str
    staged: Path
    final: Path
    _published: bool = field(default=False, init=False)

    def publish(self) -> None:
        """Make the file visible under its final name. A repetition does nothing."""
        if self._published:
            return
        os.replace(self.staged, self.final)
        self.staged.unlink(missing_ok=True)  # two names of one file both survive a rename (POSIX)
        sync(self.final.parent)
        self._published = True

    def withdraw(self) -> None:
        """Take back a publication that the same transaction made."""
        if self._published:
            os.replace(self.final, self.staged)
            self._published = False

    def discard(self) -> None:
        """Drop what was not published."""
        if not self._published:
            self.staged.unlink(missing_ok=True)


def publish_together(staged: Sequence[Staged]) -> None:
    """Make several files visible, in their order; when one cannot be, none of them is.

    Raises ValueError for two of one name, and OSError.
    """
    names = [each.location for each in staged]
    if len(set(names)) < len(names):
        raise ValueError(f"two outputs of a task have one name: {', '.join(names)}")
    try:
        for each in staged:
            each.publish()
    except OSError:
        for each in staged:
            each.withdraw()
        raise


class LocalStorage:
    """Final files in `public/files/` beside the database."""

    wants_posters = False

    def __init__(self, settings: Settings) -> None:
        self.public_dir = settings.public_dir.resolve()
        self._files = self.public_dir / FILES
        self._staging = self.public_dir / ".staging"
        self._scratch = settings.main_output_dir.resolve()

    def prepare(self) -> None:
        """Create the folders. Raises OSError; better now than after an hour of generating."""
        for folder in (self._files, self._staging, self._scratch):
            prepare_folder(folder)

    def stage(self, task: Task, path: Path, *, on_sent: OnSent = unwatched, on_stop: OnStop = never) -> StagedOutput:
        """Bring `path` next to its final place. Raises InvalidMedia when there is no such result, OSError when the disk
        refuses."""
        refuse_missing(task, path)
        final, location = prepare_output_path_with_upload(self, task, path.name)
        for folder in (self._staging, self._files):
            folder.mkdir(parents=True, exist_ok=True)
        self._forget_earlier_claims(task)
        staged = self._staging / f"{_staging_prefix(task)}{task.claim_number}_{sanitise_filename(path.name)}"
        staged.unlink(missing_ok=True)
        if self.is_scratch(path):
            bring(path, staged)
        else:
            copy(path, staged)
        return StagedOutput(location, staged, final)

    def resolve(self, location: str) -> Path:
        """The local file behind an output location (`files/…`) or an upload (`uploads/…`). Raises InvalidMedia for what
        is outside or missing."""
        path = (self.public_dir / location).resolve()
        if not path.is_relative_to(self.public_dir):
            raise InvalidMedia(f"the location {location!r} is outside the folder of results")
        if not path.is_file():
            raise InvalidMedia(f"the file {path} does not exist any more")
        return path

    def kept(self, location: str, folder: Path) -> Path | None:
        """URLs are of other places: None."""
        return None

    def address(self, location: str, reader: str | None) -> str | None:
        """The URL itself."""
        return location

    def keep(self, location: str, path: Path) -> None:
        """The published file is kept already."""

    def is_scratch(self, path: Path) -> bool:
        """Whether a file lies where tasks make what nobody keeps."""
        return path.resolve().is_relative_to(self._scratch)

    def final_path(self, name: str) -> Path:
        return self._files / name

    def _forget_earlier_claims(self, task: Task) -> None:
        """A worker that died between staging and completing left its file behind."""
        own = f"{_staging_prefix(task)}{task.claim_number}_"
        for leftover in self._staging.glob(f"{glob.escape(_staging_prefix(task))}*"):
            if not leftover.name.startswith(own):
                leftover.unlink(missing_ok=True)


def prepare_output_path_with_upload(storage: LocalStorage, task: Task, filename: str) -> tuple[Path, str]:
    """The final path of a task's result, and the output location that the row gets."""
    name = sanitise_filename(filename)
    owner = task_name(task)
    if not name.startswith(f"{owner}_"):
        name = f"{owner}_{name}"
    return storage.final_path(name), f"{FILES}/{name}"


def upload_and_get_final_output_location(storage: Storage, task: Task, path: Path) -> str:
    """Deliver a result outside a completing transaction, and return its output location."""
    staged = storage.stage(task, path)
    staged.publish()
    return staged.location


def prepare_folder(folder: Path) -> None:
    """Create a folder and see that it takes files. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


def _staging_prefix(task: Task) -> str:
    return f"{task_name(task)}-"


def sync(path: Path) -> None:
    """Have the disk hold what was written (a file) or renamed (a folder)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
