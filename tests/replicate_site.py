"""A web server on this machine that answers like Replicate's API, well or badly, and remembers what it was asked."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image

TOKEN = "r8_TheTokenOfThisTest0123456789"
MODEL = "black-forest-labs/flux-kontext-dev-lora"


#: what every edit of it shows
COLOUR = (200, 40, 40)


def webp() -> bytes:
    """A picture of one colour."""
    file = io.BytesIO()
    Image.fromarray(np.full((48, 64, 3), COLOUR, np.uint8)).save(file, "WEBP", lossless=True)
    return file.getvalue()


@dataclass
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Run:
    """One prediction."""

    id: str
    given: dict[str, Any]
    status: str = "starting"
    looks: int = 0


@dataclass
class Behaviour:
    """What the server does next."""

    #: looks at a prediction until it has succeeded; None: it never ends
    looks: int | None = 1
    #: how it ends
    ending: str = "succeeded"
    error: str | None = None
    #: the output's bytes, or what stands in `output` when it is no address of ours
    output: bytes = field(default_factory=webp)
    answer: Any = None
    #: (status, headers) of the answers that come first, by "METHOD path"
    first: dict[str, list[tuple[int, dict[str, str]]]] = field(default_factory=dict)


class ReplicateSite(ThreadingHTTPServer):
    """Predictions of one model, files, and outputs."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Api)
        self.behaviour = Behaviour()
        self.requests: list[Asked] = []
        self.runs: dict[str, Run] = {}
        self.lock = threading.Lock()
        self.looked_at = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are no news."""

    def asked(self, method: str, path: str) -> list[Asked]:
        return [each for each in list(self.requests) if each.method == method and each.path.startswith(path)]

    def begin(self, given: dict[str, Any]) -> Run:
        with self.lock:
            run = Run(f"prediction{len(self.runs) + 1}", given)
            self.runs[run.id] = run
            return run


class _Api(BaseHTTPRequestHandler):
    server: ReplicateSite
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """`requests` says it."""

    def do_GET(self) -> None:
        self.handle_it("GET")

    def do_POST(self) -> None:
        self.handle_it("POST")

    def handle_it(self, method: str) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = self.chunks()
        self.server.requests.append(Asked(method, self.path, dict(self.headers), body))
        first = self.server.behaviour.first.get(f"{method} {self.path}")
        if first:
            status, headers = first.pop(0)
            self.answer({"detail": "not now"}, status, headers)
        elif self.path.startswith("/made/"):
            self.send(self.server.behaviour.output, 200, {"Content-Type": "image/webp"})
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.answer({"title": "Unauthenticated", "detail": "You did not pass a valid token"}, 401)
        else:
            self.api(method, body)

    def chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def api(self, method: str, body: bytes) -> None:
        match method, self.path.strip("/").split("/"):
            case "POST", ["v1", "models", owner, name, "predictions"]:
                if f"{owner}/{name}" != MODEL:
                    return self.answer({"detail": "The requested resource could not be found."}, 404)
                given = json.loads(body)["input"]
                if not isinstance(given.get("prompt"), str):
                    return self.answer(
                        {"title": "Input validation failed", "detail": "- input: prompt is required"}, 422
                    )
                return self.tell(self.server.begin(given), 201)
            case "POST", ["v1", "files"]:
                address = f"{self.server.url}/v1/files/file1"
                return self.answer(stored(address), 201)
            case "GET", ["v1", "predictions", name] if name in self.server.runs:
                return self.look(self.server.runs[name])
            case "POST", ["v1", "predictions", name, "cancel"]:
                self.server.runs[name].status = "canceled"
                return self.tell(self.server.runs[name])
            case _:
                return self.answer({"detail": "The requested resource could not be found."}, 404)

    def look(self, run: Run) -> None:
        behaviour = self.server.behaviour
        run.looks += 1
        if run.status in ("starting", "processing"):
            over = behaviour.looks is not None and run.looks >= behaviour.looks
            run.status = behaviour.ending if over else "processing"
        self.tell(run)
        self.server.looked_at.set()

    def tell(self, run: Run, status: int = 200) -> None:
        behaviour = self.server.behaviour
        done = run.status == "succeeded"
        output = behaviour.answer if behaviour.answer is not None else f"{self.server.url}/made/{run.id}.webp"
        self.answer(
            {
                "id": run.id, "model": MODEL, "version": "hidden", "status": run.status, "input": run.given,
                "output": output if done else None, "error": behaviour.error if run.status == "failed" else None,
                "logs": f" {10 * run.looks}%|##  | {run.looks}/10 [00:01<00:09]" if run.looks else "",
                "metrics": None, "created_at": None, "started_at": None, "completed_at": None, "urls": {},
            },
            status,
        )  # fmt: skip

    def answer(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send(json.dumps(value).encode(), status, {"Content-Type": "application/json"} | (headers or {}))

    def send(self, body: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def stored(address: str) -> dict[str, Any]:
    """What the API says of a file that it took."""
    return {
        "id": "file1", "name": "image", "content_type": "image/png", "size": 1, "etag": "e", "checksums": {},
        "metadata": {}, "created_at": "", "expires_at": None, "urls": {"get": address},
    }  # fmt: skip


@contextmanager
def replicate_site() -> Iterator[ReplicateSite]:
    """A running one."""
    site = ReplicateSite()
    thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield site
    finally:
        site.shutdown()
        thread.join()
        site.server_close()
