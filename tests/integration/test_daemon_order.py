"""What a worker says of its model when it claims, so that models are loaded seldom."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from worker_floor import Floor, draw

from headless.generation import OnProgress
from headless.testing import FakeOrchestrator, Gate
from source.params.base import TaskParams
from source.store.types import NewTask, Status
from source.task_registry import Done, TaskContext


def still(params: TaskParams, context: TaskContext) -> Done:
    """A type that implies its model."""
    return Done(context.generate("fake_image", params.options).output)


@pytest.fixture
def floor(tmp_path: Path) -> Iterator[Floor]:
    floor = Floor(tmp_path)
    floor.register("still", still, uses_gpu=True)
    floor.register("another", draw, uses_gpu=True)
    yield floor
    floor.close()


def test_rows_of_several_models_in_turns_load_each_model_once(floor: Floor) -> None:
    """Also those whose type implies the model, and although each row is claimed while another still runs or loads."""
    small = {"prompt": "a ball", "video_length": 5}
    for _ in range(4):
        floor.add("another", model="fake_t2v", **small)
        floor.add("still", **small)
    assert floor.work() == 0
    assert floor.engine.loads == ["fake_t2v", "fake_image"]


def test_a_row_that_fails_before_it_generates_takes_no_model_away(tmp_path: Path) -> None:
    """What the last one had loaded goes on being taken first, and not what the failed one would have loaded."""
    gate = Gate()
    floor = Floor(tmp_path, FakeOrchestrator(gate=gate))
    floor.register("still", still, uses_gpu=True)
    first, ball = floor.add("still", prompt="a ball"), {"prompt": "a ball"}
    with floor.working():
        gate.wait_until_held()
        bad, other, same = floor.store.add_many([
            NewTask(task_type="draw", params=ball | {"video_length": -3}, priority=1),
            NewTask(task_type="draw", params=ball), NewTask(task_type="still", params=ball),
        ])  # fmt: skip
        assert floor.wait_for(bad, Status.FAILED).error_class == "bad_input"
        floor.wait_until(lambda: len(floor.claimed()) == 2)
        gate.open()
        for task in (first, other, same):
            floor.wait_for(task, Status.COMPLETE)
    assert [task.id for task in floor.engine.tasks] == [first, same, other]
    floor.close()


def test_affinity_can_be_turned_off(tmp_path: Path) -> None:
    floor = Floor(tmp_path, affinity_tasks=0)
    floor.register("still", still, uses_gpu=True)
    for _ in range(2):
        floor.add("draw", video_length=5)
        floor.add("still", prompt="a ball")
    assert floor.work() == 0
    assert floor.engine.loads == ["fake_t2v", "fake_image"] * 2
    floor.close()


class Loading(FakeOrchestrator):
    """Each load takes so long by the queue's clock."""

    def __init__(self, load_s: float) -> None:
        super().__init__()
        self._load_s, self.now = load_s, 0.0

    def clock(self) -> float:
        return self.now

    def load_model(self, model: str, on_progress: OnProgress, profile: int = -1) -> bool:
        switched = super().load_model(model, on_progress, profile)
        self.now += self._load_s * switched
        return switched


@pytest.mark.parametrize(("load_s", "most"), [(0.0, 8), (60.0, 2)])
def test_models_that_take_long_to_load_are_switched_later(tmp_path: Path, load_s: float, most: int) -> None:
    """The bound in seconds is over with the first row that is passed over, unless loads were measured to take long."""
    engine = Loading(load_s)
    floor = Floor(tmp_path, engine, clock=engine.clock, affinity_wait_s=0)
    floor.register("still", still, uses_gpu=True)
    for _ in range(4):
        floor.add(video_length=5)
        floor.add("still", prompt="a ball")
    assert floor.work() == 0
    assert min(most, 3) <= len(engine.loads) <= most
    floor.close()


def test_a_worker_says_what_its_loads_took_and_what_it_takes_first(tmp_path: Path) -> None:
    floor = Floor(tmp_path, heartbeat_s=0.05)
    floor.register("still", still, uses_gpu=True)
    floor.add("still", prompt="a ball")
    with floor.working():
        floor.wait_until(lambda: bool(said(floor).get("load_s")))
        assert set(said(floor)["load_s"]) == {"fake_image"}
        assert said(floor)["takes_first"] == "still"
    floor.close()


def said(floor: Floor) -> Mapping[str, Any]:
    """What the worker said with its latest heartbeat."""
    return next((worker.metadata for worker in floor.store.workers()), {})
