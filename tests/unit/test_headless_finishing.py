"""The finish lane of the queue: files are written while the accelerator works on the next run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from headless.generation import CancelToken, GenerationOutcome, GenerationTask, OnProgress, Progress
from headless.model_management import HeadlessTaskQueue
from headless.options import GenerationOptions
from headless.testing import FakeOrchestrator, Gate
from Wan2GP.errors import DeviceLost, EngineError, GenerationCancelled

WAIT_S = 20.0

TaskFactory = Callable[..., GenerationTask]


class LateSaver(FakeOrchestrator):
    """Its files are there when `gate` opens, and not before; `failures` by task id are raised instead."""

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self.gate = gate
        self.failures: dict[str, Exception] = {}

    def generate(self, task: GenerationTask, on_progress: OnProgress, cancel: CancelToken) -> GenerationOutcome:
        outcome = super().generate(task, on_progress, cancel)

        def saved() -> tuple[Path, ...]:
            self.gate.hold(cancel)
            cancel.raise_if_cancelled()
            if task.id in self.failures:
                raise self.failures[task.id]
            return outcome.files

        return replace(outcome, files=(), saved=saved)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open()


@pytest.fixture
def make_task(tmp_path: Path) -> TaskFactory:
    options = GenerationOptions.parse({"prompt": "a kite", "resolution": "32x32", "video_length": 5})
    return lambda name: GenerationTask(id=name, model="fake_t2v", options=options, output_dir=tmp_path / name)


def test_the_accelerator_goes_on_while_files_are_written(make_task: TaskFactory, gate: Gate) -> None:
    generated = threading.Event()

    def hear(progress: Progress) -> None:
        if progress.phase == "saving":
            generated.set()

    with HeadlessTaskQueue(LateSaver(gate)) as queue:
        first = queue.submit(make_task("first"))
        gate.wait_until_held(WAIT_S)
        second = queue.submit(make_task("second"), on_progress=hear)
        assert generated.wait(WAIT_S)
        assert not first.done()
        gate.open()
        assert first.result(WAIT_S).output.is_file()
        assert second.result(WAIT_S).output.is_file()


def test_a_run_whose_files_are_written_is_none_that_runs(make_task: TaskFactory, gate: Gate) -> None:
    with HeadlessTaskQueue(LateSaver(gate)) as queue:
        future = queue.submit(make_task("a"))
        gate.wait_until_held(WAIT_S)
        assert (queue.status().running, queue.status().completed) == (None, 0)
        gate.open()
        future.result(WAIT_S)
        assert queue.status().completed == 1


def test_cancel_stops_the_writing_and_no_other_run(make_task: TaskFactory, gate: Gate) -> None:
    with HeadlessTaskQueue(LateSaver(gate)) as queue:
        first, second = queue.submit(make_task("first")), queue.submit(make_task("second"))
        gate.wait_until_held(WAIT_S)
        assert queue.cancel("first")
        assert isinstance(first.exception(WAIT_S), GenerationCancelled)
        gate.open()
        assert second.result(WAIT_S).files


@pytest.mark.parametrize("error", [EngineError("the encoder failed"), OSError(28, "No space left on device")])
def test_what_keeps_files_from_being_written_ends_that_run_alone(
    make_task: TaskFactory, gate: Gate, error: Exception
) -> None:
    engine = LateSaver(gate)
    engine.failures["first"] = error
    gate.open()
    with HeadlessTaskQueue(engine) as queue:
        first, second = queue.submit(make_task("first")), queue.submit(make_task("second"))
        assert first.exception(WAIT_S) is error
        assert second.result(WAIT_S).files


def test_stopping_ends_a_run_whose_files_are_written(make_task: TaskFactory, gate: Gate) -> None:
    queue = HeadlessTaskQueue(LateSaver(gate))
    queue.start()
    future = queue.submit(make_task("a"))
    gate.wait_until_held(WAIT_S)
    queue.stop(reason=GenerationCancelled("over"))
    assert str(future.exception(0)) == "over"
    assert not queue.alive


def test_a_lost_device_takes_no_result_that_was_made_before(make_task: TaskFactory, gate: Gate) -> None:
    engine = LateSaver(gate)
    with HeadlessTaskQueue(engine) as queue:
        first = queue.submit(make_task("first"))
        gate.wait_until_held(WAIT_S)
        engine.fail_next(DeviceLost("gone"))
        assert isinstance(queue.submit(make_task("second")).exception(WAIT_S), DeviceLost)
        gate.open()
        assert first.result(WAIT_S).files
