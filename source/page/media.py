"""Pictures and videos that a row names: which there are, and their bytes.

A browser never says a path: it names a task and a key, and the row says which file that is. A file of this machine is
given away only where it lies in the database's public folder or the scratch space.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import Route

from source.errors import InvalidMedia
from source.logs import redact_values
from source.page.context import Page, page_of
from source.page.guard import origin_of
from source.page.wording import task_url
from source.store.types import Task

#: what browsers play, by suffix; anything else is not given away
TYPES = {
    ".mp4": "video/mp4", ".m4v": "video/mp4", ".webm": "video/webm", ".mov": "video/quicktime",
    ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp", ".gif": "image/gif",
    ".avif": "image/avif", ".wav": "audio/wav", ".mp3": "audio/mpeg", ".m4a": "audio/mp4", ".flac": "audio/flac",
    ".ogg": "audio/ogg",
}  # fmt: skip
#: of the strings of a row that are looked at
MOST_NAMED, MOST_DEPTH = 60, 4
#: scripts in a picture (SVG is not given away at all) would be nobody's
_POLICY = "default-src 'none'; sandbox"


@dataclass(frozen=True)
class Medium:
    """A file that a row names."""

    task_id: str
    #: where the row names it: `output`, `outputs.1`, `params.video_guide` …
    key: str
    label: str
    #: output, guide, mask or input
    role: str
    #: video, image or audio
    kind: str
    #: None where it cannot be shown here
    url: str | None
    location: str

    @property
    def shown(self) -> str:
        """The location for people; that of a URL may hold a secret."""
        return str(redact_values(self.location))


def media_of(page: Page, task: Task) -> list[Medium]:
    """What can be seen of a task: its outputs first, then what its parameters name. Raises StoreError."""
    found = {location: key for key, location in reversed(list(named(task)))}
    pairs = sorted((key, location) for location, key in found.items())
    media = [_medium(page, task, key, location) for key, location in pairs]
    order = ("output", "guide", "mask", "input")
    return sorted(media, key=lambda each: order.index(each.role))


def named(task: Task) -> Iterator[tuple[str, str]]:
    """The keys and locations of the media of a row; the outputs first."""
    if task.output_location and suffix_of(task.output_location) in TYPES:
        yield "output", task.output_location
    result = task.result_data or {}
    listed = result.get("outputs")
    for index, location in enumerate(listed if isinstance(listed, list) else []):
        if isinstance(location, str) and suffix_of(location) in TYPES:
            yield f"outputs.{index}", location
    for number, pair in enumerate(_strings(task.params, "params", MOST_DEPTH)):
        if number == MOST_NAMED:
            return
        yield pair


def _strings(value: Any, key: str, depth: int) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        if len(value) < 2000 and "\n" not in value and suffix_of(value) in TYPES:
            yield key, value
    elif depth and isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _strings(inner, f"{key}.{name}", depth - 1)
    elif depth and isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _strings(inner, f"{key}.{index}", depth - 1)


def suffix_of(location: str) -> str:
    """The suffix of a path or URL, in lower case."""
    try:
        path = urlsplit(location).path if "://" in location else location
    except ValueError:
        return ""
    return PurePosixPath(path).suffix.lower()


def _medium(page: Page, task: Task, key: str, location: str) -> Medium:
    label = key.removeprefix("params.").removeprefix("orchestrator_details.")
    if key == "output" and task.child_key:
        label = task.child_key
    url = task_url(task.id, "/media", key=key, v=task.claim_number) if _can_be_shown(page, location) else None
    return Medium(task.id, key, label, _role(key, task), TYPES[suffix_of(location)].split("/")[0], url, location)


def _role(key: str, task: Task) -> str:
    if key.startswith("output"):
        return "guide" if task.task_type == "travel_guidance" else "output"
    words = key.lower()
    if "mask" in words:
        return "mask"
    return "guide" if "guide" in words or "control_video" in words else "input"


def _can_be_shown(page: Page, location: str) -> bool:
    if page.store.local:
        return local_file(page, location) is not None
    return bool(origin_of(page.settings.supabase_url or "")) and location.startswith(f"{page.settings.supabase_url}/")


def local_file(page: Page, location: str) -> Path | None:
    """The file of this machine behind a location, where it may be given away: judged after links were followed."""
    if "://" in location or "\0" in location:
        return None
    try:
        if not Path(location).is_absolute():
            return page.storage.resolve(location)
        path = Path(location).resolve()
        roots = (page.settings.public_dir.resolve(), page.settings.main_output_dir.resolve())
        return path if path.is_file() and any(path.is_relative_to(root) for root in roots) else None
    except (InvalidMedia, OSError, ValueError, RuntimeError):
        return None


def media(request: Request) -> Response:
    """The bytes of one medium of a task, in ranges too: a player seeks by them. 404 for what the row does not name."""
    page = page_of(request)
    task = page.store.get(request.query_params.get("id", ""))
    location = dict(named(task)).get(request.query_params.get("key", ""))
    if location is None:
        raise HTTPException(404)
    if not page.store.local:
        address = page.storage.address(location, task.id) if _can_be_shown(page, location) else None
        if address is None:
            raise HTTPException(404)
        return RedirectResponse(address, 302)
    path = local_file(page, location)
    if path is None:
        raise HTTPException(404)
    return given(path)


def given(path: Path) -> Response:
    """A file of this machine. 404 for what is no medium."""
    if suffix_of(path.name) not in TYPES:
        raise HTTPException(404)
    headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "private, max-age=300"}
    return FileResponse(path, media_type=TYPES[suffix_of(path.name)], headers=headers)


def preview(request: Request) -> Response:
    """What a task that runs looks like so far. 204 where there is nothing yet, or nothing any more: a task may end
    between a page and its picture, which is no failure."""
    found = page_of(request).store.preview(request.query_params.get("id", ""))
    if found is None:
        return Response(status_code=204)
    return Response(found.image, media_type=found.media_type, headers={"Content-Security-Policy": _POLICY})


routes = [Route("/task/media", media), Route("/task/preview", preview)]
