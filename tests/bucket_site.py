"""A storage on this machine that takes presigned uploads, and misbehaves when told to."""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECRET = "X-Amz-Signature=0123456789abcdef"


class BucketSite(ThreadingHTTPServer):
    """Keeps what is PUT in `files`. Each of `troubles` is used for one request, the first first:

    a number    is answered, after the body was read; or a number and the code of the error in the XML
    "early"     answers 403 before the body was read
    "reset"     hangs up in the middle of the body
    "silent"    reads everything and says nothing
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Put)
        self.files: dict[str, bytes] = {}
        self.headers: list[dict[str, str]] = []
        self.connections: set[tuple[str, int]] = set()
        self.troubles: list[int | str | tuple[int, str]] = []
        self.closing = threading.Event()
        #: set when a body has begun to come
        self.receiving = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def upload_url(self, key: str) -> str:
        return f"{self.address}/{key}?{SECRET}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Hanging up early is what these tests are about."""


class _Put(BaseHTTPRequestHandler):
    server: BucketSite

    def do_PUT(self) -> None:
        self.server.headers.append(dict(self.headers))
        self.server.connections.add(self.client_address)
        trouble = self.server.troubles.pop(0) if self.server.troubles else None
        size = int(self.headers["Content-Length"])
        if trouble == "early":
            self._answer(403, "<Error><Code>AccessDenied</Code><Message>secret-part</Message></Error>")
            return
        if trouble == "reset":
            self.rfile.read(size // 2)
            self.connection.close()
            return
        content = self._read(size)
        if trouble == "silent":
            self.server.closing.wait(30)
        elif isinstance(trouble, int | tuple):
            status, code = trouble if isinstance(trouble, tuple) else (trouble, "AccessDenied")
            self._answer(status, f"<Error><Code>{code}</Code><Message>secret-part</Message></Error>")
        elif self.headers.get("Content-MD5") not in (None, base64.b64encode(hashlib.md5(content).digest()).decode()):
            self._answer(400, "<Error><Code>BadDigest</Code></Error>")
        else:
            self.server.files[self.path.partition("?")[0].lstrip("/")] = content
            self._answer(200, "")

    def do_GET(self) -> None:
        key, _, query = self.path.lstrip("/").partition("?")
        content = self.server.files.get(key)
        if content is None or query != SECRET:
            self._answer(403, "")
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _read(self, size: int) -> bytes:
        content = b""
        while len(content) < size:
            block = self.rfile.read(min(65536, size - len(content)))
            self.server.receiving.set()
            if not block:
                break
            content += block
        return content

    def _answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(text.encode())
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def bucket_site() -> Iterator[BucketSite]:
    with BucketSite() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.closing.set()
            server.shutdown()
            thread.join()
