"""Files that Wan2GP saves, read strictly: settings (JSON), a queue (zip), and outputs with their settings inside.

JSON    an object of settings, a list of such, or {"tasks": [...]}; each may stand below `params` or `settings`
zip     `queue.json`, a list of {"id", "params"}, and the media that it names
output  the same object as JSON in its comment (`Wan2GP.media.comments`)
"""

from __future__ import annotations

import json
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, NoReturn

from source.errors import InvalidInput

QUEUE = "queue.json"
#: a list of tasks is words; media are beside it
MAX_JSON_BYTES, MAX_TASKS, MAX_MEMBERS = 32 * 1024 * 1024, 1000, 20_000
#: of all media of a queue together, unpacked
MAX_MEDIA_BYTES = 64 * 1024**3
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Entry:
    """One task as it was saved."""

    #: for people: "entry 2", "task 7"
    name: str
    settings: Mapping[str, Any]


#: a file beside the settings, by the name that they have for it: its bytes, in blocks
Bytes = Callable[[str], Iterator[bytes]]


@dataclass(frozen=True)
class Saved:
    """What a file holds."""

    entries: tuple[Entry, ...]
    #: the folder that relative paths begin in; None: media lie in the archive
    folder: Path | None
    member: Bytes


@contextmanager
def opened(path: Path) -> Iterator[Saved]:
    """What Wan2GP saved in `path`, by its suffix. Raises InvalidInput for anything else, and for a damaged file."""
    suffix = path.suffix.lower()
    with ExitStack() as closing:
        with _readable(path.name):
            if suffix == ".zip":
                saved = _queue(closing.enter_context(zipfile.ZipFile(path)))
            else:
                document = _json(path.read_bytes(), path.name) if suffix == ".json" else _embedded(path)
                saved = Saved(_entries(document), path.resolve().parent, _no_member)
        yield saved


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """What goes wrong with a file, for people."""
    try:
        yield
    except zipfile.BadZipFile as error:
        raise InvalidInput(f"{name} is no intact zip file: {error}") from None
    except (OSError, RuntimeError, NotImplementedError, EOFError, zlib.error) as error:
        raise InvalidInput(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _queue(archive: zipfile.ZipFile) -> Saved:
    members = _checked_members(archive)
    if QUEUE not in members:
        raise InvalidInput(f"there is no {QUEUE} in it, so it is no saved queue of Wan2GP")
    with archive.open(members[QUEUE]) as file:
        text = file.read(MAX_JSON_BYTES + 1)
    rest = [MAX_MEDIA_BYTES]

    def blocks(name: str) -> Iterator[bytes]:
        if name not in members:
            raise InvalidInput(f"the queue names {name!r}, which is not in the zip file")
        with _readable(name), archive.open(members[name]) as file:
            yield from _limited(file, rest, members[name].file_size)

    return Saved(_entries(_json(text, QUEUE)), None, blocks)


def _checked_members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The files by name. Nothing is ever written where a name says, and yet a name that leads out is refused: such a
    file was made to do harm."""
    members = [each for each in archive.infolist() if not each.is_dir()]
    if len(members) > MAX_MEMBERS:
        raise InvalidInput(f"there are {len(members)} files in it; a queue has {MAX_MEMBERS} at most")
    for each in members:
        parts = PurePosixPath(each.filename.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts or ":" in each.filename or "\0" in each.orig_filename:
            raise InvalidInput(f"the zip file has a member {each.filename[:80]!r}, which leads out of it")
        if stat.S_ISLNK(each.external_attr >> 16):
            raise InvalidInput(f"the zip file has a member {each.filename[:80]!r}, which is a link")
    return {each.filename: each for each in members}


def _limited(file: IO[bytes], rest: list[int], declared: int) -> Iterator[bytes]:
    """The bytes of a member; what it says of its size is no proof."""
    taken = 0
    while block := file.read(_BLOCK_BYTES):
        taken, rest[0] = taken + len(block), rest[0] - len(block)
        if taken > declared or rest[0] < 0:
            raise InvalidInput(
                f"the media of the queue unpack to more than {MAX_MEDIA_BYTES >> 30} GB, or than they say"
            )
        yield block


def _no_member(name: str) -> Iterator[bytes]:
    raise InvalidInput(f"{name!r} is no file of an archive")


def _json(text: bytes, name: str) -> Any:
    if len(text) > MAX_JSON_BYTES:
        raise InvalidInput(f"{name} has more than {MAX_JSON_BYTES >> 20} MB, which no settings have")
    try:
        return json.loads(text.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{name} is not valid JSON: {error}") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _embedded(path: Path) -> Any:
    from Wan2GP.media.comments import PICTURES, VIDEOS, comment_of

    if path.suffix.lower() not in PICTURES | VIDEOS:
        known = ", ".join(sorted(PICTURES | VIDEOS))
        raise InvalidInput(f"{path.name} is neither settings (.json), nor a queue (.zip), nor an output ({known})")
    comment = comment_of(path)
    if not comment or not comment.lstrip().startswith("{"):
        raise InvalidInput(
            f"{path.name} does not say how it was made; what this project made `python debug.py replay` queues again"
        )
    return _json(comment.encode(), f"the comment of {path.name}")


def _entries(document: Any) -> tuple[Entry, ...]:
    """Raises InvalidInput when it holds no tasks."""
    listed = document.get("tasks", document) if isinstance(document, dict) else document
    tasks = listed if isinstance(listed, list) else [listed]
    if not tasks or len(tasks) > MAX_TASKS:
        raise InvalidInput(f"it holds {len(tasks)} tasks; 1 to {MAX_TASKS} make sense")
    return tuple(_entry(task, number) for number, task in enumerate(tasks, 1))


def _entry(task: Any, number: int) -> Entry:
    if not isinstance(task, dict):
        raise InvalidInput(f"entry {number}: must be a JSON object, not {task!r:.60}")
    identity = task.get("id")
    name = f"task {identity}" if isinstance(identity, int | str) and identity != "" else f"entry {number}"
    for below in ("params", "settings"):
        if below in task:
            if not isinstance(task[below], dict):
                raise InvalidInput(f"{name}: {below}: must be a JSON object, not {task[below]!r:.60}")
            return Entry(name, task[below])
    return Entry(name, task)
