"""The door to ComfyUI's websocket: what it tells of one client's prompts. A hint only; its history counts."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from contextlib import suppress
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import quote

from source.addresses import is_loopback

#: what a connection gets to be there: without it there is still the history
OPEN_S = 5.0
#: previews of pictures come this way too
MAX_MESSAGE_BYTES = 64 * 1024 * 1024


class Events:
    """Listens while it is entered. A connection that cannot be made, or breaks, is `lost` and no error."""

    def __init__(self, url: str, client_id: str) -> None:
        scheme, _, rest = url.partition("://")
        self._url = f"{'wss' if scheme == 'https' else 'ws'}://{rest}/ws?clientId={quote(client_id, safe='')}"
        self._proxy: Literal[True] | None = None if is_loopback(url) else True
        self._socket: Any = None
        self._news: SimpleQueue[tuple[str, Mapping[str, Any]] | None] = SimpleQueue()
        self.lost = True

    def __enter__(self) -> Self:
        from websockets.exceptions import WebSocketException
        from websockets.sync.client import connect

        try:
            self._socket = connect(
                self._url,
                open_timeout=OPEN_S,
                max_size=MAX_MESSAGE_BYTES,
                proxy=self._proxy,
                close_timeout=1,
                ping_interval=None,
            )
        except (OSError, WebSocketException):
            return self
        self.lost = False
        threading.Thread(target=self._listen, name="comfy-events", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._socket is not None:
            self._socket.close()

    def _listen(self) -> None:
        from websockets.exceptions import WebSocketException

        with suppress(OSError, WebSocketException):
            for message in self._socket:
                if isinstance(message, str):  # else a preview
                    self._news.put(_parsed(message))
        self.lost = True
        self.wake()

    def next(self, timeout_s: float) -> tuple[str, Mapping[str, Any]] | None:
        """(type, data) of the next message; None when there was none in time, when somebody woke who waits for it, or
        when the connection was just lost. Without a connection it waits all the same."""
        try:
            return self._news.get(timeout=max(timeout_s, 0))
        except Empty:
            return None

    def wake(self) -> None:
        """End the waiting in `next`."""
        self._news.put(None)


def _parsed(text: str) -> tuple[str, Mapping[str, Any]]:
    try:
        message = json.loads(text)
    except ValueError:
        message = None
    if not isinstance(message, Mapping):
        return "unknown", {}
    data = message.get("data")
    return str(message.get("type")), data if isinstance(data, Mapping) else {}
