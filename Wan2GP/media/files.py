"""Files on disk: what is wrong with one, and how a new one takes its name."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from Wan2GP.errors import InvalidMedia

_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"GIF8", "a GIF image"),
    (8, b"WEBP", "a WebP image"),
    (4, b"ftypheic", "an HEIC photo"),
    (4, b"ftypmif1", "an HEIF photo"),
    (4, b"ftypavif", "an AVIF image"),
    (4, b"ftyp", "an MP4 or MOV file"),
    (0, b"\x1aE\xdf\xa3", "a Matroska or WebM file"),
    (0, b"%PDF", "a PDF document"),
    (0, b"PK\x03\x04", "a ZIP archive"),
)


def require_file(path: Path) -> None:
    """Raise InvalidMedia unless `path` is a file with something in it."""
    if path.is_dir():
        raise InvalidMedia(f"{path} is a directory; give the path of a file")
    if not path.exists():
        raise InvalidMedia(f"{path} does not exist; check the path")
    if path.stat().st_size == 0:
        raise InvalidMedia(f"{path} is empty (0 bytes); upload or copy the file again")


def content_kind(path: Path) -> str:
    """What the first bytes of a file look like, for error messages: "a PNG image", "text", "unknown data"."""
    with path.open("rb") as file:
        head = file.read(512)
    for offset, signature, name in _SIGNATURES:
        if head[offset : offset + len(signature)] == signature:
            return name
    if head.lstrip()[:9].lower().startswith((b"<html", b"<!doctype")):
        return "an HTML page"
    if all(byte >= 0x20 or byte in b"\t\n\r\f" for byte in head):
        return "text"
    return "unknown data"


@contextmanager
def publishing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path` with the same suffix.

    The file takes its final name when the block ends well, so nobody ever sees half of it; it is removed when not.
    Missing parent folders are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem[:100]}.{uuid.uuid4().hex[:8]}.partial{path.suffix}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
