"""What a file holds, in one number: of its streams, whatever its container says; or of its bytes."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import av

#: a file at one moment: path, bytes, time of change in nanoseconds
State = tuple[str, int, int]

_PIECE_BYTES = 4 << 20


def content_digest(path: Path) -> str:
    """SHA-256 over the packets of all streams; over the bytes of a file that is no video, image or sound.

    Containers carry random numbers and dates, so two runs that write the same frames write different files.
    Raises OSError when the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with av.open(str(path)) as container:
            for stream in container.streams:
                digest.update(f"{stream.type} {stream.codec_context.name} {stream.time_base}".encode())
                digest.update(stream.codec_context.extradata or b"")
            for packet in container.demux():
                digest.update(f"{packet.stream_index} {packet.pts} {packet.size}".encode())
                digest.update(bytes(packet))
    except (av.error.InvalidDataError, AttributeError):
        digest = hashlib.sha256(path.read_bytes())
    return digest.hexdigest()


def file_digest(path: Path, check: Callable[[], None] = lambda: None) -> str:
    """SHA-256 of a file's bytes, in hexadecimal. `check` is called between pieces and may raise to stop.

    Raises OSError when the file cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            check()
            digest.update(piece)
    return digest.hexdigest()


def state_of(path: Path) -> State:
    """What tells whether a file is still the same. Raises OSError when there is none."""
    status = path.stat()
    return str(path.resolve()), status.st_size, status.st_mtime_ns


class FileDigests:
    """Digests of files, each read once while it stays the same. Any thread may use it."""

    def __init__(self, limit: int = 4096) -> None:
        self._limit = limit
        self._known: OrderedDict[State, str] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, path: Path, check: Callable[[], None] = lambda: None) -> str:
        """`file_digest` of the file as it is now. Raises OSError."""
        state = state_of(path)
        with self._lock:
            if state in self._known:
                self._known.move_to_end(state)
                return self._known[state]
        digest = file_digest(path, check)
        self.remember(state, digest)
        return digest

    def remember(self, state: State, digest: str) -> None:
        """Take a digest for known; the least recently used one of too many is forgotten."""
        with self._lock:
            self._known[state] = digest
            while len(self._known) > self._limit:
                self._known.popitem(last=False)

    def known(self) -> dict[State, str]:
        """Every digest that is remembered."""
        with self._lock:
            return dict(self._known)
