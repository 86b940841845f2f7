"""Preparing, generating and finishing side by side, and what bounds them."""

from __future__ import annotations

import queue
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from worker_floor import DEADLINE_S, Floor

from headless.generation import CancelToken, GenerationOutcome, GenerationTask, OnProgress
from headless.testing import FakeOrchestrator
from source.params.base import TaskParams
from source.settings import Settings
from source.storage import LocalStorage, OnSent, OnStop, StagedOutput, unwatched
from source.store.types import Status, Task
from source.task_registry import Done, TaskContext

IN_FLIGHT = 3


class StandingStorage(LocalStorage):
    """Its uploads stand still until they are let go, one at a time."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.arrived: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.let_go = threading.Semaphore(0)

    def stage(self, task: Task, path: Path, *, on_sent: OnSent = unwatched, **stop: OnStop) -> StagedOutput:
        self.arrived.put(task.id)
        assert self.let_go.acquire(timeout=DEADLINE_S)
        return super().stage(task, path, on_sent=on_sent, **stop)


@pytest.fixture
def floor(tmp_path: Path) -> Iterator[Floor]:
    floor = Floor(tmp_path, max_in_flight=IN_FLIGHT)
    yield floor
    floor.close()


def test_uploads_that_stand_still_let_no_claims_pile_up(floor: Floor) -> None:
    storage = StandingStorage(floor.settings)
    tasks = [floor.add() for _ in range(2 * IN_FLIGHT)]
    with floor.working(storage=storage):
        for number in range(len(tasks)):
            if number >= IN_FLIGHT:
                assert (len(floor.claimed()), len(floor.engine.tasks)) == (IN_FLIGHT, number)
                storage.let_go.release()
            storage.arrived.get(timeout=DEADLINE_S)
        for _ in range(IN_FLIGHT):
            storage.let_go.release()
        for task in tasks:
            floor.wait_for(task, Status.COMPLETE)
    assert [floor.store.get(task).claim_number for task in tasks] == [1] * len(tasks)


class Meeting(FakeOrchestrator):
    """A run of it ends when another task is prepared, and one that is prepared begins when a run goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.meet = threading.Barrier(2, timeout=DEADLINE_S)

    def generate(self, task: GenerationTask, on_progress: OnProgress, cancel: CancelToken) -> GenerationOutcome:
        if len(self.tasks) == 0:
            self.meet.wait()
        return super().generate(task, on_progress, cancel)


def test_the_next_task_is_prepared_while_the_gpu_works(tmp_path: Path) -> None:
    engine = Meeting()
    floor = Floor(tmp_path, engine)
    prepared: list[str] = []

    def run(params: TaskParams, context: TaskContext) -> Done:
        prepared.append(context.task.id)
        if len(prepared) == 2:
            engine.meet.wait()
        return Done(context.generate("fake_image", params.options).output)

    floor.register("prepare", run, uses_gpu=True)
    tasks = [floor.add("prepare", prompt="a kite") for _ in range(2)]
    floor.work()
    floor.close()
    assert prepared == tasks and len(engine.tasks) == 2


def test_a_successor_reads_its_predecessors_file_where_it_lies(floor: Floor) -> None:
    found: list[Path] = []

    def look(params: TaskParams, context: TaskContext) -> Done:
        found.extend(each.output for each in context.dependencies())
        return Done(None)

    floor.register("look", look)
    first = floor.add()
    floor.add("look", dependant_on=(first,))
    floor.work()
    assert found == [floor.output(first).resolve()]


def test_a_last_attempt_is_made_alone(tmp_path: Path) -> None:
    """Who else is at work may be what killed the workers before it. Of six, the second and third have one attempt left,
    and the last three wait for each other."""
    floor = Floor(tmp_path, max_in_flight=IN_FLIGHT)
    running: set[str] = set()
    beside: dict[str, set[str]] = {}
    company = threading.Condition()
    together = threading.Barrier(IN_FLIGHT, timeout=DEADLINE_S)

    def run(params: TaskParams, context: TaskContext) -> Done:
        task = context.task.id
        if task in tasks[3:]:
            together.wait()
        with company:
            beside[task] = set(running)
            for other in running:
                beside[other].add(task)
            running.add(task)
            company.notify_all()
            company.wait_for(lambda: task in tasks[3:] or beside[task], timeout=0.3)
            running.remove(task)
        return Done(None)

    floor.register("meet", run)
    tasks = [floor.add("meet") for _ in range(6)]
    with closing(sqlite3.connect(floor.settings.db_file)) as connection, connection:
        connection.executemany("UPDATE tasks SET attempts = 2 WHERE id = ?", [(task,) for task in tasks[1:3]])
    floor.work()
    assert {floor.store.get(task).status for task in tasks} == {Status.COMPLETE}
    assert [beside[task] for task in tasks[:3]] == [set()] * 3
    floor.close()


def test_what_waits_for_its_last_attempt_goes_back_when_the_worker_stops(tmp_path: Path) -> None:
    floor = Floor(tmp_path, max_in_flight=3)
    began, go_on = threading.Event(), threading.Event()

    def stand(params: TaskParams, context: TaskContext) -> Done:
        began.set()
        assert go_on.wait(DEADLINE_S)
        return Done(None)

    floor.register("stand", stand)
    first, last = floor.add("stand"), floor.add("nothing")
    with closing(sqlite3.connect(floor.settings.db_file)) as connection, connection:
        connection.execute("UPDATE tasks SET attempts = 2 WHERE id = ?", (last,))
    with floor.working() as worker:
        assert began.wait(DEADLINE_S)
        floor.wait_for(last, Status.IN_PROGRESS)
        worker.stop()
        floor.wait_for(last, Status.QUEUED)
        go_on.set()
    row = floor.store.get(last)
    assert (row.status, row.attempts) == (Status.QUEUED, 2)
    assert floor.store.get(first).status in {Status.COMPLETE, Status.QUEUED}
    floor.close()
