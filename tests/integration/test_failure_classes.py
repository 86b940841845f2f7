"""What becomes of a task, of its neighbours and of the worker, by the kind of what went wrong."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from worker_floor import DEADLINE_S, Floor

from headless.generation import CancelToken, GenerationOutcome, GenerationTask, OnProgress
from headless.testing import FakeOrchestrator, Gate
from source.diagnostics.task import task_view
from source.errors import DeviceLost, EngineError, OutOfMemory
from source.hangs import Hangs
from source.ledger import claim_lines
from source.store.types import Status
from Wan2GP.parameters import LEAST_MEMORY_PROFILE


class Clock:
    """The queue's seconds; they move only when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def pass_by(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def floor(tmp_path: Path) -> Iterator[Floor]:
    floor = Floor(tmp_path)
    yield floor
    floor.close()


def ends(floor: Floor, task: str) -> list[str]:
    return [line.end for line in claim_lines(floor.store.events(task))]


# ---- F15: out of memory


def test_out_of_memory_is_tried_once_more_in_place_and_in_little_memory(floor: Floor) -> None:
    floor.engine.fail_next(OutOfMemory("out of memory: 40 GB were asked for"))
    task, neighbour = floor.add(), floor.add()
    floor.work()
    row = floor.store.get(task)
    assert (row.status, row.attempts, ends(floor, task)) == (Status.COMPLETE, 0, ["complete"])
    runs = [each.options.override_profile for each in floor.engine.tasks if each.id == task]
    assert runs == [None, LEAST_MEMORY_PROFILE]
    assert len(floor.engine.loads) >= 2, "what was in memory was let go"
    assert row.result_data and row.result_data["memory_profile"] == LEAST_MEMORY_PROFILE
    [told] = [event.detail or "" for event in floor.store.events(task) if event.name == "out_of_memory"]
    assert "40 GB" in told and f"profile {LEAST_MEMORY_PROFILE}" in told
    assert "memory_profile" not in (floor.store.get(neighbour).result_data or {})


def test_memory_that_runs_out_again_fails_the_task_and_the_next_one_succeeds(floor: Floor) -> None:
    for _ in range(2):
        floor.engine.fail_next(OutOfMemory("out of memory"))
    task, neighbour = floor.add(), floor.add()
    assert floor.work() == 0
    row = floor.store.get(task)
    assert (row.status, row.error_class) == (Status.FAILED, "out_of_memory")
    assert ends(floor, task) == ["failed: out_of_memory"]
    assert floor.store.get(neighbour).status is Status.COMPLETE
    assert len(floor.engine.calls) == 3


def test_a_second_claim_has_no_further_try_until_somebody_asks_for_one(floor: Floor) -> None:
    for error in (OutOfMemory("out"), EngineError("stumbled"), OutOfMemory("out again")):
        floor.engine.fail_next(error)
    task = floor.add()
    floor.work()
    assert ends(floor, task) == ["retry: engine", "failed: out_of_memory"]
    floor.engine.fail_next(OutOfMemory("out"))
    floor.store.retry(task)
    floor.work()
    assert floor.store.get(task).status is Status.COMPLETE


# ---- F16: the device is lost


def test_a_lost_device_ends_the_worker_with_code_3_and_burns_no_attempt(floor: Floor) -> None:
    floor.engine.fail_next(DeviceLost("CUDA error: an illegal memory access"))
    first, second = floor.add(), floor.add()
    assert floor.work() == 3
    rows = [floor.store.get(task) for task in (first, second)]
    assert {(row.status, row.attempts) for row in rows} == {(Status.QUEUED, 0)}
    assert ends(floor, first) == ["released: device_lost"]
    assert not floor.published()


def test_a_task_that_takes_the_device_away_each_time_is_poison(tmp_path: Path) -> None:
    for number in range(3):
        floor = Floor(tmp_path)
        task = task if number else floor.add()  # noqa: F821 - the first round's
        floor.engine.fail_next(DeviceLost("CUDA error: device-side assert"))
        assert floor.work() == 3
        row = floor.store.get(task)
        floor.close()
    assert (row.status, row.error_class) == (Status.FAILED, "poison")
    assert "lost 3 times" in (row.error_message or "") and "device-side assert" in (row.error_message or "")


# ---- F17: hangs


