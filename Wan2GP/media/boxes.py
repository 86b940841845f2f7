"""MP4 files are rewritten around their media data: a comment and an XMP packet come in, no sample changes.

Boxes and their offsets: ISO/IEC 14496-12. The comment stands where iTunes has it (moov/udta/meta/ilst/©cmt), which
FFmpeg reads as `comment`; the XMP packet is a `uuid` box at the top (ISO 16684-3). Sample offsets (stco, co64) are
absolute, so they move with what is put before them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from Wan2GP.errors import InvalidMedia
from Wan2GP.media.xmp import MAX_TEXT_BYTES

XMP_UUID = bytes.fromhex("BE7ACFCB97A942E89C71999491E3AFAC")
COMMENT = b"\xa9cmt"
#: the brand of files in which comments look otherwise
_QUICKTIME = b"qt  "
#: a table of contents larger than this is no table of contents
MAX_MOOV_BYTES = 512 * 1024 * 1024
#: more boxes at the top than a day of fragments has: all of them are held in memory
MAX_BOXES = 200_000
_COPY_BYTES = 1 << 20
_LARGEST_OFFSET = 2**32 - 1
#: boxes with absolute offsets of other kinds, or whose samples are found in another way: nothing is put before these
_OTHER_OFFSETS = frozenset({b"moof", b"meta", b"mfra"})
_OTHER_OFFSETS_INSIDE = frozenset({b"mvex", b"saio"})
#: the way from a table of contents to the tables of samples
_TO_TABLES = (b"trak", b"mdia", b"minf", b"stbl")

#: kind and content of a table of sample offsets -> what they become
TableChange = Callable[[bytes, bytes], tuple[bytes, bytes]]


@dataclass(frozen=True)
class Place:
    """A box at the top of a file."""

    kind: bytes
    start: int
    size: int
    #: bytes before its content
    header: int
    #: the first 16 bytes of its content: which one a `uuid` box is
    lead: bytes
    #: it says of itself that it goes to the end of the file
    open_ended: bool

    @property
    def is_xmp(self) -> bool:
        return self.kind == b"uuid" and self.lead == XMP_UUID


def is_mp4(head: bytes) -> bool:
    """Whether the first 16 bytes of a file are those of an MP4 or QuickTime video, not of a picture (HEIC, AVIF)."""
    pictures = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1", b"avif", b"avis")
    return head[4:8] == b"ftyp" and head[8:12] not in pictures


def embed(source: BinaryIO, target: BinaryIO, comment: str, packet: bytes) -> None:
    """Write the MP4 `source` to `target` with the comment and the XMP packet; earlier ones of both are left out.

    The order of the boxes stays, so a table of contents that stood first still does. Of a fragmented file, and of one
    with other absolute offsets, only the packet is added, at its end. Raises InvalidMedia when the boxes make no sense.
    """
    places = list(_places(source))
    moov = next((place for place in places if place.kind == b"moov"), None)
    if moov is None or moov.size > MAX_MOOV_BYTES:
        raise InvalidMedia("it has no table of contents (moov)")
    extra = _box(b"uuid", XMP_UUID + packet)
    kept = [place for place in places if not place.is_xmp]
    content = _content(source, moov)
    if any(place.kind in _OTHER_OFFSETS for place in places) or _holds(content, _OTHER_OFFSETS_INSIDE):
        _write_behind(source, target, places, extra)
        return
    if places[0].lead[:4] != _QUICKTIME:
        content = _with_comment(content, comment)
    if places[-1].start + places[-1].size + len(extra) + len(content) > _LARGEST_OFFSET:
        content = _tables(content, _long)
    starts = _new_starts(kept, moov, len(_box(b"moov", content)) + len(extra))
    table = _box(b"moov", _moved(content, kept, starts))
    for place in kept:
        if place is moov:
            target.write(table + extra)
        else:
            _copy(source, target, place)


def embedded(source: BinaryIO) -> Iterator[bytes | str]:
    """The XMP packets (bytes) and the comments (text) of an MP4 file. Raises InvalidMedia."""
    comments: list[str] = []
    for place in _places(source):
        if place.is_xmp and place.size <= MAX_TEXT_BYTES:
            yield _content(source, place)[16:]
        elif place.kind == b"moov" and place.size <= MAX_MOOV_BYTES:
            comments += _comments(_content(source, place))
    yield from comments


# ---- the top of the file


def _places(file: BinaryIO) -> Iterator[Place]:
    end = file.seek(0, 2)
    start = count = 0
    while start < end:
        count += 1
        file.seek(start)
        head = file.read(32)
        written, kind = int.from_bytes(head[:4], "big"), head[4:8]
        header = 16 if written == 1 else 8
        size = int.from_bytes(head[8:16], "big") if written == 1 else written or end - start
        if len(kind) < 4 or size < header or start + size > end or count > MAX_BOXES:
            raise InvalidMedia("it is cut off, or its boxes are damaged")
        yield Place(kind, start, size, header, head[header : header + 16], written == 0)
        start += size


def _content(file: BinaryIO, place: Place) -> bytes:
    file.seek(place.start + place.header)
    return file.read(place.size - place.header)


def _new_starts(kept: Sequence[Place], moov: Place, moov_bytes: int) -> list[int]:
    starts, position = [], 0
    for place in kept:
        starts.append(position)
        position += moov_bytes if place is moov else place.size
    return starts


def _copy(source: BinaryIO, target: BinaryIO, place: Place) -> None:
    source.seek(place.start)
    left = place.size
    while left:
        piece = source.read(min(left, _COPY_BYTES))
        if not piece:
            raise InvalidMedia("it was cut off while it was read")
        target.write(piece)
        left -= len(piece)


def _write_behind(source: BinaryIO, target: BinaryIO, places: Sequence[Place], extra: bytes) -> None:
    """Everything stays where it is; an earlier packet becomes free space."""
    if places[-1].open_ended:
        raise InvalidMedia("its last box has no end, so that nothing can follow it")
    for place in places:
        begun = target.tell()
        _copy(source, target, place)
        if place.is_xmp:
            target.seek(begun + 4)
            target.write(b"free")
            target.seek(0, 2)
    target.write(extra)


# ---- the table of contents


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def _children(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(kind, content) of each box inside. Four zeros may end a list (QuickTime). Raises InvalidMedia."""
    position = 0
    while position + 8 <= len(content):
        size, kind = struct.unpack_from(">I4s", content, position)
        header = 8
        if size == 1 and position + 16 <= len(content):
            size, header = int.from_bytes(content[position + 8 : position + 16], "big"), 16
        size = size or len(content) - position
        if size < header or position + size > len(content):
            raise InvalidMedia("its table of contents is damaged")
        yield kind, content[position + header : position + size]
        position += size


