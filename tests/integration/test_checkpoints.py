"""The folder in which a task's generations keep their state: the same for each claim, gone when the task is."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from worker_floor import Floor

from source.checkpoints import DAY_S, Checkpoints
from source.errors import EngineError, Transient
from source.params.base import TaskParams
from source.store.types import NewTask, Status
from source.task_registry import Done, TaskContext


@pytest.fixture
def floor(tmp_path: Path) -> Iterator[Floor]:
    floor = Floor(tmp_path, max_attempts=2)
    yield floor
    floor.close()


def folders(floor: Floor) -> list[str]:
    """Without the marks of databases."""
    root = floor.settings.main_output_dir / "checkpoints"
    return sorted(path.name.rpartition("-")[0] for path in root.iterdir()) if root.is_dir() else []


def test_each_claim_of_a_task_has_the_same_folder_and_each_generation_its_own(floor: Floor) -> None:
    def twice(params: TaskParams, context: TaskContext) -> Done:
        context.generate("fake_t2v", params.options)
        return Done(context.generate("fake_t2v", params.options).output)

    floor.register("twice", twice, uses_gpu=True)
    floor.engine.fail_next(Transient("once"))
    floor.add("twice", prompt="a ball")
    floor.work()
    failed, first, second = (task.checkpoint_dir for task in floor.engine.tasks)
    assert failed == first
    assert first != second
    assert len({task.output_dir.parent for task in floor.engine.tasks}) == 2
    assert folders(floor) == []


def test_a_task_that_failed_for_good_keeps_nothing(floor: Floor) -> None:
    kept_between: list[list[str]] = []

    def look(params: TaskParams, context: TaskContext) -> Done:
        kept_between.append(folders(floor))
        place = Checkpoints(floor.settings).folder(context.task, 1)
        place.mkdir(exist_ok=True)
        (place / "state.pt").write_bytes(b"what a run keeps")
        return Done(context.generate("fake_t2v", params.options).output)

    floor.register("look", look, uses_gpu=True)
    for _ in range(2):
        floor.engine.fail_next(EngineError("broken"))
    task = floor.add("look", prompt="a ball")
    floor.work()
    assert floor.store.get(task).status is Status.FAILED
    assert kept_between == [[], [task]]
    assert folders(floor) == []


def test_ids_that_look_alike_or_climb_have_folders_of_their_own(floor: Floor) -> None:
    checkpoints = Checkpoints(floor.settings)
    names = ("a/b", "a:b", "../up", "x" * 300)
    for name in names:
        floor.store.add(NewTask(id=name, task_type="draw", params={}))
    places = {checkpoints.folder(floor.store.get(name), 1) for name in names}
    root = floor.settings.main_output_dir.resolve() / "checkpoints"
    assert len({place.parent for place in places}) == len(names)
    assert all(place.parent.parent == root for place in places)


def test_a_start_forgets_what_ended_elsewhere_and_what_is_old(floor: Floor) -> None:
    checkpoints = Checkpoints(floor.settings)
    waiting, old, ended = (floor.add() for _ in range(3))
    for task in (waiting, old, ended):
        checkpoints.folder(floor.store.get(task), 1).mkdir()
    strange = floor.settings.main_output_dir / "checkpoints" / "of-another-database-0123abcd" / "1"
    strange.mkdir(parents=True)
    floor.store.cancel(ended)
    long_ago = time.time() - (floor.settings.checkpoint_days + 1) * DAY_S
    tree = checkpoints.folder(floor.store.get(old), 1).parent
    for path in (*tree.rglob("*"), tree):
        os.utime(path, (long_ago, long_ago))
    checkpoints.sweep(floor.store)
    assert folders(floor) == sorted([waiting, "of-another-database"])


def test_a_start_beside_a_worker_that_writes_its_state_removes_nothing_of_it(floor: Floor) -> None:
    checkpoints = Checkpoints(floor.settings)
    task = floor.add()
    own = checkpoints.folder(floor.store.get(task), 1)
    own.mkdir()
    done = threading.Event()

    def write_states() -> None:
        while not done.is_set():
            states = [own / f"{step}.partial" for step in range(100)]
            for state in states:
                state.write_bytes(b"")
            for state in states:
                state.unlink()

    writer = threading.Thread(target=write_states)
    writer.start()
    try:
        for _ in range(300):
            checkpoints.sweep(floor.store)
    finally:
        done.set()
        writer.join()
    assert folders(floor) == [task]


def test_a_disk_that_takes_no_folder_is_no_reason_to_fail(floor: Floor) -> None:
    floor.settings.main_output_dir.mkdir(parents=True)
    (floor.settings.main_output_dir / "checkpoints").write_text("a file stands in the way")
    task = floor.add()
    floor.work()
    assert floor.store.get(task).status is Status.COMPLETE
