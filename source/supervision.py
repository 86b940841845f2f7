"""`worker.py --supervise`: a process that starts the worker, and another in its place when one dies.

    probe the device -> start the worker -> wait -> exit code 0 or 1: leave with it
                                                 -> a signal, or any other code: wait, and from the beginning

It imports nothing of the engine and holds no device, so what breaks a worker does not break it.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console

from source.doctor.machine import computed
from source.errors import WanError
from source.interrupt import when_told_to_stop
from source.logs import configure_logging
from source.settings import Settings

log = logging.getLogger(__name__)

#: the worker's flag that makes it stop when its supervisor is gone
SUPERVISED = "--supervised"
SUPERVISE = "--supervise"
#: exit codes after which another start would end no better, or was not wanted
FINAL = frozenset({0, 1})
#: exit code of a worker that failed for a reason that nobody foresaw
EXIT_FAILED = 4
#: longest wait before a start, and before another look at a device that does not compute
MAX_DELAY_S = 300.0
#: early deaths in a row from which the log raises its voice
MANY = 3
#: what a worker that was told to stop gets beyond its own graces before it is killed
KILL_S = 60.0

#: time between two signs of life
SIGN_S = 5.0

_STOP = "stop"


@dataclass(frozen=True)
class Pace:
    """How soon a worker that died is replaced: `first_s`, doubled with each death, until one lived for `healthy_s`."""

    first_s: float
    healthy_s: float
    #: what a worker that was told to stop gets before it is killed
    kill_s: float
    #: and one that gave signs of life and gives none any more: its interpreter stands still, and so do its leases
    silent_s: float = 300.0

    @classmethod
    def of(cls, settings: Settings) -> Pace:
        """As the settings say."""
        return cls(settings.restart_delay_s, settings.restart_healthy_s, 2 * settings.shutdown_grace_s + KILL_S)

    def delay_s(self, deaths: int) -> float:
        """The wait after so many early deaths in a row, of which this is the last."""
        return min(self.first_s * 2.0 ** (min(deaths, 32) - 1), MAX_DELAY_S)


class DeviceProbe:
    """Has a small process compute on the device. A GPU that was there at the first probe has to come back: without it
    a worker would go on with the CPU."""

    def __init__(self, settings: Settings) -> None:
        self._on_cpu = settings.device == "cpu"
        self._known: int | None = None

    def __call__(self) -> str | None:
        """What is wrong; None when a worker may start."""
        if self._on_cpu:
            return None
        try:
            found = len(computed()["accelerators"])
        except (WanError, OSError) as error:
            return str(error)
        if self._known is None:
            self._known = found
        return None if found >= self._known else f"{found} of {self._known} GPUs answer"


class Life:
    """The signs of life of one worker, as they come by `line`."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._heard_at: float | None = None

    def listen(self) -> None:
        """Until the worker is gone. For a thread of its own."""
        with contextlib.suppress(OSError):
            while self._line.recv(64):
                self._heard_at = time.monotonic()

    def left_s(self, silent_s: float) -> float:
        """Seconds until a silence of `silent_s`. A worker that has not begun to give signs may be starting still."""
        heard_at = self._heard_at
        return silent_s if heard_at is None else max(heard_at + silent_s - time.monotonic(), 0)


def report_life(worker_stop: Callable[[], None]) -> None:
    """In the worker, on a thread of its own: give signs of life by the standard input, and stop with the supervisor."""
    line = socket.socket(fileno=0)
    line.settimeout(SIGN_S)
    with contextlib.suppress(OSError):
        while not _hung_up(line):
            line.sendall(b".")
    log.warning("the supervisor is gone; this worker stops too")
    worker_stop()


def _hung_up(line: socket.socket) -> bool:
    """Whether the other end is closed; says no after SIGN_S."""
    try:
        return not line.recv(64)
    except TimeoutError:
        return False


