"""A program of others that this process starts, listens to and ends, with all that it started in its turn.

What it writes goes to the log (DEBUG) as it comes, so it never waits for a reader; the last lines stand in the message
about its end. It ends with this process however that ends (`keeper.py`).
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

log = logging.getLogger(__name__)

KEEPER = Path(__file__).with_name("keeper.py")
LINE_BYTES = 4096
#: lines that a message about its end repeats
TAIL_LINES = 12
#: lines that are logged for one task: a program that floods does not fill the disk
MAX_LOGGED_LINES = 5000
#: what it gets to end on SIGTERM
STOPPING_S = 3.0

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")


class Program:
    """A started program.

    name      what the log and the names of threads call it
    command   the program and its arguments
    pass_fds  descriptors of ours that it gets too
    on_line   hears each line that it writes, on a thread of its own
    """

    def __init__(
        self, name: str, command: Sequence[str], *, folder: Path, environment: Mapping[str, str],
        pass_fds: Sequence[int] = (), on_line: Callable[[str], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self.ended = threading.Event()
        self.code: int | None = None
        self._name = name
        self._on_line = on_line
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._context = contextvars.copy_context()
        self._logged = 0
        self._keeper = subprocess.Popen(
            [sys.executable, "-I", "-S", str(KEEPER), *command],
            cwd=folder, env={**environment, "PYTHONUNBUFFERED": "1"}, start_new_session=True, pass_fds=pass_fds,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert self._keeper.stdout is not None
        thread_name = name.lower()
        reader = threading.Thread(
            target=self._drain, args=(self._keeper.stdout,), name=f"{thread_name}-output", daemon=True
        )
        reader.start()
        threading.Thread(target=self._watch, args=(reader,), name=thread_name, daemon=True).start()

    @property
    def farewell(self) -> str:
        """How it ended, and what it said last."""
        last = " | ".join(self._tail)
        return f"{self._manner}; its last words: {last}" if last else f"{self._manner}; it said nothing"

    @property
    def _manner(self) -> str:
        if self.code is None:
            return "it does not answer"
        # of the keeper itself it is negative, of its program the keeper tells it as shells do
        signalled = -self.code if self.code < 0 else self.code - 128
        return f"killed by signal {signalled}" if signalled > 0 else f"exit code {self.code}"

    def works_for_caller(self) -> None:
        """From now on its lines are logged as the caller's: with the id of the task that its context names."""
        self._context, self._logged = contextvars.copy_context(), 0

    def end(self, stopping_s: float = STOPPING_S) -> None:
        """SIGTERM, then SIGKILL, for it and all that it started."""
        if not self.ended.is_set():
            self._signal(signal.SIGTERM)
            if not self.ended.wait(stopping_s):
                self._signal(signal.SIGKILL)
                self.ended.wait(STOPPING_S)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._keeper.pid, number)

    def _drain(self, output: IO[bytes]) -> None:
        """Read whatever it says, at once; a line without an end in pieces, a bar that is drawn over as lines."""
        with output:
            while line := output.readline(LINE_BYTES):
                for part in line.decode(errors="replace").replace("\r", "\n").splitlines():
                    if text := _CONTROL.sub("", part).rstrip():
                        self._hear(text)

    def _hear(self, text: str) -> None:
        self._tail.append(text)
        self._logged += 1
        if self._logged <= MAX_LOGGED_LINES:
            self._context.run(log.debug, "%s: %s", self._name, text)
        elif self._logged == MAX_LOGGED_LINES + 1:
            self._context.run(log.debug, "%s: it goes on writing; more is not logged for this task", self._name)
        self._on_line(text)

    def _watch(self, reader: threading.Thread) -> None:
        """Wait for its end. What it started and left behind goes with it."""
        self.code = self._keeper.wait()
        self._signal(signal.SIGKILL)
        reader.join(STOPPING_S)
        assert self._keeper.stdin is not None
        self._keeper.stdin.close()
        log.info("%s ended, %s", self._name, self._manner)
        self.ended.set()
