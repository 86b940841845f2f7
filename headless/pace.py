"""How fast a run is, and when it will be done."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from headless.generation import Progress

#: denoising steps that the pace is the median of
STEPS = 7


@dataclass
class Pace:
    """Times the progress of one run. Loading and the steps that an earlier claim made do not count.

    A window's time beside its steps (encoding, decoding) is known once one window has ended.
    """

    clock: Callable[[], float]
    _steps: deque[float] = field(default_factory=lambda: deque(maxlen=STEPS))
    _between: deque[float] = field(default_factory=lambda: deque(maxlen=STEPS))
    #: the latest report of denoising, and when it came
    _last: Progress | None = None
    _at: float = 0.0

    def timed(self, progress: Progress) -> Progress:
        """`progress` with the seconds of a step and those that are left, where they are known."""
        if progress.phase == "denoising" and progress.total:
            self._note(progress)
        if not self._steps:
            return progress
        step_s = statistics.median(self._steps)
        return replace(progress, seconds_per_step=step_s, eta_s=self._left_s(progress, step_s))

    def _note(self, progress: Progress) -> None:
        now, last = self.clock(), self._last
        if last is not None and last.window == progress.window and progress.step > last.step:
            taken = (now - self._at) / (progress.step - last.step)
            self._steps.extend([taken] * (progress.step - last.step))
        elif last is not None and progress.window > last.window and last.step == last.total:
            self._between.append(now - self._at)
        self._last, self._at = progress, now

    def _left_s(self, progress: Progress, step_s: float) -> float | None:
        """Of the last window the decoding and saving are left after its steps; they are taken for what lies between
        two windows."""
        last = self._last
        if last is None or progress.phase == "saving":
            return None
        following = max(progress.windows - last.window, 0)
        steps = last.total - last.step + following * last.total
        between_s = statistics.median(self._between) if self._between else 0.0
        beside_s = max(between_s - (self.clock() - self._at), 0.0) + following * between_s
        return steps * step_s + beside_s