class Supervisor:
    """Runs `command` again and again. Use it on the main thread of a process; it runs once."""

    def __init__(self, command: Sequence[str], pace: Pace, probe: Callable[[], str | None]) -> None:
        self._command = list(command)
        self._pace = pace
        self._probe = probe
        self._told = False
        #: exit codes of workers, and requests to stop; a SimpleQueue may be put to from a signal handler
        self._inbox: queue.SimpleQueue[int | str] = queue.SimpleQueue()

    def run(self) -> int:
        """Returns the exit code: the last worker's, and 0 when it was told to stop."""
        when_told_to_stop(lambda: self._inbox.put(_STOP))
        deaths = 0
        while self._wait_for_the_device():
            started_at = time.monotonic()
            code = self._started()
            lived_s = time.monotonic() - started_at
            if code in FINAL or self._told:
                return max(code, 0)
            deaths = 1 if lived_s >= self._pace.healthy_s else deaths + 1
            self._mourn(code, lived_s, deaths)
            if not self._pause(self._pace.delay_s(deaths)):
                break
        return 0

    def _started(self) -> int:
        """One worker's exit code. A machine that cannot start a process now (no memory, say) may be able to later."""
        try:
            return self._worker()
        except OSError as error:
            log.error("no worker could be started: %s", error)
            return EXIT_FAILED

    def _worker(self) -> int:
        """One worker from its start to its end. Returns its exit code; that of a signal is negative."""
        # Its standard input is a line to this process alone: it ends when this process does, however it ends.
        # A session of its own: Ctrl-C of a terminal comes here alone, and is passed on once.
        ours, its = socket.socketpair()
        with ours:
            with its:
                child = subprocess.Popen(self._command, stdin=its.fileno(), start_new_session=True)
            life = Life(ours)
            for watch in (lambda: self._inbox.put(child.wait()), life.listen):
                threading.Thread(target=watch, daemon=True).start()
            log.info("worker process %d started", child.pid)
            while not isinstance(news := self._news_of(child, life), int):
                if news is not None:
                    self._told = True
                    child.send_signal(signal.SIGTERM)
            with contextlib.suppress(OSError):
                ours.shutdown(socket.SHUT_RDWR)  # ends the listening, should a program that the worker started live on
            return news

    def _news_of(self, child: subprocess.Popen[bytes], life: Life) -> int | str | None:
        """What came in. One that does not end, or gives no sign of life, is killed."""
        patience_s = self._pace.kill_s if self._told else life.left_s(self._pace.silent_s)
        try:
            return self._inbox.get(timeout=patience_s)
        except queue.Empty:
            if not self._told and life.left_s(self._pace.silent_s) > 0:
                return None
        what = "did not stop" if self._told else f"gave no sign of life for {self._pace.silent_s:.0f} s"
        log.error("worker process %d %s and is killed; its tasks are rescued", child.pid, what)
        child.kill()
        return self._inbox.get()

    def _wait_for_the_device(self) -> bool:
        """False when told to stop meanwhile."""
        failures = 0
        while (trouble := self._probe()) is not None:
            failures += 1
            delay_s = self._pace.delay_s(failures)
            log.error("no worker is started: %s; looked at again in %.0f s", trouble, delay_s)
            if not self._pause(delay_s):
                return False
        return self._pause(0)

    def _mourn(self, code: int, lived_s: float, deaths: int) -> None:
        delay_s = self._pace.delay_s(deaths)
        log.warning("%s after %.0f s; another one starts in %.1f s", _death(code), lived_s, delay_s)
        if deaths >= MANY:
            log.error(
                "%d workers in a row died within %.0f s of their start; this goes on, but something is wrong: the log "
                "above and `debug.py doctor` say what",
                deaths, self._pace.healthy_s,
            )  # fmt: skip

    def _pause(self, seconds: float) -> bool:
        """Wait; False when told to stop."""
        try:
            self._inbox.get(timeout=seconds)
        except queue.Empty:
            return True
        self._told = True
        return False


def run_supervisor(settings: Settings, arguments: Sequence[str]) -> int:
    """Run worker.py with `arguments` under a supervisor. Returns the exit code. Raises OSError."""
    configure_logging(settings, Console(stderr=True))
    given = [each for each in arguments if each != SUPERVISE]  # argparse takes no beginning of it: there are two flags
    command = [sys.executable, sys.argv[0], *given, SUPERVISED]
    return Supervisor(command, Pace.of(settings), DeviceProbe(settings)).run()


def _death(code: int) -> str:
    if code >= 0:
        return f"the worker ended with exit code {code}"
    try:
        return f"the worker was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"the worker was ended by signal {-code}"
