"""A web server on this machine in the place of a project's Edge Functions: answers as told, remembers questions."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "sbp_ATokenOfThisTest0123456789abcdef"


@dataclass
class Answer:
    """What one question gets."""

    body: Any = field(default_factory=dict)
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    #: instead of an answer: "silence" until the site closes, "reset" of the connection, "half" of what was promised
    fault: str = ""


@dataclass
class Question:
    """What was asked."""

    function: str
    headers: dict[str, str]
    body: dict[str, Any]


class FunctionsSite(ThreadingHTTPServer):
    """`answers`: one for each question of a function, the last for ever; by default {}."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Functions)
        self.answers: dict[str, list[Answer]] = {}
        self.questions: list[Question] = []
        self.connections = 0
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def answer(self, function: str, *answers: Answer) -> None:
        self.answers[function] = list(answers)

    def asked(self, function: str) -> list[Question]:
        return [question for question in self.questions if question.function == function]

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are no news."""

    def next_answer(self, function: str) -> Answer:
        given = self.answers.get(function, [Answer()])
        return given.pop(0) if len(given) > 1 else given[0]


class _Functions(BaseHTTPRequestHandler):
    server: FunctionsSite
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def log_message(self, *_: Any) -> None:
        """The tests say what matters."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        function = self.path.rsplit("/", 1)[-1]
        self.server.questions.append(Question(function, dict(self.headers), body))
        answer = self.server.next_answer(function)
        if answer.fault == "silence":
            self.server.closing.wait()
            self.close_connection = True
        elif answer.fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
        else:
            self.send(answer)

    def send(self, answer: Answer) -> None:
        content = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        self.send_response(answer.status)
        for name, value in ({"Content-Length": str(len(content))} | answer.headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content if answer.fault != "half" else content[: len(content) // 2])
        self.close_connection = answer.fault == "half"


@contextmanager
def functions_site() -> Iterator[FunctionsSite]:
    with FunctionsSite() as site:
        thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield site
        finally:
            site.closing.set()
            site.shutdown()
            thread.join()
