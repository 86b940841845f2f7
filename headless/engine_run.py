"""One call of the engine seen from outside: its fresh state, its events, its interruption and its failures."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from headless.generation import OnProgress, Progress
from headless.pace import Pace
from Wan2GP.errors import DeviceLost, EngineError, OutOfMemory, WanError

_OUT_OF_MEMORY = re.compile(r"out of memory|not enough memory|cannot allocate memory|std::bad_alloc", re.IGNORECASE)
#: errors after which a CUDA context answers nothing but errors, as the CUDA driver API lists them
_DEVICE_LOST = re.compile(
    r"illegal memory access|device-side assert|unspecified launch failure|launch timed out|misaligned address"
    r"|illegal instruction|illegal address|hardware stack error|uncorrectable ecc|fallen off the bus"
    r"|(device|gpu) (is|was) lost|driver shutting down|no cuda-capable device|cuda error: unknown error",
    re.IGNORECASE,
)

#: words in the engine's texts -> the phase they announce; the first that is found counts
_PHASES = (
    ("load", "loading"),
    ("download", "loading"),
    ("encod", "encoding"),
    ("decod", "decoding"),
    ("sav", "saving"),
    ("denois", "denoising"),
)


def typed_error(error: BaseException | str) -> WanError | None:
    """The error of ours that an exception or a message of the engine stands for; None when it is none of them."""
    text = str(error)
    if isinstance(error, OutOfMemory):
        return OutOfMemory(text)  # a new one: the old one's traceback holds the memory
    if isinstance(error, WanError):
        return error
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or _OUT_OF_MEMORY.search(text):
        return OutOfMemory(f"out of memory: {_first_line(text)}" if text else None)
    if _DEVICE_LOST.search(text):
        return DeviceLost(f"the accelerator stopped working: {_first_line(text)}")
    return None


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else ""


class EngineRun:
    """The other side of `generate_video`: a `state` that no other run has seen, and the receiver of its events.

    A state is never used twice, so a file of an earlier run cannot be taken for this one's.
    """

    def __init__(
        self,
        model: str,
        loras: Sequence[str],
        on_progress: OnProgress,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.state: dict[str, Any] = {
            "gen": _fresh_gen(),
            "loras": list(loras),
            "model_type": model,
        }
        self.notes: list[str] = []
        self._on_progress = on_progress
        self._pace = Pace(clock)
        self._phase = "loading"
        self._error: WanError | None = None
        self._lock = threading.Lock()
        self._stop: Callable[[], None] | None = None

    def receive(self, command: str, data: Any = None) -> None:
        """`send_cmd` of the engine: events become progress, notes, or the error that `raise_error` raises."""
        if self.state["gen"]["abort"]:
            self.interrupt()  # again: an engine forgets an interruption that came before its start
        if command == "progress":
            self._tell(self._progress(data))
        elif command == "status" and data:
            self._phase = _phase_of(str(data)) or self._phase
            self._tell(Progress(self._phase, text=str(data)))
        elif command == "info" and data:
            self.notes.append(str(data))
        elif command == "error" and self._error is None:
            self._error = typed_error(data) or EngineError(str(data) or None)

    def _tell(self, progress: Progress) -> None:
        """Report. An engine may take an error of the receiver for its own, so it is kept for `raise_error`."""
        gen = self.state["gen"]
        placed = replace(progress, window=gen.get("window_no", 0), windows=gen.get("total_windows", 0))
        try:
            self._on_progress(self._pace.timed(placed))
        except WanError as error:
            self._error = error
            raise

    def _progress(self, data: Any) -> Progress:
        """`[0, text]`, or `[(step, total), text, …]`."""
        counter, text = data[0], str(data[1]) if len(data) > 1 else ""
        if isinstance(counter, (tuple, list)):
            self._phase = _phase_of(text) or "denoising"
            return Progress(self._phase, int(counter[0]), int(counter[1]), text)
        self._phase = _phase_of(text) or self._phase
        return Progress(self._phase, text=text)

    def arm(self, stop: Callable[[], None]) -> None:
        """From now on `interrupt` also calls `stop`, which reaches into the model at work."""
        with self._lock:
            self._stop = stop

    def interrupt(self) -> None:
        """Ask the engine to stop at its next step. Does nothing once the run is over: never a neighbour."""
        with self._lock:
            self.state["gen"].update(abort=True, resume=True)
            if self._stop is not None:
                self._stop()

    def over(self) -> None:
        """The engine returned."""
        with self._lock:
            self._stop = None

    def raise_error(self) -> None:
        """Raises what the engine reported as an `error` event, or what the receiver of its progress raised."""
        if self._error is not None:
            raise self._error

    def saved(self) -> tuple[Path, ...]:
        """What the engine wrote, in the order of its reports; waits for all that it still writes, and raises the first
        of what kept a file from being written."""
        gen = self.state["gen"]
        failures = [failure for wait in gen["unsaved"] if (failure := _failure(wait)) is not None]
        if failures:
            raise failures[0]
        return tuple(Path(file) for file in (*gen["file_list"], *gen["audio_file_list"]))

    def abandon(self) -> None:
        """Nobody wants what the engine still writes of a run that did not end well: have it stop, and see it go. The
        folder that it is written to may be removed then."""
        self.interrupt()
        for wait in self.state["gen"]["unsaved"]:
            _failure(wait)

    @property
    def beside(self) -> tuple[str, ...]:
        """The models that helped the run's own, each once."""
        return tuple(dict.fromkeys(self.state["gen"].get("models_beside", ())))


def _failure(work: Callable[[], object]) -> Exception | None:
    """What `work` raised."""
    try:
        work()
    except (WanError, OSError) as error:
        return error
    return None


def _fresh_gen() -> dict[str, Any]:
    return {
        "file_list": [],
        "unsaved": [],
        "file_settings_list": [],
        "audio_file_list": [],
        "audio_file_settings_list": [],
        "selected": 0,
        "audio_selected": 0,
        "queue": [],
        "prompt_no": 1,
        "prompts_max": 1,
        "process_status": "process:main",
        "in_progress": True,
        "abort": False,
        "resume": False,
        "early_stop": False,
    }


def _phase_of(text: str) -> str | None:
    lowered = text.lower()
    return next((phase for word, phase in _PHASES if word in lowered), None)
