"""A thread beside the worker's that ends the run of an engine that stands still, or of a disk that takes no files.

    silent for too long -> the run is asked to stop -> still silent after a grace -> its row goes back, the process ends

How long is too long follows from the model's own pace: a slow run that goes on is never ended.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from headless.accounting import Silence
from headless.model_management import HeadlessTaskQueue
from source.errors import Hang
from source.leases import Runs, Watchful
from source.settings import Settings

log = logging.getLogger(__name__)


class Hangs(Watchful):
    """Looks at the queue's run. `lost` is called when the engine does not come back: no other run can ever start."""

    name = "hangs"

    def __init__(self, queue: HeadlessTaskQueue, settings: Settings, runs: Runs, lost: Callable[[], None]) -> None:
        super().__init__()
        self._queue = queue
        self._settings = settings
        self._runs = runs
        self._lost = lost

    def _main(self) -> None:
        self._queue.on_work(self.wake)
        while not self._leaving.is_set():
            self._pause(self.look())

    def look(self) -> float | None:
        """Do what the silence of the run at work asks for, and that of the run whose files are written. Returns in how
        many seconds they may ask for more, unless they go on meanwhile; None: not before a run begins."""
        asked = [self._look_at(silence) for silence in (self._queue.silence(), self._queue.writing()) if silence]
        return min((left_s for left_s in asked if left_s is not None), default=None)

    def _look_at(self, silence: Silence) -> float | None:
        left_s = self.allowed_s(silence) - silence.seconds
        if left_s >= 0:
            return left_s
        run = next((run for run in self._runs() if run.task.id == silence.task_id), None)
        if run is None or run.outcome is not None:
            return None
        if not run.token.cancelled:
            run.hang(Hang(_told(silence, self.allowed_s(silence))))
        left_s += self._settings.hang_grace_s
        if left_s < 0:
            log.error("the engine does not come back; task %s is given up, and this process with it", run.task.id)
            run.give_up()
            self._lost()
            return None
        return left_s

    def allowed_s(self, silence: Silence) -> float:
        """Seconds of silence after which a run of that model hangs."""
        return max(self._settings.hang_s, self._settings.hang_factor * silence.longest_s)


def _told(silence: Silence, allowed_s: float) -> str:
    learned = f"its longest so far was {silence.longest_s:.0f} s" if silence.longest_s else "it has no run behind it"
    return (
        f"the engine stands still: {silence.model} has said nothing for {silence.seconds:.0f} s while {silence.phase}; "
        f"{allowed_s:.0f} s are allowed ({learned})"
    )
