"""What an operator does to tasks while a worker is at work on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from local_stack import LocalStack
from local_stack import stack as stack
from project_floor import ProjectFloor
from worker_floor import DEADLINE_S, Floor

from headless.testing import FakeOrchestrator, Gate
from source.store.types import Status

Make = Callable[[str, Gate], Floor]


@pytest.fixture
def make(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Make]:
    floors: list[Floor] = []

    def make(backend: str, gate: Gate) -> Floor:
        engine, quick = FakeOrchestrator(gate=gate), {"heartbeat_s": 0.2, "max_in_flight": 1}
        if backend == "sqlite":
            floors.append(Floor(tmp_path, engine, **quick))
        else:
            running: LocalStack = request.getfixturevalue("stack")
            floors.append(ProjectFloor(tmp_path, running, engine, **quick))
        return floors[-1]

    yield make
    for floor in floors:
        floor.close()


@pytest.mark.parametrize("backend", ["sqlite", "supabase"])
def test_a_requeued_task_is_let_go_by_its_worker_and_runs_again(make: Make, backend: str) -> None:
    gate = Gate()
    floor = make(backend, gate)
    task = floor.add()
    with floor.working() as worker:
        gate.wait_until_held(DEADLINE_S)
        [run] = worker.runs()
        assert floor.store.requeue(task) is Status.QUEUED
        assert run.ended.wait(DEADLINE_S)
        gate.open()
        row = floor.wait_for(task, Status.COMPLETE)
    assert (row.attempts, row.claim_number) == (0, 2)
    assert floor.event_names(task).count("complete") == 1


def test_what_runs_finishes_although_it_is_paused_and_the_next_waits_to_be_resumed(make: Make) -> None:
    gate = Gate()
    floor = make("sqlite", gate)
    running = floor.add()
    with floor.working():
        gate.wait_until_held(DEADLINE_S)
        held = floor.add()
        for task in (running, held):
            floor.store.pause(task)
        gate.open()
        floor.wait_for(running, Status.COMPLETE)
        assert floor.store.idle(), "nothing can go on by itself"
        assert floor.store.get(held).status is Status.QUEUED
        floor.store.resume(held)
        floor.wait_for(held, Status.COMPLETE)


def test_a_shutdown_gives_a_paused_task_back_to_be_held(make: Make) -> None:
    gate = Gate()
    floor = make("sqlite", gate)
    task = floor.add()
    with floor.working():
        gate.wait_until_held(DEADLINE_S)
        floor.store.pause(task)
    row = floor.store.get(task)
    assert (row.status, row.paused, row.attempts) == (Status.QUEUED, True, 0)
    assert floor.work() == 0, "there is nothing to wait for"
    floor.store.resume(task)
    gate.open()
