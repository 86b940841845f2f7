"""A web server on this machine that serves LoRA files, well or badly, and remembers what was asked of it."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SLICE_BYTES = 64 * 1024


def lora_bytes(value: int = 1, floats: int = 1024) -> bytes:
    """A safetensors file with one tensor of `floats` F32 numbers, all of whose bytes are `value`."""
    data = bytes([value]) * (4 * floats)
    tensor = {"dtype": "F32", "shape": [floats], "data_offsets": [0, len(data)]}
    header = json.dumps({"__metadata__": {"format": "pt"}, "lora_A.weight": tensor}).encode()
    return len(header).to_bytes(8, "little") + header + data


def put_lora(path: Path, content: bytes | None = None) -> Path:
    """A LoRA that the user put there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(lora_bytes() if content is None else content)
    return path


@dataclass
class Served:
    """One file, and what its server does with it."""

    content: bytes
    etag: str = '"v1"'
    #: bodies are cut off after so many bytes, as often as there are numbers
    cuts: list[int] = field(default_factory=list)
    #: statuses that come first
    statuses: list[int] = field(default_factory=list)
    ranges: bool = True
    #: sends a range although If-Range names another version
    careless: bool = False
    #: whose Authorization header it wants
    token: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    #: where it lies instead
    moved_to: str = ""
    #: sends the first half, then waits until the site closes
    stuck: bool = False
    #: sends the second half a little at a time
    slow: bool = False


@dataclass
class Request:
    path: str
    range: str | None
    authorization: str | None
    #: bytes of the body that were sent
    sent: int = 0


class LoRASite(ThreadingHTTPServer):
    """Files by path, and what was asked for."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Page)
        self.files: dict[str, Served] = {}
        self.requests: list[Request] = []
        self.closing = threading.Event()
        #: set when half of a stuck file was sent
        self.waiting = threading.Event()

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up early are what these tests are about."""

    def add(self, path: str, content: bytes | None = None, **behaviour: object) -> str:
        """Serve a file; returns its URL."""
        self.files[path] = Served(lora_bytes() if content is None else content, **behaviour)  # type: ignore[arg-type]
        return self.url(path)

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.server_address[1]}{path}"

    def asked(self, path: str) -> list[Request]:
        return [request for request in list(self.requests) if request.path == path]


class _Page(BaseHTTPRequestHandler):
    server: LoRASite

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.request_made = Request(path, self.headers.get("Range"), self.headers.get("Authorization"))
        self.server.requests.append(self.request_made)
        self.close_connection = True
        self._answer(self.server.files.get(path))

    def _answer(self, file: Served | None) -> None:
        if file is None:
            return self._status(404)
        if file.statuses:
            return self._status(file.statuses.pop(0))
        if file.token and self.headers.get("Authorization") != f"Bearer {file.token}":
            return self._status(401)
        if file.moved_to:
            self.send_response(302)
            return self._headers(file.headers | {"Location": file.moved_to, "Content-Length": "0"})
        return self._file(file)

    def _file(self, file: Served) -> None:
        total, start = len(file.content), self._start(file)
        headers = {"Content-Length": str(total - start), "ETag": file.etag} | file.headers
        if start >= total:
            return self._status(416)
        if start:
            headers["Content-Range"] = f"bytes {start}-{total - 1}/{total}"
        self.send_response(206 if start else 200)
        self._headers({name: value for name, value in headers.items() if value})
        return self._body(file, file.content[start:])

    def _start(self, file: Served) -> int:
        asked = self.headers.get("Range")
        same = file.careless or self.headers.get("If-Range") in (None, file.etag, file.headers.get("Last-Modified"))
        return int(asked.removeprefix("bytes=").rstrip("-")) if asked and file.ranges and same else 0

    def _body(self, file: Served, body: bytes) -> None:
        if file.cuts:
            body = body[: file.cuts.pop(0)]
        if file.stuck:
            body = body[: len(body) // 2]
        for start in range(0, len(body), SLICE_BYTES):
            if file.slow and start >= len(body) // 2:
                self.server.waiting.set()
                self.server.closing.wait(0.05)
            piece = body[start : start + SLICE_BYTES]
            self.request_made.sent += len(piece)
            self.wfile.write(piece)
        if file.stuck:
            self.server.waiting.set()
            self.server.closing.wait(30)

    def _status(self, status: int) -> None:
        self.send_error(status)

    def _headers(self, headers: dict[str, str]) -> None:
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@contextmanager
def serving() -> Iterator[LoRASite]:
    """A site for as long as the block lasts."""
    site = LoRASite()
    thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield site
    finally:
        site.closing.set()
        site.shutdown()
        thread.join()
        site.server_close()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
