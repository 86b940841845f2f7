"""The worker processes: started, killed, stopped and let go on, and started again when they are gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from source.settings import child_environment

ROOT = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-m", "source.chaos.worker")
#: how long a process gets until it has done something (a busy machine takes long), and how long an older one goes on
#: beside its twin
READY_S, TWIN_S = 180.0, 2.0
#: starts of each worker after which it is clear that none comes up
VAIN_STARTS = 5
#: how long all of them get to leave at the end
LEAVE_S = 120.0
LOOK_S = 0.1


@dataclass
class _Process:
    """One process, and what it wrote so far."""

    popen: subprocess.Popen[bytes]
    worker: int
    history: Path
    #: stands still since then; None: it does not, as far as we know
    stopped_at: float | None = None
    #: to be killed then
    ends_at: float | None = None

    @property
    def alive(self) -> bool:
        return self.popen.poll() is None

    def signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            self.popen.send_signal(number)


class Crew:
    """Workers 0 to `size` - 1, each of a name of its own; `folder` gets their histories and logs.

    trap: what the n-th process of a worker is told. still_s: how long a process that stands still is left so.
    """

    def __init__(
        self, folder: Path, size: int, environment: Mapping[str, str], trap: Callable[[int, int], str], still_s: float,
        command: Sequence[str] = COMMAND,
    ) -> None:  # fmt: skip
        self.histories = folder / "histories"
        self.histories.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._environment = dict(environment)
        self._trap = trap
        self._still_s = still_s
        self._command = list(command)
        self.size = size
        self._starts = [0] * size
        self._leaving = threading.Event()
        self._lock = threading.RLock()
        self._current = [self._started(worker) for worker in range(size)]
        self._beside: list[_Process] = []
        self._keeper = threading.Thread(target=self._keep, name="crew", daemon=True)
        self._keeper.start()

    @property
    def starts(self) -> int:
        """Processes so far."""
        return sum(self._starts)

    def _keep(self) -> None:
        """A thread of its own: one that stands still may hold a lock that everybody else waits for."""
        while not self._leaving.wait(LOOK_S):
            with self._lock:
                if not self._leaving.is_set():
                    self._tend(time.monotonic())

    def _tend(self, now: float) -> None:
        """Start those that are gone, let those go on that stood still for long enough, end what is to end."""
        for process in self._everybody():
            if process.ends_at is not None and now >= process.ends_at:
                process.signal(signal.SIGKILL)
            self._wake(process, now)
        self._beside = [process for process in self._beside if process.alive]
        for worker, process in enumerate(self._current):
            if not process.alive:
                self._current[worker] = self._started(worker)

    def ready(self, worker: int) -> bool:
        """Whether its process has done something since it started."""
        history = self._current[worker].history
        return self._current[worker].alive and history.is_file() and history.stat().st_size > 0

    def hopeless(self) -> bool:
        """Whether none of many processes ever did something."""
        return self.starts > VAIN_STARTS * self.size and not any(
            path.stat().st_size for path in self.histories.glob("*.jsonl")
        )

    def log(self, worker: int) -> Path:
        """What its processes say."""
        return self._folder / f"{_name(worker)}.log"

    def kill(self, worker: int) -> None:
        """SIGKILL."""
        self._current[worker].signal(signal.SIGKILL)

    def terminate(self, worker: int) -> None:
        """SIGTERM: it puts back what it has and leaves."""
        self._current[worker].signal(signal.SIGTERM)

    def stand_still(self, worker: int) -> None:
        """SIGSTOP; SIGCONT follows after `still_s`."""
        self._current[worker].signal(signal.SIGSTOP)

    def twin(self, worker: int) -> None:
        """A second process of the same name; the first is killed soon after."""
        with self._lock:
            first = self._current[worker]
            first.ends_at = time.monotonic() + TWIN_S
            self._beside.append(first)
            self._current[worker] = self._started(worker)

    def leave(self) -> list[int]:
        """All leave in order, by SIGTERM, once they have started; returns their exit codes."""
        deadline = time.monotonic() + READY_S
        while not self._told_to_leave(late=time.monotonic() >= deadline):
            self._leaving.wait(LOOK_S)
        deadline = time.monotonic() + LEAVE_S
        for process in self._everybody():
            with suppress(subprocess.TimeoutExpired):
                process.popen.wait(max(deadline - time.monotonic(), 0.1))
        self.end()
        return [process.popen.returncode for process in self._current]

    def _told_to_leave(self, *, late: bool) -> bool:
        """SIGTERM for all where all have started, or where that takes too long. Under the lock: the keeper must not put
        a new process, which would not know the signal yet, in the place of one that just ended."""
        with self._lock:
            if not late and not all(map(self.ready, range(self.size))):
                return False
            self._leaving.set()
            for process in self._everybody():
                process.signal(signal.SIGCONT)
                process.signal(signal.SIGTERM)
        return True

    def end(self) -> None:
        """At once."""
        self._keep_no_longer()
        for process in self._everybody():
            process.signal(signal.SIGKILL)
            process.popen.wait()

    def _keep_no_longer(self) -> None:
        self._leaving.set()
        self._keeper.join()

    def _everybody(self) -> list[_Process]:
        return [*self._current, *self._beside]

    def _wake(self, process: _Process, now: float) -> None:
        if not _stands_still(process.popen.pid):
            process.stopped_at = None
        elif process.stopped_at is None:
            process.stopped_at = now
        elif now - process.stopped_at >= self._still_s:
            process.signal(signal.SIGCONT)

    def _started(self, worker: int) -> _Process:
        start = self._starts[worker]
        self._starts[worker] += 1
        name = _name(worker)
        history = self.histories / f"{name}-{start}.jsonl"
        own = {"WORKER": name, "HISTORY_FILE": str(history), "CHAOS_TRAP": self._trap(worker, start)}
        path = os.pathsep.join(filter(None, [str(ROOT), self._environment.get("PYTHONPATH", "")]))
        with self.log(worker).open("ab") as log:
            popen = subprocess.Popen(
                self._command, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**child_environment(), **self._environment, **own, "PYTHONPATH": path},
            )  # fmt: skip
        return _Process(popen, worker, history)


def _name(worker: int) -> str:
    return f"chaos-{worker}"


def _stands_still(pid: int) -> bool:
    with suppress(psutil.Error):
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    return False
