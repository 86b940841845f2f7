"""What a run keeps on disk, so that it can go on after its process died.

    folder/<key of the request>/state.pt      the loop between two steps of the window at work
    folder/<key of the request>/window0.npy   the frames of a window that is done

Each file begins with the SHA-256 of what follows and takes its name when it is whole. What cannot be read is left out,
and what cannot be kept (a full disk) is noted: neither ends a run. Nothing here removes the folder: its owner does,
once the result is where it belongs.
"""

from __future__ import annotations

import hashlib
import io
import logging
import pickle
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from Wan2GP.engine.request import GenerationRequest
from Wan2GP.engine.request_key import request_key
from Wan2GP.media import publishing

logger = logging.getLogger(__name__)

#: the form of what is kept: a change of it starts interrupted runs anew
FORM = 2
#: keeping states takes at most this share of the time
_SHARE = 0.04
_STATE = "state.pt"
_DIGEST_BYTES = 32
#: length of the name of a request's folder
_NAME = 32


class Resume:
    """The memory of one run. Without a folder nothing is kept.

    interval_s   a state is kept at most this often, and at the end of a window; 0 keeps each step's
    notes        what the user should know: where the run went on, and what could not be kept
    """

    def __init__(
        self, folder: Path | None, key: str, interval_s: float = 0.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.notes: list[str] = []
        self._interval_s = interval_s
        self._clock = clock
        self._next_at = clock() + interval_s
        self._window = 0
        self._refused = False
        self._folder = None if folder is None else folder / key[:_NAME]
        if folder is not None:
            self._claim(folder)

    @classmethod
    def of(cls, request: GenerationRequest) -> Resume:
        """The memory of a request's run."""
        if request.checkpoint is None:
            return cls(None, "")
        return cls(request.checkpoint, request_key(request, FORM), request.checkpoint_interval_s)

    def window(self, index: int) -> Resume:
        """The memory of one window of the run."""
        self._window = index
        return self

    def finished(self, index: int) -> np.ndarray | None:
        """The frames (F, H, W, 3) uint8 of a window that was done before; None when it was not."""
        path = self._path(f"window{index}.npy")
        if path is None or not path.is_file():
            return None
        try:
            with path.open("rb") as file:
                digest = file.read(_DIGEST_BYTES)
                frames: np.ndarray = np.load(file, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            return self._damaged(path, error)
        if hashlib.sha256(np.ascontiguousarray(frames)).digest() != digest:
            return self._damaged(path, "its checksum is wrong")
        self._say(f"window {index + 1} was there already")
        return frames

    def keeping(self, index: int, frames: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """The frames of a window as they come, which are kept once all of them are there."""
        if self._folder is None:
            yield from frames
            return
        made = []
        for frame in frames:
            made.append(frame)
            yield frame
        self.finish(index, np.stack(made))

    def finish(self, index: int, frames: np.ndarray) -> None:
        """Keep the frames of a window that is done."""
        frames = np.ascontiguousarray(frames)

        def write(file: Any) -> None:
            file.write(hashlib.sha256(frames).digest())
            np.save(file, frames, allow_pickle=False)

        if self._write(f"window{index}.npy", write):
            self._drop(_STATE)

    def load(self) -> dict[str, Any] | None:
        """The state of the window at work, on the CPU; None when there is none."""
        path = self._path(_STATE)
        if path is None or not path.is_file():
            return None
        try:
            state = _read(path.read_bytes())
        except (OSError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            return self._damaged(path, error)
        if state["window"] != self._window:
            return None
        self._say(f"went on after step {state['step']} of window {self._window + 1}")
        return state

    def keep(self, state: Callable[[], dict[str, Any]], at_once: bool = False) -> None:
        """Keep a state; unless `at_once`, only when the last one is old enough."""
        started = self._clock()
        if self._folder is None or (started < self._next_at and not at_once):
            return
        payload = io.BytesIO()
        torch.save({**state(), "window": self._window}, payload)

        def write(file: Any) -> None:
            file.write(hashlib.sha256(payload.getbuffer()).digest())
            file.write(payload.getbuffer())

        self._write(_STATE, write)
        ended = self._clock()
        pause_s = max(self._interval_s, (ended - started) / _SHARE) if self._interval_s else 0.0
        self._next_at = ended + pause_s

    # ---- the folder

    def _path(self, name: str) -> Path | None:
        return None if self._folder is None else self._folder / name

    def _claim(self, folder: Path) -> None:
        """Make the run's own folder, and remove what a run of another request left."""
        assert self._folder is not None
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for other in folder.iterdir():
                if other != self._folder and len(other.name) == _NAME:
                    logger.info("what an interrupted run of another request or version kept in %s is removed", folder)
                    shutil.rmtree(other, ignore_errors=True)
        except OSError as error:
            self._unkept(error)

    def _write(self, name: str, write: Callable[[Any], None]) -> bool:
        """Whether it was written. A folder that its owner removed meanwhile is not made again."""
        path = self._path(name)
        if path is None or not path.parent.is_dir():
            return False
        try:
            with publishing(path) as partial, partial.open("wb") as file:
                write(file)
        except OSError as error:
            self._unkept(error)
            return False
        return True

    def _drop(self, name: str) -> None:
        path = self._path(name)
        try:
            if path is not None:
                path.unlink(missing_ok=True)
        except OSError as error:
            logger.info("%s could not be removed: %s", path, error)

    def _unkept(self, error: OSError) -> None:
        """Said once; the run goes on, and so does trying."""
        if not self._refused:
            self._refused = True
            logger.warning("what is needed to go on after an interruption cannot be kept: %s", error)
            self.notes.append(f"the state of the run could not be kept: {error.strerror or error}")

    def _damaged(self, path: Path, why: object) -> None:
        logger.warning("%s is damaged (%s); what it stood for is made anew", path, why)
        self.notes.append(f"{path.name} of an interrupted run was damaged; what it stood for was made anew")
        self._drop(path.name)

    def _say(self, note: str) -> None:
        logger.info("%s", note)
        self.notes.append(note)


def _read(data: bytes) -> dict[str, Any]:
    """Raises what a damaged file raises: ValueError, or an error of torch."""
    if hashlib.sha256(memoryview(data)[_DIGEST_BYTES:]).digest() != data[:_DIGEST_BYTES]:
        raise ValueError("its checksum is wrong")
    state: dict[str, Any] = torch.load(io.BytesIO(data[_DIGEST_BYTES:]), map_location="cpu", weights_only=True)
    return state