class DeafEngine(FakeOrchestrator):
    """Stands in its first run until it is let go, whatever it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.standing, self.go = threading.Event(), threading.Event()

    def generate(self, task: GenerationTask, on_progress: OnProgress, cancel: CancelToken) -> GenerationOutcome:
        self.standing.set()
        assert self.go.wait(DEADLINE_S)
        return super().generate(task, on_progress, cancel)


def test_a_hang_that_heeds_the_token_costs_an_attempt_and_not_the_worker(tmp_path: Path) -> None:
    gate, clock = Gate(), Clock()
    floor = Floor(tmp_path, FakeOrchestrator(gate=gate), clock=clock)
    task = floor.add()
    with floor.working() as worker:
        gate.wait_until_held()
        clock.pass_by(floor.settings.hang_s + 1)
        worker.watchdog.wake()
        floor.wait_until(lambda: floor.store.get(task).claim_number == 2)
        gate.open()
        row = floor.wait_for(task, Status.COMPLETE)
    assert (row.attempts, ends(floor, task)) == (1, ["retry: hang", "complete"])
    [told] = [event.detail or "" for event in floor.store.events(task) if event.name == "hang"]
    assert "fake_t2v has said nothing for 1801 s while denoising; 1800 s are allowed" in told
    floor.close()


def test_an_engine_that_does_not_come_back_is_left_with_code_3(tmp_path: Path) -> None:
    engine, clock = DeafEngine(), Clock()
    floor = Floor(tmp_path, engine, clock=clock)
    task = floor.add()
    codes: list[int] = []
    worker = floor.worker()
    thread = threading.Thread(target=lambda: codes.append(worker.run()))
    thread.start()
    assert engine.standing.wait(DEADLINE_S)
    clock.pass_by(floor.settings.hang_s + 1)
    worker.watchdog.wake()
    floor.wait_until(lambda: "hang" in floor.event_names(task))
    assert floor.store.get(task).status is Status.IN_PROGRESS
    clock.pass_by(floor.settings.hang_grace_s)
    worker.watchdog.wake()
    thread.join(DEADLINE_S)
    row = floor.store.get(task)
    assert (codes, row.status, row.attempts, ends(floor, task)) == ([3], Status.QUEUED, 1, ["retry: hang"])
    engine.go.set()
    floor.close()


class StuckFiles(FakeOrchestrator):
    """The files of its first run are not written until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.writing, self.go = threading.Event(), threading.Event()

    def generate(self, task: GenerationTask, on_progress: OnProgress, cancel: CancelToken) -> GenerationOutcome:
        outcome = super().generate(task, on_progress, cancel)
        return replace(outcome, saved=partial(self._write, outcome.files)) if len(self.tasks) == 1 else outcome

    def _write(self, files: tuple[Path, ...]) -> tuple[Path, ...]:
        self.writing.set()
        assert self.go.wait(DEADLINE_S)
        return files


def test_files_that_are_never_written_end_the_worker_as_an_engine_that_hangs(tmp_path: Path) -> None:
    """All later runs wait behind them: their rows go back as they were."""
    engine, clock = StuckFiles(), Clock()
    floor = Floor(tmp_path, engine, clock=clock)
    task, behind = floor.add(), floor.add()
    codes: list[int] = []
    worker = floor.worker()
    thread = threading.Thread(target=lambda: codes.append(worker.run()))
    thread.start()
    assert engine.writing.wait(DEADLINE_S)
    floor.wait_until(lambda: len(engine.tasks) == 2 and floor.queue.silence() is None)
    clock.pass_by(floor.settings.hang_s + 1)
    worker.watchdog.wake()
    floor.wait_until(lambda: "hang" in floor.event_names(task))
    clock.pass_by(floor.settings.hang_grace_s + 1)
    worker.watchdog.wake()
    thread.join(DEADLINE_S)
    assert (codes, ends(floor, task), ends(floor, behind)) == ([3], ["retry: hang"], ["released"])
    assert [floor.store.get(each).attempts for each in (task, behind)] == [1, 0]
    engine.go.set()
    floor.close()


def test_a_run_four_times_as_slow_as_all_before_it_is_left_alone(tmp_path: Path) -> None:
    """The watchdog looks just before each step ends; only a step beyond its bound is taken for a hang."""
    clock, pace = Clock(), {"s": 1.0}
    found: list[bool] = []

    def wait(_: float) -> None:
        clock.pass_by(pace["s"])
        hangs.look()
        found.append(any(run.token.cancelled for run in worker.runs()))

    floor = Floor(tmp_path, FakeOrchestrator(steps=3, step_s=1.0, wait=wait), clock=clock, hang_s=2, max_attempts=1)
    worker = floor.worker()
    hangs = Hangs(floor.queue, floor.settings, worker.runs, lambda: None)
    learned = floor.add()
    with floor.working() as worker:
        hangs = Hangs(floor.queue, floor.settings, worker.runs, lambda: None)
        floor.wait_for(learned, Status.COMPLETE)
        pace["s"] = 4.0
        slow = floor.add()
        floor.wait_for(slow, Status.COMPLETE)
        assert not any(found)
        pace["s"] = 41.0
        assert floor.wait_for(floor.add(), Status.FAILED).error_class == "hang"
    floor.close()


# ---- the ledger


def test_a_task_shows_how_each_claim_ended_and_what_it_took(floor: Floor) -> None:
    floor.engine.fail_next(EngineError("stumbled"))
    task = floor.add()
    floor.work()
    lines = task_view(floor.store, task)["claims"]
    assert [(line["number"], line["end"]) for line in lines] == [(1, "retry: engine"), (2, "complete")]
    assert all(line["claimed_at"] <= line["ended_at"] and line["gpu_seconds"] is not None for line in lines)
    assert "steps" in lines[0]["phases"] and lines[1]["phases"] is None
    spent = (floor.store.get(task).result_data or {})["gpu_seconds"]
    assert set(spent) == {"encode", "denoise", "decode", "save"}, "the model was there already"


def test_a_task_without_gpu_has_no_gpu_seconds(floor: Floor) -> None:
    task = floor.add("nothing")
    floor.work()
    assert floor.store.get(task).result_data is None
    assert task_view(floor.store, task)["claims"][0]["gpu_seconds"] is None
