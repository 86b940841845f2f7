"""One file on its way to a presigned address: streamed from disk, over a connection of its own."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import BinaryIO

import requests
from requests.auth import AuthBase

from source.errors import RefusedUpload, StorageUnavailable
from source.storage import OnSent, OnStop, never

#: longest silence while bytes are sent
SILENCE_S = 20.0
#: an upload gets so long, and what the slowest line that is waited for needs beside it
LEAST_S, SLOWEST_BYTES_PER_S = 120.0, 100_000
#: after the last byte the server may still have to bring the file to its place
SETTLING_S, SETTLING_BYTES_PER_S = 60.0, 20_000_000
_READ_BYTES = 1024 * 1024
#: statuses that a later try may not meet beside those from 500 on: time-out, too early, too many requests; and those
#: from 500 on that say that the storage cannot do it at all
_PASSING, _LASTING = frozenset({408, 425, 429}), frozenset({501, 505})
#: error codes of S3 and of storages that speak like it, whose status alone would be taken for a refusal
#: (https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html#ErrorCodeList)
_PASSING_CODES = frozenset(
    {
        # the line: too slow, or cut off before the last byte
        "RequestTimeout", "IncompleteBody", "RequestTimeoutException",
        # too much at once; several of them come with 400 or 403
        "SlowDown", "ServiceUnavailable", "InternalError", "Throttling", "ThrottlingException", "ThrottledException",
        "RequestThrottled", "RequestThrottledException", "RequestLimitExceeded", "BandwidthLimitExceeded",
        "TooManyRequests", "TooManyRequestsException", "LimitExceededException",
        # another request changes the same key or bucket just now
        "OperationAborted", "ConditionalRequestConflict",
        # clocks apart by more than 15 minutes: somebody sets them right, and the result waits
        "RequestTimeTooSkewed",
    }
)  # fmt: skip


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
    *, on_stop: OnStop = never, settling_s: float = SETTLING_S,
) -> None:  # fmt: skip
    """PUT a file to a presigned address, whose query is a secret: no message holds it.

    `on_sent` is called for each MiB, and when `on_stop` tells that it may raise to stop: a thread of its own sends, and
    is left to itself then. After the last byte the storage gets `settling_s`, and more for a large file.
    Raises StorageUnavailable, RefusedUpload, OSError.
    """
    news: SimpleQueue[None] = SimpleQueue()
    body = _Body(path.open("rb"), size_bytes, lambda: news.put(None))
    timeouts = (SILENCE_S, settling_s + size_bytes / SETTLING_BYTES_PER_S)
    answer: Future[None] = Future()

    def send() -> None:
        try:
            with body:
                _put(path.name, url, headers, body, timeouts)
        except BaseException as error:  # noqa: BLE001 - it is raised below, on the thread that waits
            answer.set_exception(error)
        else:
            answer.set_result(None)

    answer.add_done_callback(lambda _: news.put(None))
    on_stop(lambda: news.put(None))
    threading.Thread(target=send, name="upload", daemon=True).start()
    try:
        while not answer.done():
            on_sent(body.sent, size_bytes)
            news.get()
    except BaseException:
        body.stop()
        raise
    answer.result()
    on_sent(size_bytes, size_bytes)


def _put(name: str, url: str, headers: Mapping[str, str], body: _Body, timeouts: tuple[float, float]) -> None:
    with requests.Session() as session:
        try:
            answer = session.put(
                url, data=body, headers=dict(headers) | {"Connection": "close"}, timeout=timeouts,
                allow_redirects=False, auth=_Presigned(),
            )  # fmt: skip
        except requests.Timeout:
            raise StorageUnavailable(f"{name} could not be uploaded: the storage was silent for too long") from None
        except requests.RequestException as error:
            reason = type(error).__name__
            raise StorageUnavailable(f"{name} could not be uploaded: the connection failed ({reason})") from None
        with answer:
            _refuse_status(
                answer, f"{name} could not be uploaded", f"the storage refused {name} ({_size_in_words(answer)})"
            )


def remove(url: str, name: str) -> None:
    """DELETE what lies at a presigned address; `name` is for messages. Raises StorageUnavailable, RefusedUpload."""
    with requests.Session() as session:
        try:
            answer = session.delete(url, timeout=SILENCE_S, allow_redirects=False, auth=_Presigned())
        except requests.RequestException as error:
            reason = type(error).__name__
            raise StorageUnavailable(f"{name} could not be removed: the connection failed ({reason})") from None
        with answer:
            _refuse_status(answer, f"{name} could not be removed", f"{name} could not be removed")


def _refuse_status(answer: requests.Response, later: str, never: str) -> None:
    """Raises StorageUnavailable or RefusedUpload for an answer that is no success; the texts say of what."""
    status, code = answer.status_code, _code(answer)
    if 200 <= status < 300:
        return
    told = f"the storage answered {status} {code}".strip()
    passes = status in _PASSING or (status >= 500 and status not in _LASTING)
    if passes or code in _PASSING_CODES:
        raise StorageUnavailable(f"{later}: {told}")
    raise RefusedUpload(f"{never}: {told}")


def _size_in_words(answer: requests.Response) -> str:
    """How much was to be uploaded, for people."""
    size = answer.request.headers.get("Content-Length", "0") if answer.request else "0"
    return f"{int(size) / 1e6:.1f} MB"


def _code(answer: requests.Response) -> str:
    """The code of an S3 error (`<Code>…</Code>`), or "". The rest of the answer may repeat the request, secrets too."""
    _, found, rest = answer.text[:4096].partition("<Code>")
    code = rest.partition("</Code>")[0]
    return code if found and code.isalnum() else ""


class _Presigned(AuthBase):
    """The address is proof enough; without this the HTTP library would look for a password in ~/.netrc."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


class _Body:
    """A file that says how far it was read, and raises when that takes too long. Its length makes it no chunked body,
    which S3 does not take."""

    def __init__(self, file: BinaryIO, size_bytes: int, on_mebibyte: Callable[[], None]) -> None:
        self._file = file
        self._size = size_bytes
        self._on_mebibyte = on_mebibyte
        self._deadline = time.monotonic() + LEAST_S + size_bytes / SLOWEST_BYTES_PER_S
        #: bytes that were read
        self.sent = 0

    def __enter__(self) -> None:
        """Open already."""

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return self._size

    def read(self, count: int = -1) -> bytes:
        if time.monotonic() > self._deadline:
            raise requests.Timeout()
        block = self._file.read(count)
        before, self.sent = self.sent, self.sent + len(block)
        if before // _READ_BYTES < self.sent // _READ_BYTES:
            self._on_mebibyte()
        return block

    def stop(self) -> None:
        """No further byte is sent."""
        self._deadline = 0.0
