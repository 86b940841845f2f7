"""PNG, WebP and JPEG files are rewritten around their pixels: a text comes in, no pixel changes.

PNG    an iTXt chunk "Comment" behind the header      (PNG specification, 11.3.3.4)
WebP   a chunk "XMP " at the end, VP8X at the start   (WebP container specification)
JPEG   APP1 segments behind the start                 (XMP specification part 3, 1.1.3)
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from Wan2GP.errors import InvalidMedia
from Wan2GP.media.xmp import MAX_TEXT_BYTES

PNG = b"\x89PNG\r\n\x1a\n"
_COMMENT = b"Comment"
_COPY_BYTES = 1 << 20

_XMP_FLAG, _ALPHA_FLAG = 0x04, 0x10
_VP8X_BYTES = 10

_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_MORE_XMP = b"http://ns.adobe.com/xmp/extension/\0"
#: bytes of a JPEG segment beside its marker and length
_SEGMENT_BYTES = 65533
_MORE_BYTES = _SEGMENT_BYTES - len(_MORE_XMP) - 40


def _copied(source: BinaryIO, target: BinaryIO, count: int | None) -> None:
    """Copy `count` bytes, or all that are left. Raises InvalidMedia when there are fewer."""
    while count is None or count:
        piece = source.read(_COPY_BYTES if count is None else min(count, _COPY_BYTES))
        if not piece:
            if count is None:
                return
            raise InvalidMedia("it is cut off")
        target.write(piece)
        if count is not None:
            count -= len(piece)


# ---- PNG


def embed_png(source: BinaryIO, target: BinaryIO, text: str) -> None:
    """Write the PNG with `text` as its comment; earlier comments are left out. Raises InvalidMedia."""
    target.write(source.read(len(PNG)))
    for kind, size in _png_chunks(source):
        if _is_comment(kind, source):
            source.seek(size + 4, 1)
            continue
        target.write(struct.pack(">I4s", size, kind))
        _copied(source, target, size + 4)
        if kind == b"IHDR":
            body = b"iTXt" + _COMMENT + bytes(5) + text.encode()
            target.write(struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)))
        if kind == b"IEND":
            return
    raise InvalidMedia("it is cut off")


def text_of_png(source: BinaryIO) -> str | None:
    """The comment of a PNG, when it is not compressed. Raises InvalidMedia."""
    source.seek(len(PNG))
    for kind, size in _png_chunks(source):
        if kind == b"iTXt" and size <= MAX_TEXT_BYTES and _is_comment(kind, source):
            body = source.read(size)
            return body[len(_COMMENT) + 5 :].decode(errors="replace")
        if kind == b"IEND":
            return None
        source.seek(size + 4, 1)
    return None


def _png_chunks(source: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """(kind, bytes) of each chunk; the file stands at its content."""
    while len(head := source.read(8)) == 8:
        size, kind = struct.unpack(">I4s", head)
        yield kind, size


def _is_comment(kind: bytes, source: BinaryIO) -> bool:
    if kind not in (b"iTXt", b"tEXt", b"zTXt"):
        return False
    begun = source.tell()
    keyword = source.read(len(_COMMENT) + 1)
    source.seek(begun)
    return keyword == _COMMENT + b"\0"


# ---- WebP


def embed_webp(source: BinaryIO, target: BinaryIO, packet: bytes) -> None:
    """Write the WebP with the XMP packet; an earlier one is left out. Raises InvalidMedia."""
    kept = [chunk for chunk in _riff_chunks(source) if chunk[0] != b"XMP "]
    if not kept:
        raise InvalidMedia("it is cut off")
    target.write(b"RIFF\0\0\0\0WEBP")
    for kind, start, size in kept:
        source.seek(start)
        if kind == b"VP8X":
            head = bytearray(source.read(size))
            if size < _VP8X_BYTES:
                raise InvalidMedia("its header is cut off")
            head[0] |= _XMP_FLAG
            target.write(_chunk(kind, bytes(head)))
            continue
        if start == kept[0][1]:
            target.write(_chunk(b"VP8X", _extended_header(kind, source.read(min(size, 16)))))
            source.seek(start)
        target.write(struct.pack("<4sI", kind, size))
        _copied(source, target, size)
        target.write(bytes(size % 2))
    target.write(_chunk(b"XMP ", packet))
    total = target.tell()
    target.seek(4)
    target.write(struct.pack("<I", total - 8))


def packet_of_webp(source: BinaryIO) -> bytes | None:
    """The XMP packet of a WebP. Raises InvalidMedia."""
    for kind, start, size in _riff_chunks(source):
        if kind == b"XMP " and size <= MAX_TEXT_BYTES:
            source.seek(start)
            return source.read(size)
    return None


def _riff_chunks(source: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start of the content, bytes) of each chunk."""
    end = source.seek(0, 2)
    source.seek(4)
    declared = 8 + int.from_bytes(source.read(4), "little")
    position = 12
    while position + 8 <= min(declared, end):
        source.seek(position)
        kind, size = struct.unpack("<4sI", source.read(8))
        if position + 8 + size > end:
            raise InvalidMedia("it is cut off")
        yield kind, position + 8, size
        position += 8 + size + size % 2


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack("<4sI", kind, len(content)) + content + bytes(len(content) % 2)


