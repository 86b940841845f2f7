"""A proxy in front of the Edge Functions that a test breaks: it acts before a request goes on, loses answers, lets
nothing through; and counts what passes."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import requests


class EdgeProxy:
    """Passes each POST on to `target`, an address without a path."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.url = ""
        #: called once, before the next request for a function goes on
        self.before: dict[str, Callable[[], object]] = {}
        #: functions whose next answer nobody gets to see
        self.lost_answers: list[str] = []
        #: function (and operation) and status of each answer; 0 where there was none
        self.answers: list[tuple[str, int]] = []
        #: set: nothing gets through
        self.cut = threading.Event()
        #: set: what is asked is heard, and answered never; and which functions were asked since
        self.silent = threading.Event()
        self.unanswered: list[str] = []
        self.closing = threading.Event()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Pass one request on, and its answer back. Without an answer the connection just ends."""
        body = request.rfile.read(int(request.headers["Content-Length"]))
        function = request.path.rpartition("/")[2]
        asked = f"{function}:{json.loads(body)['operation']}" if function == "task-store" else function
        self.before.pop(function, lambda: None)()
        if self.silent.is_set():
            self.unanswered.append(asked)
            self.closing.wait()
        if self.cut.is_set() or self.closing.is_set():
            request.close_connection = True
            return
        headers = {name: request.headers[name] for name in ("Authorization", "Content-Type")}
        try:
            reply = requests.post(self.target + request.path, data=body, headers=headers, timeout=30)
        except requests.RequestException:
            self.answers.append((asked, 0))
            request.close_connection = True
            return
        self.answers.append((asked, reply.status_code))
        if function in self.lost_answers:
            self.lost_answers.remove(function)
            request.close_connection = True
            return
        request.send_response(reply.status_code)
        request.send_header("Content-Type", reply.headers.get("Content-Type", "application/json"))
        request.send_header("Content-Length", str(len(reply.content)))
        request.end_headers()
        request.wfile.write(reply.content)

    def statuses(self, function: str) -> list[int]:
        """Of the answers of one function."""
        return [status for name, status in self.answers if name == function]


@contextmanager
def edge_proxy(target: str) -> Iterator[EdgeProxy]:
    """A running proxy."""
    proxy = EdgeProxy(target)

    class Door(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            proxy.answer(self)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Door) as server:
        proxy.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.closing.set()
            server.shutdown()
            thread.join()
