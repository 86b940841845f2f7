"""`worker.py --supervise`: a process that starts the worker, and another in its place when one dies.

    probe the device -> start the worker -> wait -> exit code 0 or 1: leave with it
                                                 -> a signal, or any other code: wait, and from the beginning

It imports nothing of the engine and holds no device, so what breaks a worker does not break it.
"""

from __future__ import annotations

import logging
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console

from source.doctor.machine import computed
from source.errors import WanError
from source.logs import configure_logging
from source.settings import Settings

log = logging.getLogger(__name__)

#: the worker's flag that makes it stop when its supervisor is gone
SUPERVISED = "--supervised"
SUPERVISE = "--supervise"
#: exit codes after which another start would end no better, or was not wanted
FINAL = frozenset({0, 1})
#: longest wait before a start, and before another look at a device that does not compute
MAX_DELAY_S = 300.0
#: early deaths in a row from which the log raises its voice
MANY = 3
#: what a worker that was told to stop gets beyond its own graces before it is killed
KILL_S = 60.0

_STOP = "stop"


@dataclass(frozen=True)
class Pace:
    """How soon a worker that died is replaced: `first_s`, doubled with each death, until one lived for `healthy_s`."""

    first_s: float
    healthy_s: float
    #: what a worker that was told to stop gets before it is killed
    kill_s: float

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
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._inbox.put(_STOP))
        deaths = 0
        while self._wait_for_the_device():
            started_at = time.monotonic()
            code = self._worker()
            lived_s = time.monotonic() - started_at
            if code in FINAL or self._told:
                return max(code, 0)
            deaths = 1 if lived_s >= self._pace.healthy_s else deaths + 1
            self._mourn(code, lived_s, deaths)
            if not self._pause(self._pace.delay_s(deaths)):
                break
        return 0

    def _worker(self) -> int:
        """One worker from its start to its end. Returns its exit code; that of a signal is negative."""
        # Its standard input is a pipe that this process alone holds: it ends when this process does, however it ends.
        # A session of its own: Ctrl-C of a terminal comes here alone, and is passed on once.
        child = subprocess.Popen(self._command, stdin=subprocess.PIPE, start_new_session=True)
        threading.Thread(target=lambda: self._inbox.put(child.wait()), name="worker", daemon=True).start()
        log.info("worker process %d started", child.pid)
        while True:
            try:
                news = self._inbox.get(timeout=self._pace.kill_s if self._told else None)
            except queue.Empty:
                log.error("worker process %d did not stop and is killed; its tasks are rescued", child.pid)
                child.kill()
                continue
            if isinstance(news, int):
                break
            self._told = True
            child.send_signal(signal.SIGTERM)
        assert child.stdin is not None
        child.stdin.close()
        return news

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
    given = [each for each in arguments if not _is_supervise(each)]
    command = [sys.executable, sys.argv[0], *given, SUPERVISED]
    return Supervisor(command, Pace.of(settings), DeviceProbe(settings)).run()


def _is_supervise(argument: str) -> bool:
    """argparse also takes what a flag begins with."""
    return len(argument) > len("--supe") and SUPERVISE.startswith(argument)


def _death(code: int) -> str:
    if code >= 0:
        return f"the worker ended with exit code {code}"
    try:
        return f"the worker was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"the worker was ended by signal {-code}"
