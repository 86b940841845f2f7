"""Is this a whole safetensors file? Read from its header alone, so that every use can afford to ask."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from source.errors import InvalidMedia
from Wan2GP.media.files import content_kind

#: the format's own limit
MAX_HEADER_BYTES = 100_000_000
#: bytes before the header: its length, a little-endian 64-bit number
PREFIX_BYTES = 8
GB = 1024**3

_DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64,
}  # fmt: skip
_TITLE = re.compile(rb"<title[^>]*>\s*([^<]{1,200})", re.IGNORECASE)


def check_lora(path: Path, max_gb: float) -> None:
    """Raises InvalidMedia, without the file's name, unless the file is a whole safetensors file with tensors in it.

    The offsets must cover the file exactly (format: https://github.com/huggingface/safetensors, "Format").
    """
    size = path.stat().st_size
    if size > max_gb * GB:
        raise InvalidMedia(f"it has {size / GB:.1f} GB, more than {max_gb:g} GB (setting max_lora_gb)")
    refuse_foreign(path)
    with path.open("rb") as file:
        length = int.from_bytes(file.read(PREFIX_BYTES), "little")
        if PREFIX_BYTES + length > size:
            raise InvalidMedia(f"it is cut off within its header: it has {size:,} bytes")
        tensors = _tensors(file.read(length))
    covered = PREFIX_BYTES + length + _covered_bytes(tensors)
    if covered > size:
        raise InvalidMedia(f"it is cut off: it has {size:,} of {covered:,} bytes")
    if covered < size:
        raise InvalidMedia(f"it is damaged: {size - covered:,} bytes too many at its end")


def refuse_foreign(path: Path) -> None:
    """Raises InvalidMedia that says what the file is, when its first bytes are not those of a safetensors file."""
    with path.open("rb") as file:
        prefix = file.read(PREFIX_BYTES + 1)
    length = int.from_bytes(prefix[:PREFIX_BYTES], "little")
    if len(prefix) <= PREFIX_BYTES or prefix[PREFIX_BYTES:] != b"{" or not 2 <= length <= MAX_HEADER_BYTES:
        raise InvalidMedia(f"it is {_described(path)}, not a safetensors file")


def _described(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(4096)
    if not head:
        return "empty (0 bytes)"
    kind = content_kind(path)
    if kind == "an HTML page" and (title := _TITLE.search(head)):
        return f"an HTML page titled {title[1].decode(errors='replace').strip()[:80]!r}"
    if kind == "text" and head.lstrip()[:1] in (b"{", b"["):
        return f"JSON ({head.decode(errors='replace').strip()[:80]})"
    if kind == "text" and head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer without the file it points to"
    return kind


def _tensors(header: bytes) -> list[tuple[int, int]]:
    """(begin, end) of each tensor in the file's data, by position."""
    try:
        entries = json.loads(header)
    except (ValueError, RecursionError):
        raise InvalidMedia("it is damaged: its header is not JSON") from None
    tensors = [_span(name, entry) for name, entry in entries.items() if name != "__metadata__"]
    if not tensors:
        raise InvalidMedia("it holds no tensors")
    return sorted(tensors)


def _span(name: str, entry: Any) -> tuple[int, int]:
    try:
        begin, end = entry["data_offsets"]
        bits = math.prod(entry["shape"]) * _DTYPE_BITS.get(entry["dtype"], 0)
        sound = all(type(number) is int and number >= 0 for number in (begin, end, *entry["shape"])) and begin <= end
    except (KeyError, TypeError, ValueError):
        sound = False
    if not sound or (bits and bits != 8 * (end - begin)):
        raise InvalidMedia(f"it is damaged: its header says nothing sensible of the tensor {name[:80]!r}")
    return begin, end


def _covered_bytes(tensors: list[tuple[int, int]]) -> int:
    """The end of the last tensor, when each begins where the one before it ends."""
    position = 0
    for begin, end in tensors:
        if begin != position:
            raise InvalidMedia("it is damaged: its tensors overlap or leave gaps")
        position = end
    return position
