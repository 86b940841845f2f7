"""Signals that ask a process to stop, where an exception would come at a bad moment."""

from __future__ import annotations

import atexit
import signal
import time
from collections.abc import Callable

from source.errors import StoreError
from source.store.base import TaskStore

#: seconds after which Ctrl-C is heard at the latest
SLICE_S = 0.5


def when_told_to_stop(stop: Callable[[], None]) -> None:
    """SIGTERM and SIGINT call `stop`, and are nothing to the last moments of the interpreter: it takes handlers back
    before it is gone, and a process that left in order would end by the signal."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop())
        atexit.register(signal.signal, number, signal.SIG_IGN)


class Interrupt:
    """Ctrl-C noted while the block runs, without an exception: one could come between any two steps of a store, and
    leave it locked. The second Ctrl-C is as usual, for whoever is impatient."""

    def __init__(self) -> None:
        self.heard = False

    def __enter__(self) -> Interrupt:
        self._usual = signal.signal(signal.SIGINT, self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._usual)

    def _hear(self, *_: object) -> None:
        self.heard = True
        signal.signal(signal.SIGINT, self._usual)


def wait(store: TaskStore, seconds: float, stopped: Callable[[], bool]) -> None:
    """Until something may have changed: in slices, so that whoever stops it does not wait for long."""
    until = time.monotonic() + seconds
    while (left_s := until - time.monotonic()) > 0 and not stopped():
        try:
            if store.wait_for_change(min(left_s, SLICE_S)):
                return
        except StoreError:
            time.sleep(min(left_s, SLICE_S))  # the next look says whether it lasts