def _extended_header(kind: bytes, data: bytes) -> bytes:
    """VP8X for a file that has none: its size is read from the first bytes of the picture."""
    flags = _XMP_FLAG
    if kind == b"VP8 " and data[3:6] == b"\x9d\x01\x2a" and len(data) >= 10:
        width, height = (value & 0x3FFF for value in struct.unpack_from("<HH", data, 6))
    elif kind == b"VP8L" and data[:1] == b"\x2f":
        bits = int.from_bytes(data[1:5], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        flags |= _ALPHA_FLAG if bits >> 28 & 1 else 0
    else:
        raise InvalidMedia("its first chunk is no picture")
    if not width or not height:
        raise InvalidMedia("its picture has no size")
    return bytes([flags, 0, 0, 0]) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")


# ---- JPEG


def embed_jpeg(source: BinaryIO, target: BinaryIO, packet: bytes, whole: bytes) -> None:
    """Write the JPEG with `whole`, an XMP packet, in segments of XMP; earlier ones are left out.

    What does not fit into one segment goes into extension segments, of which the standard packet, `packet`, holds the
    digest where it says GUID. Raises InvalidMedia.
    """
    target.write(source.read(2))
    written = False
    for marker, data in _segments(source):
        if not written and marker != 0xE0:  # JFIF stands first
            _write_xmp(target, packet, whole)
            written = True
        if marker == 0xDA:
            target.write(_segment(marker, data))
            _copied(source, target, None)
            return
        if not (marker == 0xE1 and data.startswith((_XMP, _MORE_XMP))):
            target.write(_segment(marker, data))
    raise InvalidMedia("it is cut off")


def _write_xmp(target: BinaryIO, packet: bytes, whole: bytes) -> None:
    if len(_XMP) + len(whole) <= _SEGMENT_BYTES:
        target.write(_segment(0xE1, _XMP + whole))
        return
    whole = whole[whole.index(b"<x:xmpmeta") : whole.rindex(b"<?xpacket")]  # extension segments hold no wrapper
    guid = hashlib.md5(whole, usedforsecurity=False).hexdigest().upper().encode()
    target.write(_segment(0xE1, _XMP + packet.replace(b"GUID", guid)))
    for start in range(0, len(whole), _MORE_BYTES):
        place = guid + struct.pack(">II", len(whole), start)
        target.write(_segment(0xE1, _MORE_XMP + place + whole[start : start + _MORE_BYTES]))


def packet_of_jpeg(source: BinaryIO) -> bytes | None:
    """The XMP packet of a JPEG, put together from its extension segments when it has some. Raises InvalidMedia."""
    source.seek(2)
    first, more = None, bytearray()
    for marker, data in _segments(source):
        if marker == 0xE1 and data.startswith(_XMP):
            first = data[len(_XMP) :]
        elif marker == 0xE1 and data.startswith(_MORE_XMP) and len(more) <= MAX_TEXT_BYTES:
            more += data[len(_MORE_XMP) + 40 :]
        if marker == 0xDA:
            break
    return bytes(more) or first


def _segments(source: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """(marker, content) of each segment, up to the start of the picture. Raises InvalidMedia."""
    while True:
        lead = source.read(2)
        while lead == b"\xff\xff":  # fill bytes
            lead = b"\xff" + source.read(1)
        size = source.read(2)
        count = int.from_bytes(size, "big") - 2
        if len(lead) < 2 or lead[0] != 0xFF or count < 0:
            raise InvalidMedia("its segments are damaged")
        data = source.read(count)
        if len(data) < count:
            raise InvalidMedia("it is cut off")
        yield lead[1], data


def _segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data