def _with_comment(moov: bytes, comment: str) -> bytes:
    """The same table of contents with this comment, unless the place of comments holds something else."""
    boxes = list(_children(moov))
    user_data = next((content for kind, content in boxes if kind == b"udta"), b"")
    others = b"".join(_box(kind, content) for kind, content in boxes if kind != b"udta")
    return others + _box(b"udta", _commented(user_data, comment))


def _commented(user_data: bytes, comment: str) -> bytes:
    boxes = list(_children(user_data))
    meta = next((content for kind, content in boxes if kind == b"meta"), None)
    if meta is not None and not _is_item_list(meta):
        return user_data
    old = [content for kind, content in _children(meta[4:]) if kind == b"ilst"] if meta else []
    items = [(kind, content) for ilst in old for kind, content in _children(ilst) if kind != COMMENT]
    data = _box(b"data", struct.pack(">II", 1, 0) + comment.encode())
    listed = b"".join(_box(kind, content) for kind, content in [*items, (COMMENT, data)])
    handler = _box(b"hdlr", struct.pack(">II4s4sIIx", 0, 0, b"mdir", b"appl", 0, 0))
    kept = b"".join(_box(kind, content) for kind, content in boxes if kind != b"meta")
    return kept + _box(b"meta", bytes(4) + handler + _box(b"ilst", listed))


def _is_item_list(meta: bytes) -> bool:
    return any(kind == b"hdlr" and content[8:12] == b"mdir" for kind, content in _children(meta[4:]))


def _comments(moov: bytes) -> Iterator[str]:
    inside = [content for kind, content in _children(moov) if kind == b"udta"]
    metas = [content for each in inside for kind, content in _children(each) if kind == b"meta"]
    lists = [box for meta in metas if _is_item_list(meta) for kind, box in _children(meta[4:]) if kind == b"ilst"]
    for items in lists:
        for kind, item in _children(items):
            if kind == COMMENT:
                yield from (data[8:].decode(errors="replace") for name, data in _children(item) if name == b"data")


def _tables(content: bytes, change: TableChange, way: Sequence[bytes] = _TO_TABLES) -> bytes:
    """The same, with each table of sample offsets changed; they stand at the end of the way."""
    made = []
    for kind, inner in _children(content):
        if way and kind == way[0]:
            inner = _tables(inner, change, way[1:])
        elif not way and kind in (b"stco", b"co64"):
            kind, inner = change(kind, inner)
        made.append(_box(kind, inner))
    return b"".join(made)


def _long(kind: bytes, content: bytes) -> tuple[bytes, bytes]:
    """The same table with 64 bits an offset."""
    return b"co64", content[:8] + _offsets(kind, content).astype(">u8").tobytes()


def _moved(moov: bytes, kept: Sequence[Place], starts: Sequence[int]) -> bytes:
    """The same table of contents for samples whose boxes begin at `starts` instead."""
    begins = np.array([place.start for place in kept], np.int64)
    shifts = np.array(starts, np.int64) - begins
    ends = np.array([place.start + place.size for place in kept], np.int64)

    def moved(kind: bytes, content: bytes) -> tuple[bytes, bytes]:
        offsets = _offsets(kind, content)
        boxes = np.searchsorted(begins, offsets, side="right") - 1
        if (offsets >= ends[boxes]).any():
            raise InvalidMedia("its table of contents names bytes outside of its boxes")
        dtype = ">u4" if kind == b"stco" else ">u8"
        return kind, content[:8] + (offsets + shifts[boxes]).astype(dtype).tobytes()

    return _tables(moov, moved)


def _offsets(kind: bytes, content: bytes) -> NDArray[np.int64]:
    width = 4 if kind == b"stco" else 8
    count = int.from_bytes(content[4:8], "big")
    if len(content) < 8 + count * width:
        raise InvalidMedia("its table of sample offsets is damaged")
    return np.frombuffer(content, f">u{width}", count, 8).astype(np.int64)


def _holds(content: bytes, wanted: frozenset[bytes], way: Sequence[bytes] = _TO_TABLES) -> bool:
    """Whether one of these boxes stands in a table of contents or on the way to its tables of samples."""
    return any(
        kind in wanted or (kind in way[:1] and _holds(inner, wanted, way[1:])) for kind, inner in _children(content)
    )
