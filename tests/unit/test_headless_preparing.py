"""The runs that wait for the accelerator are prepared beside it: how far ahead, in how much memory, and who waits."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import wait
from dataclasses import replace
from pathlib import Path

import pytest

from headless.generation import CancelToken, GenerationTask, Prepared
from headless.line import MOST_BYTES
from headless.model_management import HeadlessTaskQueue
from headless.options import GenerationOptions
from headless.testing import FakeOrchestrator, Gate

WAIT_S = 20.0

TaskFactory = Callable[..., GenerationTask]


@pytest.fixture
def make_task(tmp_path: Path) -> TaskFactory:
    def make(name: str, priority: int = 0, **knobs: object) -> GenerationTask:
        values = {"prompt": "a red kite", "resolution": "32x32", "video_length": 5} | knobs
        folder, options = tmp_path / name, GenerationOptions.parse(values)
        return GenerationTask(id=name, model="fake_t2v", options=options, output_dir=folder, priority=priority)

    return make


@pytest.fixture
def gate() -> Gate:
    return Gate()


def until(holds: Callable[[], bool]) -> None:
    """For what no event announces, and what comes at once."""
    deadline = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline, "it took too long"
        threading.Event().wait(0.005)


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class SlowToPrepare(FakeOrchestrator):
    """Takes a quarter of a second of the clock to prepare a task, and says when it has; `held` may keep it there."""

    def __init__(self, clock: Clock, gate: Gate, held: Gate | None = None) -> None:
        super().__init__(gate=gate)
        self._clock, self._held = clock, held
        self.prepared: list[str] = []
        self._changed = threading.Condition()

    def prepare(self, task: GenerationTask) -> GenerationTask:
        if self._held is not None and self.prepared:
            self._held.hold(CancelToken())
        self._clock.now += 0.25
        with self._changed:
            self.prepared.append(task.id)
            self._changed.notify_all()
        return replace(super().prepare(task), prepared=Prepared(num_bytes=task.options.seed or 0))

    def wait_until_prepared(self, *names: str) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: list(names) == self.prepared, WAIT_S), self.prepared


def test_what_is_prepared_while_another_runs_takes_none_of_the_accelerators_time(
    make_task: TaskFactory, gate: Gate
) -> None:
    engine = SlowToPrepare(clock := Clock(), gate)
    with HeadlessTaskQueue(engine, clock=clock) as queue:
        first = queue.submit(make_task("a"))
        gate.wait_until_held(WAIT_S)
        second = queue.submit(make_task("b"))
        engine.wait_until_prepared("a", "b")
        gate.open()
        wait([first, second], WAIT_S)
        assert queue.statistics().hand_off_seconds == [0.0]
        clock.now += 60
        queue.submit(make_task("c")).result(WAIT_S)
        assert len(queue.statistics().hand_off_seconds) == 1


def test_the_accelerator_waits_for_a_preparing_and_books_that_as_waiting(make_task: TaskFactory, gate: Gate) -> None:
    gate.open()
    engine = SlowToPrepare(clock := Clock(), gate, held := Gate())
    with HeadlessTaskQueue(engine, clock=clock) as queue:
        queue.submit(make_task("a")).result(WAIT_S)
        before = queue.statistics().seconds["idle_waiting"]
        second = queue.submit(make_task("b"))
        held.wait_until_held(WAIT_S)
        until(lambda: queue.silence() is not None)
        silence = queue.silence()
        assert silence is not None and (silence.task_id, silence.phase) == ("b", "preparing")
        held.open()
        second.result(WAIT_S)
        statistics = queue.statistics()
        assert statistics.seconds["idle_waiting"] - before == 0.25
        assert sum(statistics.seconds.values()) == statistics.uptime_s == 0.5


def test_the_next_two_runs_are_prepared_and_no_more_whatever_comes(make_task: TaskFactory, gate: Gate) -> None:
    engine = SlowToPrepare(clock := Clock(), gate)
    with HeadlessTaskQueue(engine, clock=clock) as queue:
        futures = [queue.submit(make_task("a"))]
        gate.wait_until_held(WAIT_S)
        futures += [queue.submit(make_task(name)) for name in "bcd"]
        engine.wait_until_prepared(*"abc")
        futures.append(queue.submit(make_task("e", priority=1)))
        engine.wait_until_prepared(*"abce")
        gate.open()
        wait(futures, WAIT_S)
        # c had to give way to e, and is prepared once more when its turn comes
        assert [task.id for task in engine.tasks] == [*"aebcd"]
        assert engine.prepared == [*"abcecd"]


def test_a_second_run_is_prepared_only_while_there_is_room(make_task: TaskFactory, gate: Gate) -> None:
    engine = SlowToPrepare(clock := Clock(), gate)
    with HeadlessTaskQueue(engine, clock=clock) as queue:
        futures = [queue.submit(make_task("a"))]
        gate.wait_until_held(WAIT_S)
        futures += [queue.submit(make_task("b", seed=MOST_BYTES + 1)), queue.submit(make_task("c"))]
        engine.wait_until_prepared(*"ab")
        assert queue.cancel("b")
        engine.wait_until_prepared(*"abc")
        gate.open()
        wait(futures, WAIT_S)


def test_what_was_prepared_is_freed_when_its_run_is_cancelled(make_task: TaskFactory, gate: Gate) -> None:
    class Pixels:
        pass

    made: list[weakref.ref[Pixels]] = []

    class Reads(FakeOrchestrator):
        def prepare(self, task: GenerationTask) -> GenerationTask:
            pixels = Pixels()
            made.append(weakref.ref(pixels))
            return replace(super().prepare(task), prepared=Prepared(pixels))

    with HeadlessTaskQueue(Reads(gate=gate)) as queue:
        kept = queue.submit(make_task("a"))
        gate.wait_until_held(WAIT_S)
        others = [queue.submit(make_task(name)) for name in "bc"]
        until(lambda: len(made) == 3)
        for name in "bc":
            assert queue.cancel(name)
        wait(others, WAIT_S)
        gate.open()
        kept.result(WAIT_S)
        queue.submit(make_task("d")).result(WAIT_S)
        assert [pixels() for pixels in made] == [None] * 4
