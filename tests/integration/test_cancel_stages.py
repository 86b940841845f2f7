"""F18: a cancel at every stage of a task, twice, and in a race with its completion.

The right task alone ends, the GPU is free for the next one within a step + 2 s, and the task ends as exactly one of
Cancelled (nothing of it is published) and Complete (its output is there).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from local_stack import LocalStack
from local_stack import stack as stack
from project_floor import ProjectFloor
from worker_floor import DEADLINE_S, Floor, draw

from headless.generation import CancelToken, GenerationOutcome, GenerationTask, OnProgress, Progress
from headless.testing import FakeOrchestrator, Gate
from source.daemon import Worker
from source.diagnostics.views import seconds_between
from source.params.base import TaskParams
from source.running import Run
from source.storage import LocalStorage, OnSent, OnStop, StagedOutput, unwatched
from source.store.types import NewTask, Status, Task, child_id
from source.task_registry import Done, Spawned, TaskContext

QUEUED, RUNNING, COMPLETE, FAILED, CANCELLED = Status
#: seconds that the GPU may be held after a cancel; the fake's steps take none
FREE_S = 2.0
STEPS = 4
MODELS = {"own": "fake_t2v", "neighbour": "fake_image"}


class Standing(FakeOrchestrator):
    """Stands still in one phase of each run of one model until the gate opens. A cancelled run goes on, to where the
    engine asks whether it is; a load asks nobody, so it stands there until the gate opens."""

    def __init__(self, phase: str, step: int, gate: Gate) -> None:
        super().__init__(steps=STEPS)
        self._at = (phase, step)
        self._stop = gate

    def load_model(self, model: str, on_progress: OnProgress, profile: int = -1) -> bool:
        if model != MODELS["own"]:
            return super().load_model(model, on_progress, profile)
        return super().load_model(model, self._standing(on_progress, CancelToken()), profile)

    def generate(self, task: GenerationTask, on_progress: OnProgress, cancel: CancelToken) -> GenerationOutcome:
        if task.model != MODELS["own"]:
            return super().generate(task, on_progress, cancel)
        return super().generate(task, self._standing(on_progress, cancel), cancel)

    def _standing(self, report: OnProgress, cancel: CancelToken) -> OnProgress:
        def told(progress: Progress) -> None:
            if (progress.phase, progress.step) == self._at:
                self._stop.hold(cancel)
            report(progress)

        return told


def add(floor: Floor, whose: str, **more: Any) -> str:
    return floor.add("draw", model=MODELS[whose], **more)


def the_run(worker: Worker, task: str) -> Run:
    [run] = [run for run in worker.runs() if run.task.id == task]
    return run


def cancel_twice(floor: Floor, task: str) -> None:
    floor.store.cancel(task)
    floor.store.cancel(task)


def ended_once(floor: Floor, task: str, published: Callable[[str], bool]) -> Status:
    """The status, after all that follows from it was looked at."""
    row = floor.store.get(task)
    names = floor.event_names(task)
    assert [name for name in names if name in ("cancelled", "complete")] == [row.status.lower()]
    assert names.count("cancel_requested") <= 1
    assert (row.output_location is not None, published(task)) == (row.status is COMPLETE,) * 2
    assert not list((floor.settings.main_output_dir / row.task_type).glob(f"{task}*"))
    return row.status


def has_file(floor: Floor) -> Callable[[str], bool]:
    return lambda task: any(task in name for name in floor.published())


def seconds_until_the_next(floor: Floor, task: str, neighbour: str) -> float:
    """From the request to the neighbour's turn on the GPU, by the database's clock."""
    [asked] = [event.at for event in floor.store.events(task) if event.name == "cancel_requested"]
    begun = next(event.at for event in floor.store.events(neighbour) if event.name == "started")
    waited = seconds_between(asked, begun)
    assert waited is not None
    return waited


ON_THE_GPU = [("loading", 1), ("encoding", 1), ("denoising", 3), ("decoding", 1), ("saving", 1)]


@pytest.mark.parametrize(("phase", "step"), ON_THE_GPU)
def test_on_the_gpu_it_is_free_for_the_next_task_at_once(tmp_path: Path, phase: str, step: int) -> None:
    gate = Gate()
    floor = Floor(tmp_path, Standing(phase, step, gate), heartbeat_s=50)
    task, neighbour = add(floor, "own"), add(floor, "neighbour")
    with floor.working() as worker:
        gate.wait_until_held(DEADLINE_S)
        run = the_run(worker, task)
        heard = threading.Event()
        run.token.on_cancel(heard.set)
        cancel_twice(floor, task)
        assert heard.wait(DEADLINE_S)
        gate.open()
        floor.wait_for(task, CANCELLED)
        floor.wait_for(neighbour, COMPLETE)
        assert run.ended.wait(DEADLINE_S)
    assert seconds_until_the_next(floor, task, neighbour) < FREE_S
    assert ended_once(floor, task, has_file(floor)) is CANCELLED
    assert ended_once(floor, neighbour, has_file(floor)) is COMPLETE
    floor.close()


def test_queued_it_is_never_claimed_and_paused_it_ends_too(tmp_path: Path) -> None:
    floor = Floor(tmp_path)
    task, paused, neighbour = (floor.add() for _ in range(3))
    floor.store.pause(paused)
    for each in (task, paused):
        cancel_twice(floor, each)
    floor.work()
    for each in (task, paused):
        assert ended_once(floor, each, has_file(floor)) is CANCELLED
        assert floor.store.get(each).claim_number == 0
    assert ended_once(floor, neighbour, has_file(floor)) is COMPLETE
    floor.close()


def test_preparing_and_waiting_for_the_gpu_it_never_comes_there(tmp_path: Path) -> None:
    gate = Gate()
    floor = Floor(tmp_path, FakeOrchestrator(gate=gate), max_in_flight=4, prepare_ahead_s=0)
    go_on = threading.Event()

    def prepare(params: TaskParams, context: TaskContext) -> Done:
        assert go_on.wait(DEADLINE_S)
        return draw(params, context)

    floor.register("prepare", prepare, uses_gpu=True)
    preparing = floor.add("prepare", prompt="a ball")
    with floor.working() as worker:
        floor.wait_until(lambda: bool(worker.runs()))
        running = floor.add()
        gate.wait_until_held(DEADLINE_S)
        waiting = floor.add()
        heard = threading.Event()
        the_run(worker, preparing).token.on_cancel(heard.set)
        cancel_twice(floor, preparing)
        assert heard.wait(DEADLINE_S)
        go_on.set()
        floor.wait_for(preparing, CANCELLED)
        floor.wait_for(waiting, RUNNING)  # prepared ahead, now that it is its turn
        cancel_twice(floor, waiting)
        floor.wait_for(waiting, CANCELLED)
        assert floor.store.get(running).status is RUNNING
        gate.open()
        floor.wait_for(running, COMPLETE)
    assert len(floor.engine.tasks) == 1
    for each in (preparing, waiting):
        assert ended_once(floor, each, has_file(floor)) is CANCELLED
    floor.close()


class Meeting(LocalStorage):
    """Calls somebody when a result of a task is staged, before the completion is written."""

    def __init__(self, floor: Floor, staged: Callable[[Task], None]) -> None:
        super().__init__(floor.settings)
        self._told = staged

    def stage(self, task: Task, path: Path, *, on_sent: OnSent = unwatched, **stop: OnStop) -> StagedOutput:
        staged = super().stage(task, path, on_sent=on_sent, **stop)
        self._told(task)
        return staged


def test_a_cancel_that_is_heard_while_the_result_is_stored_withdraws_it(tmp_path: Path) -> None:
    floor = Floor(tmp_path)
    workers: list[Worker] = []

    def staged(task: Task) -> None:
        heard = threading.Event()
        the_run(workers[0], task.id).token.on_cancel(heard.set)
        cancel_twice(floor, task.id)
        assert heard.wait(DEADLINE_S)

    task = floor.add()
    with floor.working(storage=Meeting(floor, staged)) as worker:
        workers.append(worker)
        floor.wait_for(task, CANCELLED)
    assert ended_once(floor, task, has_file(floor)) is CANCELLED
    assert not floor.published() and not floor.leftovers()
    floor.close()


def test_with_its_children_a_parent_ends_and_no_neighbour(tmp_path: Path) -> None:
    gate = Gate()
    floor = Floor(tmp_path, FakeOrchestrator(gate=gate), max_in_flight=2)
    keys = ("part:0", "part:1", "part:2")

    def fan(params: TaskParams, context: TaskContext) -> Spawned:
        children = [NewTask.child(context.task, key, "draw", {"prompt": key}) for key in keys]
        return Spawned(tuple(children), children[-1].id)

    floor.register("fan", fan)
    parent = floor.add("fan")
    children = [child_id(parent, key) for key in keys]
    with floor.working():
        gate.wait_until_held(DEADLINE_S)
        neighbour = floor.add()
        cancel_twice(floor, parent)
        floor.wait_for(parent, CANCELLED)
        gate.open()
        floor.wait_for(neighbour, COMPLETE)
    for each in (parent, *children):
        assert ended_once(floor, each, has_file(floor)) is CANCELLED
    floor.close()


# -- racing the completion ------------------------------------------------------------------------------------------


@contextmanager
def rival(floor: Floor) -> Iterator[Callable[[Task], None]]:
    """Cancels each task from a thread of its own in the moment in which it is told of it, while the teller goes on."""
    threads: list[threading.Thread] = []

    def told(task: Task) -> None:
        together = threading.Barrier(2)

        def cancel() -> None:
            together.wait(DEADLINE_S)
            cancel_twice(floor, task.id)

        threads.append(threading.Thread(target=cancel))
        threads[-1].start()
        together.wait(DEADLINE_S)

    yield told
    for thread in threads:
        thread.join(DEADLINE_S)
        assert not thread.is_alive()


def test_a_race_with_the_completion_has_one_winner(tmp_path: Path) -> None:
    floor = Floor(tmp_path)
    tasks = [floor.add(resolution="16x16", video_length=2) for _ in range(12)]
    with rival(floor) as told:
        assert floor.worker(storage=Meeting(floor, told)).run(until_idle=True) == 0
    assert {ended_once(floor, task, has_file(floor)) for task in tasks} <= {COMPLETE, CANCELLED}
    assert not list((floor.settings.public_dir / ".staging").iterdir()) and not floor.leftovers()
    floor.close()


def test_a_race_with_the_completion_has_one_winner_on_supabase(stack: LocalStack, tmp_path: Path) -> None:
    """What was uploaded for a task that ended as Cancelled stays in the bucket, and no row names it."""
    floor = ProjectFloor(tmp_path, stack)
    tasks = [floor.add(resolution="16x16", video_length=2) for _ in range(4)]
    with floor.working():
        for task in tasks:
            floor.wait_until(lambda task=task: "publishing" in floor.event_names(task))
            cancel_twice(floor, task)
        floor.wait_until(lambda: all(floor.store.get(task).terminal for task in tasks))
    for task in tasks:
        row = floor.store.get(task)
        assert row.status in (COMPLETE, CANCELLED)
        assert (row.output_location is not None) is (row.status is COMPLETE)
        assert row.status is CANCELLED or floor.output(task).is_file()
    floor.close()
