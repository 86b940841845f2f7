"""One file on its way to a presigned address: streamed from disk, over a connection of its own."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import requests
from requests.auth import AuthBase

from source.errors import RefusedUpload, StorageUnavailable
from source.storage import OnSent

#: longest silence while bytes are sent
SILENCE_S = 20.0
#: an upload gets so long, and what the slowest line that is waited for needs beside it
LEAST_S, SLOWEST_BYTES_PER_S = 120.0, 100_000
#: after the last byte the server may still have to bring the file to its place
SETTLING_S, SETTLING_BYTES_PER_S = 60.0, 20_000_000
_READ_BYTES = 1024 * 1024
#: client errors that a later try may not meet: time-out, too early, too many requests
_PASSING = frozenset({408, 425, 429})


@dataclass(frozen=True)
class Measure:
    """What is known of a file before it is sent. Digests are hexadecimal."""

    size_bytes: int
    sha256: str
    md5: str


def measured(path: Path, check: Callable[[], None]) -> Measure:
    """Size and digests, in one reading. `check` is called between blocks and may raise. Raises OSError."""
    sha256, md5, size = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            check()
            sha256.update(block)
            md5.update(block)
            size += len(block)
    return Measure(size, sha256.hexdigest(), md5.hexdigest())


def upload(
    path: Path, url: str, headers: Mapping[str, str], size_bytes: int, on_sent: OnSent,
    *, settling_s: float = SETTLING_S,
) -> None:  # fmt: skip
    """PUT a file to a presigned address, whose query is a secret: no message holds it.

    `on_sent` is called as bytes are sent and may raise to stop; after the last one the storage gets `settling_s`, and
    more for a large file. Raises StorageUnavailable, RefusedUpload, OSError.
    """
    timeouts = (SILENCE_S, settling_s + size_bytes / SETTLING_BYTES_PER_S)
    with path.open("rb") as file, requests.Session() as session:
        body = _Body(file, size_bytes, on_sent)
        try:
            answer = session.put(
                url, data=body, headers=dict(headers) | {"Connection": "close"}, timeout=timeouts,
                allow_redirects=False, auth=_Presigned(),
            )  # fmt: skip
        except requests.Timeout:
            raise StorageUnavailable(
                f"{path.name} could not be uploaded: the storage was silent for too long"
            ) from None
        except requests.RequestException as error:
            reason = type(error).__name__
            raise StorageUnavailable(f"{path.name} could not be uploaded: the connection failed ({reason})") from None
        with answer:
            _refuse_status(answer, path.name)


def _refuse_status(answer: requests.Response, name: str) -> None:
    status = answer.status_code
    if status >= 500 or status in _PASSING:
        raise StorageUnavailable(f"{name} could not be uploaded: the storage answered {status}")
    if not 200 <= status < 300:
        raise RefusedUpload(
            f"the storage refused {name} ({size_in_words(answer)}): it answered {status}{_code(answer)}"
        )


def size_in_words(answer: requests.Response) -> str:
    """How much was to be uploaded, for people."""
    size = answer.request.headers.get("Content-Length", "0") if answer.request else "0"
    return f"{int(size) / 1e6:.1f} MB"


def _code(answer: requests.Response) -> str:
    """The code of an S3 error (`<Code>…</Code>`); the rest of the answer may repeat the request, secrets among it."""
    _, found, rest = answer.text[:4096].partition("<Code>")
    code = rest.partition("</Code>")[0]
    return f" {code}" if found and code.isalnum() else ""


class _Presigned(AuthBase):
    """The address is proof enough; without this the HTTP library would look for a password in ~/.netrc."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


class _Body:
    """A file that tells how far it was read, and raises when that takes too long. Its length makes it no chunked body,
    which S3 does not take."""

    def __init__(self, file: BinaryIO, size_bytes: int, on_sent: OnSent) -> None:
        self._file = file
        self._size = size_bytes
        self._on_sent = on_sent
        self._sent = 0
        self._deadline = time.monotonic() + LEAST_S + size_bytes / SLOWEST_BYTES_PER_S

    def __len__(self) -> int:
        return self._size

    def read(self, count: int = -1) -> bytes:
        if time.monotonic() > self._deadline:
            raise requests.Timeout()
        self._on_sent(self._sent, self._size)
        block = self._file.read(count)
        self._sent += len(block)
        return block
