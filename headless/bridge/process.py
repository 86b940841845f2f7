"""The interpreter of a checkout, from the worker's side: started, asked one thing at a time, interrupted, ended."""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from headless.bridge.failures import EndedUnasked, Stuck, failure
from headless.checkout import WanCheckout
from headless.generation import CancelToken
from headless.program import Program
from Wan2GP.errors import WanError

CHILD = Path(__file__).with_name("child") / "__main__.py"
#: the longest message
MESSAGE_BYTES = 1 << 22
LOOK_S = 0.25
#: what an order that is sent gets to be taken
SENDING_S = 10
#: what its end gets to be noticed, after its messages ended
FAREWELL_S = 5.0

Message = Mapping[str, Any]
#: hears (event, data, (window, windows))
OnEvent = Callable[[str, Any, "tuple[int, int]"], None]


def ignore_event(event: str, data: Any, window: tuple[int, int]) -> None:
    """Events that nobody asked for."""


def ignore_line(line: str) -> None:
    """Output that nobody asked for."""


class CheckoutProcess:
    """One started interpreter. `ask` is for one thread at a time; `interrupt` and `end` may be called by any."""

    def __init__(
        self, checkout: WanCheckout, python: Path, environment: Mapping[str, str], configuration: Mapping[str, Any]
    ) -> None:
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", SENDING_S, 0))
        self._connection = ours
        self._inbox: queue.SimpleQueue[Message | str | None] = queue.SimpleQueue()
        self._orders = 0
        #: the order at work
        self._at_work: int | None = None
        self._interrupted_at: float | None = None
        self._changing, self._sending = threading.Lock(), threading.Lock()
        with theirs:
            arguments = [str(theirs.fileno()), str(checkout.path), checkout.entry, json.dumps(dict(configuration))]
            self._program = Program(
                "Wan2GP", [str(python), "-u", str(CHILD), *arguments], folder=checkout.path, environment=environment,
                pass_fds=[theirs.fileno()], on_line=self._hear_line,
            )  # fmt: skip
        threading.Thread(target=self._receive, name="wan2gp-messages", daemon=True).start()

    @property
    def alive(self) -> bool:
        return not self._program.ended.is_set()

    def started(self, on_line: Callable[[str], None], patience_s: float) -> Message:
        """Wait until the checkout is imported; answers what it told of itself. Raises as `ask` does."""
        self._program.works_for_caller()
        self._at_work = 0
        return self._answer(0, ignore_event, on_line, patience_s, None)

    def ask(
        self, order: Mapping[str, Any], *, on_event: OnEvent = ignore_event,
        on_line: Callable[[str], None] = ignore_line, cancel: CancelToken | None = None,
        patience_s: float | None = None, stopping_s: float | None = None,
    ) -> Message:  # fmt: skip
        """Have an order carried out; answers what was done.

        cancel      interrupts it
        patience_s  the longest silence: no event and no line of output
        stopping_s  what it gets to stop once it is interrupted
        Raises what `failure` makes of the checkout's own failure, EndedUnasked when the process ends or its messages
        are none, and Stuck. What a hearer raises comes through; the order is then still being carried out.
        """
        self._program.works_for_caller()
        with self._changing:
            self._orders += 1
            number = self._at_work = self._orders
            self._interrupted_at = None
        self._send({"id": number, **order})
        if cancel is not None:
            cancel.on_cancel(lambda: self._interrupt(number))
        return self._answer(number, on_event, on_line, patience_s, stopping_s)

    def interrupt(self) -> None:
        """Ask the order at work to stop."""
        if (number := self._at_work) is not None:
            self._interrupt(number)

    def _interrupt(self, number: int) -> None:
        """Only that one: never a neighbour."""
        with self._changing:
            if self._at_work != number or self._interrupted_at is not None:
                return
            self._interrupted_at = time.monotonic()
        with contextlib.suppress(EndedUnasked):
            self._send({"do": "cancel", "of": number})

    def end(self) -> None:
        """End it, with all that it started."""
        self._program.end(stopping_s=0)
        self._connection.close()

    # ---- messages

    def _send(self, message: Mapping[str, Any]) -> None:
        line = json.dumps(message).encode() + b"\n"
        try:
            with self._sending:
                self._connection.sendall(line)
        except OSError as error:
            raise self._gone(f"took no order any more ({error})") from None

    def _receive(self) -> None:
        """Messages in the order in which they come; None when there will be no more."""
        try:
            with self._connection.makefile("rb") as lines:
                while line := lines.readline(MESSAGE_BYTES):
                    self._inbox.put(json.loads(line))
        except (OSError, ValueError) as error:
            self._inbox.put({"garbage": str(error)})
        self._inbox.put(None)

    def _hear_line(self, line: str) -> None:
        if self._at_work is not None:
            self._inbox.put(line)

    def _answer(
        self, number: int, on_event: OnEvent, on_line: Callable[[str], None], patience_s: float | None,
        stopping_s: float | None,
    ) -> Message:  # fmt: skip
        heard_at = time.monotonic()
        try:
            while True:
                try:
                    message = self._inbox.get(timeout=LOOK_S)
                except queue.Empty:
                    self._check_patience(heard_at, patience_s)
                    message = ""
                else:
                    heard_at = time.monotonic()
                self._check_stopping(stopping_s)
                if isinstance(message, str):
                    if message:
                        on_line(message)
                elif (answer := self._taken(message, number, on_event)) is not None:
                    return answer
        finally:
            with self._changing:
                self._at_work = None

    def _check_patience(self, heard_at: float, patience_s: float | None) -> None:
        if patience_s is not None and time.monotonic() - heard_at > patience_s:
            raise Stuck(f"the checkout's process has said nothing for {patience_s:g} s")

    def _check_stopping(self, stopping_s: float | None) -> None:
        since = self._interrupted_at
        if stopping_s is not None and since is not None and time.monotonic() - since > stopping_s:
            raise Stuck(f"the checkout did not stop within {stopping_s:g} s of being told to")

    def _taken(self, message: Message | None, number: int, on_event: OnEvent) -> Message | None:
        """What the order came to; None when it goes on. What is left of an earlier order is not for this one."""
        if message is None:
            raise self._gone("ended")
        if not isinstance(message, dict) or not message.keys() & {"failed", "event", "done"}:
            raise EndedUnasked(f"the checkout's process sent what is no message: {str(message)[:200]}")
        if message.get("of") != number:
            return None
        if "failed" in message:
            raise failure(message["failed"], final=bool(message.get("final")))
        if "event" in message:
            on_event(message["event"], message["data"], tuple(message["window"]))
            return None
        done: Message = message["done"]
        return done

    def _gone(self, what: str) -> WanError:
        self._program.ended.wait(FAREWELL_S)
        return EndedUnasked(f"the checkout's process {what} ({self._program.farewell})")
