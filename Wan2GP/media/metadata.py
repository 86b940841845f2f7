"""A text inside a picture or video that says how it was made. Pixels, samples and their order stay as they are.

MP4, MOV   comment (not MOV) and XMP box     `boxes.py`
PNG        comment (iTXt)                    `chunks.py`
WebP, JPEG XMP                               `chunks.py`
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from Wan2GP.errors import InvalidMedia
from Wan2GP.media import boxes, chunks, xmp
from Wan2GP.media.files import require_file

_HEAD_BYTES = 16


def carries_text(path: str | Path) -> bool:
    """Whether a file is of a kind that `embed_text` writes into, by its first bytes."""
    with Path(path).open("rb") as file:
        return _kind(file.read(_HEAD_BYTES)) is not None


def embed_text(source: str | Path, target: str | Path, text: str, *, tool: str) -> None:
    """Write `target`: the picture or video `source` with `text` in it, and nothing else changed.

    `text` is JSON (see `xmp.escaped_json`); `tool` names what made the file. An earlier text is replaced. The file is
    on the disk when this returns, and removed when it fails. Memory does not grow with the media.

    Raises InvalidMedia when the file is of another kind or damaged, or the text far too long.
    """
    source, target = Path(source), Path(target)
    require_file(source)
    text = xmp.escaped_json(text)
    packet = xmp.packet(text, tool)
    if len(packet) > xmp.MAX_TEXT_BYTES:
        raise InvalidMedia(f"a text of {len(text)} characters is too long to stand in a file")
    try:
        with source.open("rb") as given, target.open("w+b") as made, _naming(source):
            _embed(given, made, text, packet, tool)
            made.flush()
            os.fsync(made.fileno())
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _embed(source: BinaryIO, target: BinaryIO, text: str, packet: bytes, tool: str) -> None:
    kind = _kind(source.read(_HEAD_BYTES))
    source.seek(0)
    match kind:
        case "mp4":
            boxes.embed(source, target, text, packet)
        case "png":
            chunks.embed_png(source, target, text)
        case "webp":
            chunks.embed_webp(source, target, packet)
        case "jpeg":
            chunks.embed_jpeg(source, target, xmp.extended(tool), packet)
        case _:
            raise InvalidMedia("nothing can be written into a file of this kind")


def embedded_texts(path: str | Path) -> Iterator[str]:
    """The texts that may be one of `embed_text`, the most trustworthy first; none of a file of another kind.

    Raises InvalidMedia for a damaged file.
    """
    path = Path(path)
    require_file(path)
    with path.open("rb") as file, _naming(path):
        kind = _kind(file.read(_HEAD_BYTES))
        file.seek(0)
        for found in _found(file, kind):
            text = xmp.text_of(found) if isinstance(found, bytes) else found
            if text is not None:
                yield text


def _found(file: BinaryIO, kind: str | None) -> Iterator[bytes | str]:
    match kind:
        case "mp4":
            yield from boxes.embedded(file)
        case "png":
            yield chunks.text_of_png(file) or ""
        case "webp":
            yield chunks.packet_of_webp(file) or b""
        case "jpeg":
            yield chunks.packet_of_jpeg(file) or b""


def _kind(head: bytes) -> str | None:
    if head.startswith(chunks.PNG):
        return "png"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    return "mp4" if boxes.is_mp4(head) else None


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Puts the file's name before what is wrong with it."""
    try:
        yield
    except InvalidMedia as error:
        raise InvalidMedia(f"{path.name}: {error}") from error
