"""The queue lends the accelerator to other programs, in turn with its own runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from headless.generation import CancelToken, GenerationTask
from headless.model_management import HeadlessTaskQueue
from headless.options import GenerationOptions
from headless.testing import FakeOrchestrator, Gate
from Wan2GP.errors import GenerationCancelled, InvalidInput

WAIT_S = 20.0


def drawing(folder: Path, name: str = "drawing") -> GenerationTask:
    options = GenerationOptions(prompt="a kite", resolution="32x32", video_length=5)
    return GenerationTask(id=name, model="fake_t2v", options=options, output_dir=folder / name)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open()


def test_inside_a_loan_no_model_is_loaded_and_nothing_generates(tmp_path: Path) -> None:
    engine = FakeOrchestrator()
    with HeadlessTaskQueue(engine) as queue:
        queue.submit(drawing(tmp_path, "before")).result(WAIT_S)
        assert engine.current_model == "fake_t2v"
        with queue.lend("borrower"):
            assert (engine.current_model, queue.status().running) == (None, "borrower")
            waiting = queue.submit(drawing(tmp_path, "after"))
            assert queue.status().pending == 1 and len(engine.calls) == 1
        assert waiting.result(WAIT_S).switched
    assert queue.outcome("borrower") == "completed"
    assert queue.statistics().hand_off_seconds == [pytest.approx(0, abs=1)]


def test_a_loan_waits_for_the_run_before_it(tmp_path: Path, gate: Gate) -> None:
    engine = FakeOrchestrator(gate=gate)
    order: list[str] = []

    def borrow(queue: HeadlessTaskQueue) -> None:
        with queue.lend("borrower"):
            order.append("lent")

    with HeadlessTaskQueue(engine) as queue:
        queue.submit(drawing(tmp_path), on_progress=lambda progress: order.append(progress.phase))
        gate.wait_until_held()
        borrower = threading.Thread(target=borrow, args=(queue,))
        borrower.start()
        gate.open()
        borrower.join(WAIT_S)
    assert order[-2:] == ["saving", "lent"]


def test_a_borrower_that_waits_may_be_cancelled(tmp_path: Path, gate: Gate) -> None:
    token = CancelToken()
    with HeadlessTaskQueue(FakeOrchestrator(gate=gate)) as queue:
        running = queue.submit(drawing(tmp_path))
        gate.wait_until_held()
        threading.Timer(0.05, token.cancel).start()
        with pytest.raises(GenerationCancelled), queue.lend("borrower", cancel=token):
            pytest.fail("it was lent after all")
        gate.open()
        assert running.result(WAIT_S).files


def test_an_error_of_the_borrower_returns_the_accelerator(tmp_path: Path) -> None:
    with HeadlessTaskQueue(FakeOrchestrator()) as queue:
        with pytest.raises(ZeroDivisionError), queue.lend("borrower"):
            _ = 1 / 0
        assert queue.submit(drawing(tmp_path)).result(WAIT_S).files


def test_the_queue_does_not_stop_over_a_borrower_that_heeds_its_token() -> None:
    token = CancelToken()
    with HeadlessTaskQueue(FakeOrchestrator()) as queue, queue.lend("borrower", cancel=token):
        threading.Thread(target=queue.stop).start()
        with pytest.raises(GenerationCancelled):
            token.wait(WAIT_S)
    assert not queue.alive


def test_nothing_is_lent_after_the_end_nor_twice_under_one_name() -> None:
    queue = HeadlessTaskQueue(FakeOrchestrator())
    queue.start()
    with queue.lend("borrower"), pytest.raises(InvalidInput), queue.lend("borrower"):
        pytest.fail("lent twice")
    queue.stop()
    with pytest.raises(GenerationCancelled), queue.lend("late"):
        pytest.fail("lent after the end")
