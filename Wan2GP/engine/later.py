"""Files that are written while the accelerator works on: frames go to another thread through a spool.

    model -> put … put (the accelerator's thread, which goes on as soon as all frames are in) | save (another thread)

At most `MOST_BYTES` of frames wait in a spool: of a longer video the accelerator waits for the encoder, as it would
without one. At most two runs are unsaved at once, the next one waits for the first. No torch here.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

from Wan2GP.engine.families import Cancel
from Wan2GP.engine.finishing import Finishing
from Wan2GP.engine.request import Frame, GenerationRequest
from Wan2GP.engine.saving import save_frames
from Wan2GP.errors import WanError

#: frames of 81 pictures of 1280x720 are 224 MB
MOST_BYTES = 512 * 1024**2
#: runs whose files are not written yet: one beside the one that runs
MOST_UNSAVED = 2

_savers = ThreadPoolExecutor(MOST_UNSAVED, "save")


class Slots:
    """So many runs may be unsaved."""

    def __init__(self, free: int) -> None:
        self._changed = threading.Condition()
        self._free = free

    def take(self, aborted: Cancel) -> None:
        """Wait for a free one. Raises GenerationCancelled when `aborted` says so; `look_again` has it asked."""
        with self._changed:
            while not self._free:
                aborted.raise_if_requested()
                self._changed.wait()
            self._free -= 1

    def give_back(self) -> None:
        """One is free again."""
        with self._changed:
            self._free += 1
            self._changed.notify_all()

    def look_again(self) -> None:
        """Somebody asked a run to stop."""
        with self._changed:
            self._changed.notify_all()


slots = Slots(MOST_UNSAVED)


class Spool:
    """Frames on their way from the thread that makes them to the one that saves them."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._changed = threading.Condition()
        self._frames: deque[Frame] = deque()
        self._bytes = 0
        self._ended = self._left = False
        self._error: Exception | None = None

    def put(self, frame: Frame) -> bool:
        """Append a frame; waits while the spool is full. False when nobody takes frames any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._left or self._bytes < self._most_bytes)
            if self._left:
                return False
            # A copy: a model may draw its next frame into the same memory.
            self._frames.append(frame.copy())
            self._bytes += frame.nbytes
            self._changed.notify_all()
        return True

    def end(self, error: Exception | None = None) -> None:
        """No more frames come. With an error those that wait are dropped, and it is raised where they are taken."""
        with self._changed:
            self._ended, self._error = True, error
            if error is not None:
                self._frames.clear()
            self._changed.notify_all()

    def leave(self) -> None:
        """No more frames are taken."""
        with self._changed:
            self._left = True
            self._frames.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Frame]:
        while (frame := self._taken()) is not None:
            yield frame

    def _taken(self) -> Frame | None:
        with self._changed:
            self._changed.wait_for(lambda: self._frames or self._ended)
            if self._error is not None:
                raise self._error
            if not self._frames:
                return None
            frame = self._frames.popleft()
            self._bytes -= frame.nbytes
            self._changed.notify_all()
        return frame


def save_later(
    made: Iterable[Frame], save: Callable[[Iterable[Frame]], list[Path]], aborted: Cancel, most_bytes: int = MOST_BYTES
) -> Future[list[Path]]:
    """Take all frames here and have them saved on another thread. Returns when the last one was made; the future ends
    with the files, or with what `save` raised. Raises what `made` raises, and leaves nothing behind then.

    `aborted` is asked before each frame is saved.
    """
    slots.take(aborted)
    spool = Spool(most_bytes)
    saved = _savers.submit(lambda: save(_until(spool, aborted)))
    saved.add_done_callback(lambda _: (spool.leave(), slots.give_back()))
    try:
        for frame in made:
            if not spool.put(frame):
                break
    except BaseException:
        spool.end(RuntimeError("the frames ended with a failure"))
        wait([saved])
        raise
    spool.end()
    return saved


def _until(spool: Spool, aborted: Cancel) -> Iterator[Frame]:
    for frame in spool:
        aborted.raise_if_requested()
        yield frame


def begin_saving(
    made: Iterable[Frame], finish: Finishing, request: GenerationRequest, folder: Path, requested: Callable[[], bool]
) -> Callable[[], list[Path]]:
    """Take the frames of a run; returns what waits for its files, on any thread, and raises what kept them from being
    written. `requested`: whether this run shall stop; the model may be at work on another one by then."""
    aborted = Cancel(requested)

    def save(frames: Iterable[Frame]) -> list[Path]:
        if not finish.needs_accelerator and not finish.wanted.changes_nothing:
            frames = finish.frames(frames, request, _silent, aborted)
        return save_frames(frames, request, folder, _silent, aborted)

    saved = save_later(made, save, aborted)
    return lambda: _files(saved)


def _files(saved: Future[list[Path]]) -> list[Path]:
    from Wan2GP.engine.loading import typed_failure

    try:
        return saved.result()
    except (WanError, OSError):
        raise
    except (RuntimeError, ValueError, MemoryError) as error:
        raise typed_failure(error) from error


def _silent(phase: str, step: int, total: int) -> None:
    """Nobody is told: the reports of a run are the accelerator's thread's."""
