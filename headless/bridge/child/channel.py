"""Messages between the worker and this interpreter: one JSON object a line, on a socket of their own.

Standard output is the checkout's: it prints what it likes.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

Message = dict[str, Any]


class Channel:
    """One end of the socket. Any thread may send; one thread receives."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._sending = threading.Lock()

    def send(self, message: Message) -> None:
        """Values that are no JSON are sent as text. Raises OSError when the other end is gone."""
        line = json.dumps(message, default=str).encode() + b"\n"
        with self._sending:
            self._connection.sendall(line)

    def messages(self) -> Iterator[Message]:
        """Each message as it comes, until the other end is closed."""
        with self._connection.makefile("rb") as lines:
            for line in lines:
                yield json.loads(line)
