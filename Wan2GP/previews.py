"""What a run looks like so far, for whoever watches it. No torch and no numpy here."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue


@dataclass(frozen=True)
class Preview:
    """A small picture of what is being made."""

    #: the denoising step after which it was made, counted from 1
    step: int
    media_type: str
    #: the file; a WebP of a video is animated
    image: bytes = field(repr=False)


class Watcher:
    """Somebody who wants to see one run on its way.

    `show` is called on a thread of its own, so it may take its time: while it is busy, pictures are left out. There is
    one in `interval_s` seconds at most, and none before the run has drawn for so long.
    """

    def __init__(
        self, show: Callable[[Preview], None], *, interval_s: float = 2.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._show = show
        self._interval_s = interval_s
        self._clock = clock
        self._next_at: float | None = None
        self._busy = False

    def begin(self) -> None:
        """The run begins to draw. Later calls change nothing."""
        if self._next_at is None:
            self._next_at = self._clock() + self._interval_s

    @property
    def wants(self) -> bool:
        """Whether it is time for another picture."""
        return not self._busy and self._next_at is not None and self._clock() >= self._next_at

    def offer(self, make: Callable[[], Preview]) -> None:
        """Have `make` called and its picture shown, beside the caller."""
        self._busy = True
        self._next_at = self._clock() + self._interval_s
        _courier.carry(partial(contextvars.copy_context().run, self._made, make))

    def _made(self, make: Callable[[], Preview]) -> None:
        try:
            self._show(make())
        finally:
            self._busy = False


class _Courier:
    """The thread on which the pictures of a process are made and shown. It keeps no process from ending, and one that
    failed is replaced by the next picture."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._jobs: SimpleQueue[Callable[[], None]] = SimpleQueue()

    def carry(self, job: Callable[[], None]) -> None:
        self._jobs.put(job)
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._work, name="previews", daemon=True)
                self._thread.start()

    def _work(self) -> None:
        while True:
            self._jobs.get()()


_courier = _Courier()
