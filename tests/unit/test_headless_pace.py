"""Seconds a step and seconds left, by a clock that the test moves."""

from __future__ import annotations

import pytest

from headless.engine_run import EngineRun
from headless.generation import Progress
from headless.pace import Pace


class Clock:
    """Answers what it was set to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def after(self, seconds: float) -> None:
        self.now += seconds


class Video:
    """Runs a video of `windows` windows past a `Pace`: each step takes 2 s, decoding a window 10 s, encoding it 6 s."""

    def __init__(self, windows: int, steps: int) -> None:
        self.clock = Clock()
        self.pace = Pace(self.clock)
        self.windows, self.steps = windows, steps

    def tell(self, phase: str, window: int, step: int = 0, total: int = 1) -> Progress:
        return self.pace.timed(Progress(phase, step, total, window=window, windows=self.windows))

    def window(self, number: int, first: int = 0) -> list[tuple[Progress, float]]:
        """What each denoising report became, and when it came."""
        self.tell("encoding", number)
        self.clock.after(6)
        seen = [(self.tell("denoising", number, first, self.steps), self.clock.now)]
        for step in range(first + 1, self.steps + 1):
            self.clock.after(2)
            seen.append((self.tell("denoising", number, step, self.steps), self.clock.now))
        self.tell("decoding", number)
        self.clock.after(10)
        return seen


def test_the_end_is_told_right_once_a_window_is_known() -> None:
    video = Video(windows=3, steps=12)
    seen = [each for number in (1, 2, 3) for each in video.window(number)]
    ended = video.clock.now
    told = {(progress.window, progress.step): (progress.eta_s, ended - now) for progress, now in seen}
    assert told[1, 0][0] is None
    assert told[1, 1][0] == pytest.approx(11 * 2 + 2 * 12 * 2)
    for window, step in [(2, 0), (2, 7), (2, 12), (3, 0), (3, 11)]:
        eta_s, true_s = told[window, step]
        assert abs(eta_s - true_s) <= 6, (window, step)
    assert seen[-1][0].seconds_per_step == pytest.approx(2)


def test_a_run_that_goes_on_counts_only_its_own_steps() -> None:
    video = Video(windows=3, steps=12)
    first, second = (progress for progress, _ in video.window(2, first=7)[:2])
    assert (first.step, first.seconds_per_step, first.eta_s) == (7, None, None)
    assert (second.step, second.seconds_per_step) == (8, 2)
    assert second.eta_s == pytest.approx(4 * 2 + 12 * 2)


def test_one_slow_step_does_not_change_the_pace() -> None:
    video = Video(windows=1, steps=20)
    video.tell("denoising", 1, 0, 20)
    for step, seconds in enumerate([2, 2, 2, 60, 2, 2], start=1):
        video.clock.after(seconds)
        told = video.tell("denoising", 1, step, 20)
    assert (told.seconds_per_step, told.eta_s) == (2, 28)


def test_what_is_left_shrinks_between_windows_by_no_more_than_they_take() -> None:
    video = Video(windows=3, steps=4)
    video.window(1)
    assert video.tell("encoding", 2).eta_s == pytest.approx(2 * 4 * 2)
    video.window(2)
    begun = video.tell("encoding", 3)
    video.clock.after(3)
    later = video.tell("encoding", 3, 1)
    assert begun.eta_s is not None and later.eta_s == pytest.approx(begun.eta_s - 3)
    video.clock.after(1000)
    assert video.tell("encoding", 3, 1).eta_s == pytest.approx(4 * 2 + 16)


def test_without_a_denoising_step_nothing_is_told() -> None:
    told = Pace(Clock()).timed(Progress("loading", 1, 2))
    assert (told.seconds_per_step, told.eta_s) == (None, None)


def test_an_engines_events_become_progress_with_window_and_pace() -> None:
    clock, seen = Clock(), []
    run = EngineRun("tiny", (), seen.append, clock)
    run.state["gen"].update(window_no=2, total_windows=3)
    for step in (7, 8):
        run.receive("progress", [(step, 12), "denoising", 12])
        clock.after(2)
    assert seen[-1] == Progress("denoising", 8, 12, "denoising", 2, 3, seconds_per_step=2, eta_s=4 * 2 + 12 * 2)
