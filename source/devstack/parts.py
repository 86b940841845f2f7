"""A part of the stack: a program that outlives the command that started it.

Its pid and start time stand in a file, so that a process that got the same number later is never taken for it. A start
that was cut short before it wrote them is found by its command line, which names the stack's folder.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path

import psutil

from Wan2GP.errors import WanError

HOST = "127.0.0.1"
#: how long a part gets to answer after its start, and to end after it was asked to
START_S = 60.0
STOP_S = 15.0
_LOOK_S = 0.02
#: clocks are set while processes run, and start times are counted from the clock
_SAME_START_S = 5.0
_LOG_LINES = 15


class StackError(WanError):
    """The local stack, or a part of it, could not be started or stopped."""


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    new.replace(path)


def port_is_free(port: int) -> bool:
    """Whether a server could listen there now."""
    with closing(socket.socket()) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError:
            return False
        return True


def answers_http(port: int, path: str) -> bool:
    """Whether an HTTP server answers there, with anything but an error of its own."""
    connection = http.client.HTTPConnection(HOST, port, timeout=1)
    try:
        connection.request("GET", path)
        return connection.getresponse().status < 500
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


class Part(ABC):
    """One program. `folder` is the stack's; its log is `logs/<name>.log` there."""

    name: str
    stop_signal = signal.SIGTERM

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self.log = folder / "logs" / f"{self.name}.log"
        self._record = folder / f"{self.name}.pid"

    @abstractmethod
    def command(self) -> list[str]:
        """Program and arguments; no secret among them, for everybody can list processes."""

    @abstractmethod
    def environment(self) -> Mapping[str, str]:
        """Its whole environment."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether it can be used now."""

    @abstractmethod
    def prepare(self) -> None:
        """Make what has to be there before it starts."""

    def user(self) -> str | None:
        """The account that it runs as; None is the caller's."""
        return None

    def process(self) -> psutil.Process | None:
        """The running process, or None."""
        with suppress(OSError, ValueError, KeyError, psutil.Error):
            record = json.loads(self._record.read_text())
            process = psutil.Process(record["pid"])
            if abs(process.create_time() - record["started"]) < _SAME_START_S and _is_alive(process):
                return process
        return None

    def find(self) -> psutil.Process | None:
        """`process`, or what a start that was cut short left running, which is noted then."""
        if found := self.process():
            return found
        command = self.command()[1:]
        for process in psutil.process_iter(["cmdline"]):
            if (process.info["cmdline"] or [])[1:] == command and _is_alive(process):
                self._remember(process)
                return process
        return None

    def require_port(self) -> None:
        """Raises StackError when it could not listen at its port."""
        if not port_is_free(self.port):
            raise StackError(f"{self.name}: port {self.port} cannot be had; another program may have it")

    def start(self) -> None:
        """Start what does not run (`find` is None). It need not answer yet: `wait`."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.prepare()
        with open(os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as log:
            child = subprocess.Popen(
                self.command(), cwd="/", env=dict(self.environment()), user=self.user(), group=self.user(),
                extra_groups=[] if self.user() else None,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        child.returncode = 0  # psutil waits for it, maybe in another process: to this one it is nobody's child
        self._remember(psutil.Process(child.pid))

    def wait(self, seconds: float = START_S) -> None:
        """Until it answers. Raises StackError with the end of its log when it ended or did not answer in time."""
        deadline = time.monotonic() + seconds
        while not self.answers():
            process = self.process()
            if process is None:
                raise StackError(f"{self.name} ended as it started:\n{self.last_words()}")
            if time.monotonic() > deadline:
                raise StackError(f"{self.name} did not answer within {seconds:g} s:\n{self.last_words()}")
            _ends(process, _LOOK_S)

    def stop(self) -> bool:
        """Ask it to end, wait, and end it where it does not; whether it ran."""
        process = self.find()
        if process is None:
            self._record.unlink(missing_ok=True)
            return False
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGCONT)
            process.send_signal(self.stop_signal)
        _ends(process, STOP_S)
        self.kill()
        return True

    def kill(self) -> None:
        """End it and what it started with SIGKILL, and wait until all are gone."""
        tree = self._tree()
        for process in tree:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        for process in tree:
            _ends(process, STOP_S)
        self._record.unlink(missing_ok=True)

    def pause(self) -> None:
        """Stop it in time (SIGSTOP), with what it started: connections stay open and nothing answers."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        """The end of `pause`."""
        self._signal_all(signal.SIGCONT)

    def last_words(self) -> str:
        """The end of its log."""
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-_LOG_LINES:]) or "(it said nothing)"
        except OSError:
            return "(there is no log)"

    def _signal_all(self, number: signal.Signals) -> None:
        for process in self._tree():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def _tree(self) -> list[psutil.Process]:
        process = self.process()
        if process is None:
            return []
        with suppress(psutil.NoSuchProcess):
            return [process, *process.children(recursive=True)]
        return []

    def _remember(self, process: psutil.Process) -> None:
        with suppress(psutil.NoSuchProcess):  # it ended at once: `wait` says so
            write_private(self._record, json.dumps({"pid": process.pid, "started": process.create_time()}))


def _is_alive(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def _ends(process: psutil.Process, seconds: float) -> bool:
    """Wait for its end; whether it came. What has ended may be listed until whoever inherited it takes note."""
    deadline = time.monotonic() + seconds
    while _is_alive(process):
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_S)
    with suppress(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)
    return True
