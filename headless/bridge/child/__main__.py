"""The checkout's interpreter: waits for orders of the worker, carries them out one after the other, answers each.

    python __main__.py DESCRIPTOR CHECKOUT ENTRY CONFIGURATION

CONFIGURATION is a JSON object, see `configuring.py`.

Orders: load, release, defaults, generate; cancel comes between, on a thread of its own. When the worker is gone, so is
this process.
"""

from __future__ import annotations

import json
import os
import queue
import socket
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

_PROJECT = str(Path(__file__).resolve().parents[3])
# as when wgp.py itself is run: the folder of the script comes first, and it is the checkout's
sys.path[0] = sys.argv[2]
sys.path.append(_PROJECT)

from headless.bridge.child.calls import Call  # noqa: E402
from headless.bridge.child.channel import Channel, Message  # noqa: E402
from headless.bridge.child.configuring import configure  # noqa: E402
from headless.bridge.child.direct import DirectDriver  # noqa: E402
from headless.bridge.child.failures import NoStart, told  # noqa: E402
from headless.bridge.child.session import SessionDriver  # noqa: E402

sys.path.remove(_PROJECT)


class Interpreter:
    """The orders, and the driver that carries them out."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._orders: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._changing = threading.Lock()
        self._call: Call | None = None
        #: a cancellation may overtake the start of its run
        self._cancelled = -1

    def listen(self) -> None:
        """Take orders until the worker is gone; a run in progress goes with it."""
        for order in self._channel.messages():
            if order["do"] == "cancel":
                self._cancel(order["of"])
            else:
                self._orders.put(order)
        os._exit(0)

    def _cancel(self, order: int) -> None:
        with self._changing:
            self._cancelled, call = order, self._call
        if call is not None:
            call.cancel()

    def serve(self, root: str, entry: str, configuration: dict[str, Any]) -> None:
        """Import the checkout, say so, and work."""
        driver = self._answered(0, lambda: _driver(root, entry, configuration))
        if driver is None:
            return
        self._channel.send({"of": 0, "done": {"parameters": driver.parameters, "python": sys.version.split()[0]}})
        while True:
            order = self._orders.get()
            answer = self._answered(order["id"], partial(self._carried_out, driver, order))
            if answer is not None:
                self._channel.send({"of": order["id"], "done": answer})

    def _carried_out(self, driver: Any, order: Message) -> Message:
        kind = order["do"]
        if kind == "load":
            return {"switched": driver.load(order["model"], order["profile"]), "model": driver.model}
        if kind == "release":
            driver.release()
            return {"model": driver.model}
        if kind == "defaults":
            return {"settings": driver.defaults(order["model"])}
        return self._generated(driver, order)

    def _generated(self, driver: Any, order: Message) -> Message:
        number = order["id"]
        call = Call(order, lambda event, data, window: self._tell(number, event, data, window))
        with self._changing:
            self._call = call
            late = self._cancelled == number
        if late:
            call.cancel()
        try:
            return {**driver.generate(call), "model": driver.model}
        finally:
            with self._changing:
                self._call = None

    def _tell(self, number: int, event: str, data: Any, window: tuple[int, int]) -> None:
        self._channel.send({"of": number, "event": event, "data": data, "window": list(window)})

    def _answered(self, number: int, work: Callable[[], Any]) -> Any:
        """What `work` returns; None when it failed, which is told then."""
        try:
            return work()
        except BaseException as error:  # noqa: BLE001 - whatever a checkout raises is told to the worker
            self._channel.send({"of": number, "failed": told(error), "final": isinstance(error, NoStart)})
            return None


def _driver(root: str, entry: str, configuration: dict[str, Any]) -> Any:
    os.chdir(root)
    driver = SessionDriver(root) if entry == "shared/api" else DirectDriver(root, entry)
    configure(sys.modules.get("wgp"), configuration)
    return driver


def main() -> None:
    """Take the descriptor over, so that no program that the checkout starts gets it."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    connection.set_inheritable(False)
    root, entry, configuration = sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
    interpreter = Interpreter(Channel(connection))
    threading.Thread(target=interpreter.listen, name="orders", daemon=True).start()
    interpreter.serve(root, entry, configuration)


if __name__ == "__main__":
    main()
