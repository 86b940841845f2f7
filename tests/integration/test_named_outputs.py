"""A task names another by its id: that one's output arrives as a local file, or the message says what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydantic import Field
from web_site import site
from worker_floor import Floor

from source.params.base import TaskParams
from source.store.types import NewTask, Status, Task
from source.task_registry import Done, TaskContext
from Wan2GP.media import probe_image, probe_video, write_image


class NamedParams(TaskParams):
    video_task_id: str = Field(..., description="the task whose output is wanted")


def look(params: NamedParams, context: TaskContext) -> Done:
    found = context.output_of(params.video_task_id, field="video_task_id")
    return Done(None, {"found": str(found), "is_file": found.is_file()})


@pytest.fixture
def floor(tmp_path: Path) -> Iterator[Floor]:
    floor = Floor(tmp_path)
    floor.register("look", look, NamedParams)
    yield floor
    floor.close()


def completed(floor: Floor, location: str | None) -> str:
    """A row that was completed with that output."""
    task = floor.store.add(NewTask(task_type="nothing", params={}))
    [row] = floor.store.claim("somebody", lease_s=60, limit=1)
    floor.store.complete(row.claim, location)
    return task


def failure(floor: Floor, task: str) -> Task:
    floor.work()
    row = floor.store.get(task)
    assert row.status is Status.FAILED
    assert row.error_class == "bad_input"
    assert (row.error_message or "").startswith("video_task_id: ")
    return row


def test_an_output_is_found_by_the_id_of_its_task(floor: Floor) -> None:
    made = floor.add(num_frames=5)
    task = floor.add("look", dependant_on=(made,), video_task_id=made)
    floor.work()
    row = floor.store.get(task)
    assert row.result_data == {"found": str(floor.output(made)), "is_file": True}
    assert probe_video(floor.output(made)).num_frames == 5


def test_an_output_that_is_a_url_is_fetched(floor: Floor, tmp_path: Path) -> None:
    sizes: list[tuple[int, int]] = []

    def measure(params: NamedParams, context: TaskContext) -> Done:
        found = probe_image(context.output_of(params.video_task_id, field="video_task_id"))
        sizes.append((found.width, found.height))
        return Done(None)

    write_image(tmp_path / "made.png", np.zeros((8, 12, 3), np.uint8))
    floor.register("measure", measure, NamedParams)
    with site(tmp_path) as address:
        made = completed(floor, f"{address}/made.png")
        task = floor.add("measure", video_task_id=made)
        floor.work()
    assert floor.store.get(task).status is Status.COMPLETE, floor.store.get(task).error_message
    assert sizes == [(12, 8)]


def test_a_url_that_is_gone_names_the_task(floor: Floor, tmp_path: Path) -> None:
    with site(tmp_path) as address:
        made = completed(floor, f"{address}/gone.mp4")
        message = failure(floor, floor.add("look", video_task_id=made)).error_message or ""
    assert made in message
    assert "404" in message


def test_a_task_that_is_not_there_is_named(floor: Floor) -> None:
    assert "there is no task nobody" in (failure(floor, floor.add("look", video_task_id="nobody")).error_message or "")


def test_a_task_that_is_not_finished_is_named_with_its_status(floor: Floor) -> None:
    waiting = floor.add()
    [row] = floor.store.claim("somebody", lease_s=600, limit=1)
    task = floor.add("look", video_task_id=waiting)
    with floor.working():
        message = floor.wait_for(task, Status.FAILED).error_message or ""
    assert message.startswith(f"video_task_id: task {waiting} (draw) is In Progress")
    assert "dependant_on" in message
    floor.store.release(row.claim)


def test_a_task_without_an_output_is_named(floor: Floor) -> None:
    made = completed(floor, None)
    message = failure(floor, floor.add("look", video_task_id=made)).error_message or ""
    assert f"task {made} (nothing)" in message
    assert "it has no output" in message
