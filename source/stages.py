"""What a run spent its time on, phase by phase: heard from its progress, so it costs nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from headless.generation import Progress

#: from the claim until the run says something else
FIRST = "preparing"


class StageTimes:
    """Books each second since it was made under one phase, and counts denoising steps. One thread calls it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._at = clock()
        self._phase = FIRST
        self._seconds: dict[str, float] = {}
        self._steps = 0
        #: the window and the step that were heard of last
        self._place = (-1, 0)

    def enter(self, phase: str) -> None:
        """Be in `phase` from now on."""
        self._book()
        self._phase = phase

    def hear(self, progress: Progress) -> None:
        """The run reported progress."""
        self.enter(progress.phase)
        if progress.phase in ("queued", "loading"):
            self._place = (-1, 0)
        if progress.phase == "denoising":
            self._count(progress.window, progress.step)

    def _count(self, window: int, step: int) -> None:
        """The first report of a window says where it begins: 0, or what an earlier claim had made of it."""
        same, before = window == self._place[0], self._place[1]
        self._steps += max(step - before, 0) if same else int(step == 1)
        self._place = (window, step)

    def as_json(self) -> dict[str, Any]:
        """The phases with their seconds, in the order in which they came, and the steps that were made:
        {"stages": [["loading", 2.1], …], "steps_made": 12}. (A list, for Postgres keeps no order of names.)"""
        self._book()
        told: dict[str, Any] = {"stages": [[phase, round(each, 3)] for phase, each in self._seconds.items()]}
        return told | ({"steps_made": self._steps} if self._steps else {})

    def in_words(self) -> str:
        """The same: "loading 2.1, denoising 10.5, 7 steps"; what took no time is left out."""
        told = self.as_json()
        words = [f"{phase} {seconds:.1f}" for phase, seconds in told["stages"] if seconds >= 0.05]
        steps = [f"{self._steps} {'step' if self._steps == 1 else 'steps'}"] if self._steps else []
        return ", ".join([*words, *steps])

    def _book(self) -> None:
        now = self._clock()
        self._seconds[self._phase] = self._seconds.get(self._phase, 0.0) + now - self._at
        self._at = now


def seconds_of(progress: Mapping[str, Any]) -> dict[str, float]:
    """Seconds by phase out of a row's progress, in the order in which they came. One that says nothing of it: {}."""
    try:
        return {str(phase): float(seconds) for phase, seconds in progress.get("stages") or ()}
    except (TypeError, ValueError):  # another program wrote it
        return {}
