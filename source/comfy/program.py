"""The ComfyUI that a worker uses: one that runs already, or one that the worker starts, watches and ends.

    serving -> (not there: wait out the back-off, start it, wait until it answers) -> the workflow -> memory given back

A failed start or a crash makes the next start wait, longer each time, up to a minute; nothing else is remembered of
it. It listens on 127.0.0.1 alone. What it writes, and how it ends with the worker: `headless/program.py`.
"""

from __future__ import annotations

import logging
import shlex
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from headless.program import Program
from source.addresses import is_loopback
from source.comfy.api import ComfyApi
from source.errors import EngineError, ProgramUnavailable, Transient, WanError
from source.settings import Settings, child_environment

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
FIRST_BACKOFF_S, MAX_BACKOFF_S = 1.0, 60.0
LOOK_S = 0.2
#: what the port of one that just ended gets to be free
FREE_PORT_S = 3.0
LAST_BREATH_S = 2.0

Wait = Callable[[float], None]


class ComfyProgram:
    """One for each worker. `serving` is for one task at a time; `stop` may be called at any moment, for good."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._child: _Child | None = None
        self._starting = threading.Lock()
        self._changing = threading.Lock()
        self._stopped = False
        self._failures = 0
        self._next_start_at = 0.0

    @property
    def shares_gpu(self) -> bool:
        """Whether it works on the GPU of this worker."""
        told, url = self._settings.comfy_shares_gpu, self._settings.comfy_url
        return told if told is not None else url is None or is_loopback(url)

    @property
    def ends_with_worker(self) -> bool:
        """Whether it is the worker's own."""
        return self._settings.comfy_url is None

    def check(self) -> None:
        """Raises ProgramUnavailable when there is none that could be used or started."""
        if self._settings.comfy_url is None and not self._main.is_file():
            raise ProgramUnavailable(
                f"there is no ComfyUI in {self._settings.comfy_path} (no main.py); set COMFY_PATH to its folder, or "
                "COMFY_URL to one that runs already"
            )

    @contextmanager
    def serving(self, wait: Wait) -> Iterator[ComfyApi]:
        """A ComfyUI that answers, started when it must be. `wait` waits so many seconds and may raise to stop that.

        Raises ProgramUnavailable, Transient and EngineError.
        """
        self.check()
        api = ComfyApi(self._settings.comfy_url or self._started(wait))
        if self._child is not None:
            self._child.works_for_caller()
        try:
            yield api
            self._failures = 0
        except WanError as error:
            raise self._explained(error) from error
        finally:
            api.close()

    def check_alive(self) -> None:
        """Raises EngineError when the worker's own has ended."""
        child = self._child
        if self._settings.comfy_url is None and child is not None and child.ended.is_set():
            raise EngineError(f"ComfyUI ended in mid-run ({child.farewell})")

    def end_for_now(self) -> None:
        """End the worker's own; the next task gets a fresh one."""
        with self._changing:
            if self._child is not None and not self._child.ended.is_set():
                log.info("ending ComfyUI")
                self._child.end()

    def stop(self) -> None:
        """End it, for good."""
        self._stopped = True
        self.end_for_now()

    # ---- the worker's own

    @property
    def _main(self) -> Path:
        return self._settings.comfy_path / "main.py"

    def _explained(self, error: WanError) -> WanError:
        """A failure that its end in mid-run caused says so."""
        child = self._child
        if self._stopped or child is None or not isinstance(error, EngineError | Transient):
            return error
        # the connection breaks a moment before the process is gone
        if not child.ended.wait(LAST_BREATH_S if isinstance(error, Transient) else 0):
            return error
        return EngineError(f"ComfyUI ended in mid-run ({child.farewell})")

    def _started(self, wait: Wait) -> str:
        """The URL of the worker's own ComfyUI, which answers."""
        with self._starting:
            child = self._child
            if child is None or child.ended.is_set():
                if child is not None:
                    self._note_failure()
                wait(max(self._next_start_at - time.monotonic(), 0))
                child = self._start(wait)
            self._await_answer(child, wait)
            return child.url

    def _start(self, wait: Wait) -> _Child:
        port = self._settings.comfy_port or _free_port()
        _await_free(port, wait)
        command = [
            str(self._python), str(self._main), "--listen", HOST, "--port", str(port),
            *shlex.split(self._settings.comfy_args),
        ]  # fmt: skip
        with self._changing:
            if self._stopped:
                raise EngineError("the worker is stopping; ComfyUI is not started any more")
            log.info("starting ComfyUI on port %d", port)
            self._child = _Child(command, self._settings.comfy_path, port)
            return self._child

    @property
    def _python(self) -> Path:
        if self._settings.comfy_python is not None:
            return self._settings.comfy_python
        found = (self._settings.comfy_path / folder / "bin" / "python" for folder in ("venv", ".venv"))
        return next((path for path in found if path.is_file()), Path(sys.executable))

    def _await_answer(self, child: _Child, wait: Wait) -> None:
        deadline = time.monotonic() + self._settings.comfy_start_timeout_s
        api = ComfyApi(child.url)
        try:
            while not child.ended.is_set() and time.monotonic() < deadline:
                if api.answers() and not child.ended.is_set():
                    return
                wait(LOOK_S)
        finally:
            api.close()
        ended = child.ended.is_set()
        child.end()
        self._note_failure()
        self._child = None
        if ended:
            raise EngineError(f"ComfyUI did not start ({child.farewell})")
        timeout_s = self._settings.comfy_start_timeout_s
        raise EngineError(f"ComfyUI did not answer within {timeout_s:g} s of its start ({child.farewell})")

    def _note_failure(self) -> None:
        self._failures += 1
        delay_s = min(FIRST_BACKOFF_S * 2.0 ** min(self._failures - 1, 16), MAX_BACKOFF_S)
        self._next_start_at = time.monotonic() + delay_s


class _Child(Program):
    """A started ComfyUI."""

    def __init__(self, command: list[str], folder: Path, port: int) -> None:
        self.url = f"http://{HOST}:{port}"
        super().__init__("ComfyUI", command, folder=folder, environment=child_environment())


def _free_port() -> int:
    with socket.socket() as asked:
        asked.bind((HOST, 0))
        port: int = asked.getsockname()[1]
        return port


def _await_free(port: int, wait: Wait) -> None:
    """Raises ProgramUnavailable when somebody else listens on the port, and goes on doing so."""
    deadline = time.monotonic() + FREE_PORT_S
    while not _is_free(port):
        if time.monotonic() > deadline:
            raise ProgramUnavailable(
                f"port {port} is in use by another program, so ComfyUI cannot be started on it; choose another "
                f"COMFY_PORT (0 takes a free one), or set COMFY_URL=http://{HOST}:{port} when it is a ComfyUI"
            )
        wait(LOOK_S)


def _is_free(port: int) -> bool:
    with socket.socket() as asked:
        asked.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            asked.bind((HOST, port))
        except OSError:
            return False
        return True
