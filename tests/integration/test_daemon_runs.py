"""How the worker carries tasks: from a row to a published file, or to an end that says why."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydantic import Field
from worker_floor import Floor

from headless.generation import Progress
from headless.options import GenerationOptions
from headless.testing import FakeOrchestrator
from source.diagnostics.views import seconds_between
from source.errors import DeviceLost, EngineError, InvalidMedia, Transient
from source.media.poster import poster
from source.params.base import TaskParams
from source.store.types import NewTask, Status, Task
from source.task_registry import Done, Spawned, TaskContext
from Wan2GP.media import probe_video, read_frame, read_image


@pytest.fixture
def floor(tmp_path: Path) -> Iterator[Floor]:
    floor = Floor(tmp_path)
    yield floor
    floor.close()


def test_a_task_becomes_a_published_file(floor: Floor) -> None:
    task = floor.add(num_frames=9, resolution="64x48")
    assert floor.work() == 0
    row = floor.store.get(task)
    assert (row.status, row.attempts, row.error_message) == (Status.COMPLETE, 0, None)
    assert row.output_location == f"files/{floor.output(task).name}"
    assert floor.output(task).name.startswith(f"{task}_")
    made = probe_video(floor.output(task))
    assert (made.num_frames, made.width, made.height) == (9, 64, 48)


def test_nothing_is_left_but_the_result(floor: Floor) -> None:
    task = floor.add()
    floor.work()
    assert floor.published() == [floor.output(task).name]
    assert not list((floor.settings.main_output_dir / "draw").iterdir())


def test_scratch_is_kept_when_asked_for(tmp_path: Path) -> None:
    floor = Floor(tmp_path, skip_cleanup=True)
    task = floor.add()
    floor.work()
    floor.close()
    assert [path.name for path in (floor.settings.main_output_dir / "draw").iterdir()] == [floor.of_claim(task)]


def test_the_timeline_is_short_and_in_order(floor: Floor) -> None:
    task = floor.add()
    floor.work()
    assert floor.event_names(task) == ["queued", "claimed", "loading", "started", "publishing", "complete"]


def test_generation_starts_after_loading(floor: Floor) -> None:
    task = floor.add()
    floor.work()
    row = floor.store.get(task)
    times = {event.name: event.at for event in floor.store.events(task)}
    assert row.generation_started_at is not None
    assert times["loading"] <= row.generation_started_at <= times["publishing"]


def test_progress_is_stored_as_the_engine_reports_it(floor: Floor) -> None:
    seen: list[Progress | None] = []
    task = floor.add(num_inference_steps=4)
    floor.worker(watch=lambda row, progress: seen.append(progress)).run(until_idle=True)
    assert [p.step for p in seen if p and p.phase == "denoising"] == [1, 2, 3, 4]
    assert seen[-1] is None
    stored = floor.store.get(task).progress
    assert stored is not None
    assert set(stored) == {"phase", "step", "total", "fraction", "text", "stages", "steps_made"}


def test_what_the_phases_took_stays_in_the_row_and_is_all_of_the_claim(floor: Floor) -> None:
    task = floor.add(num_inference_steps=4)
    floor.work()
    told = floor.store.get(task).progress or {}
    assert told["steps_made"] == 4
    assert {"queued", "loading", "denoising", "decoding", "saving", "finishing"} <= set(dict(told["stages"]))
    times = {event.name: event.at for event in floor.store.events(task)}
    took = seconds_between(times["claimed"], times["publishing"])
    assert took is not None and 0 < sum(dict(told["stages"]).values()) <= took + 0.05


def test_at_most_six_lines_are_logged_for_a_task(floor: Floor, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        floor.add()
        floor.work()
    lines = [record for record in caplog.records if not record.name.endswith("daemon")]
    assert 1 <= len(lines) <= 6


def test_the_model_is_loaded_once_for_many_tasks(floor: Floor) -> None:
    for _ in range(4):
        floor.add()
    floor.work()
    assert floor.engine.loads == ["fake_t2v"]
    assert floor.store.counts()[Status.COMPLETE] == 4


@pytest.mark.parametrize(
    ("task_type", "params", "said"),
    [
        ("drow", {}, "'draw'"),
        ("draw", {"num_frames": -3}, "-3"),
        ("draw", {"resolution": "99999x99999"}, "too large"),
        ("draw", {"prompt": None}, "prompt"),
        ("draw", {"model": "fake_t3v"}, "fake_t2v"),
        ("draw", {"use_svi": True}, "use_svi"),
        ("draw", {"model": "fake_i2v", "image_start": "/nowhere/cat.png"}, "image_start"),
        ("draw", {"model": "fake_i2v", "image_start": "ftp://host/cat.png"}, "image_start"),
    ],
)
def test_bad_input_fails_at_once_and_harms_no_neighbour(
    floor: Floor, task_type: str, params: dict[str, object], said: str
) -> None:
    bad = floor.add(task_type, **params)
    good = floor.add()
    floor.work()
    row = floor.store.get(bad)
    assert (row.status, row.error_class) == (Status.FAILED, "bad_input")
    assert said in (row.error_message or "")
    assert floor.event_names(bad).count("claimed") == 1
    assert floor.store.get(good).status is Status.COMPLETE
    assert not floor.leftovers()


def test_unknown_parameters_are_named_in_one_warning(floor: Floor, caplog: pytest.LogCaptureFixture) -> None:
    task = floor.add(promt="typo", sed=3)
    floor.work()
    assert floor.store.get(task).status is Status.COMPLETE
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "promt, sed" in warnings[0]


def test_a_passing_failure_is_tried_again(floor: Floor) -> None:
    floor.engine.fail_next(EngineError("the engine stumbled"))
    task = floor.add()
    floor.work()
    row = floor.store.get(task)
    assert (row.status, row.attempts) == (Status.COMPLETE, 1)
    assert "retry" in floor.event_names(task)


def test_attempts_end(floor: Floor) -> None:
    for _ in range(3):
        floor.engine.fail_next(EngineError("the engine stumbled"))
    task = floor.add()
    floor.work()
    row = floor.store.get(task)
    assert (row.status, row.attempts, row.error_class) == (Status.FAILED, 3, "engine")
    assert "stumbled" in (row.error_message or "")
    assert not floor.published()


def test_an_unforeseen_error_fails_the_task_and_is_no_death_of_the_worker(floor: Floor) -> None:
    def broken(params: TaskParams, context: TaskContext) -> Done:
        raise ZeroDivisionError("division by zero")

    floor.register("broken", broken)
    bad, good = floor.add("broken"), floor.add()
    assert floor.work() == 0
    row = floor.store.get(bad)
    assert (row.status, row.error_class) == (Status.FAILED, "internal")
    assert "ZeroDivisionError" in (row.error_message or "")
    assert floor.store.get(good).status is Status.COMPLETE


def test_secrets_in_an_error_do_not_reach_the_row(floor: Floor) -> None:
    def leaky(params: TaskParams, context: TaskContext) -> Done:
        raise Transient("https://host/file?token=abcdef123456 did not answer")

    floor.register("leaky", leaky)
    task = floor.add("leaky")
    floor.work()
    message = floor.store.get(task).error_message or ""
    assert "did not answer" in message
    assert "abcdef123456" not in message


def test_a_lost_device_ends_the_worker_with_code_3(floor: Floor) -> None:
    floor.engine.fail_next(DeviceLost("CUDA error: an illegal memory access"))
    first = floor.add()
    second = floor.add()
    assert floor.work() == 3
    rows = [floor.store.get(task) for task in (first, second)]
    assert {(row.status, row.attempts) for row in rows} == {(Status.QUEUED, 0)}
    assert not floor.published()


def test_an_old_file_is_never_delivered(floor: Floor, tmp_path: Path) -> None:
    old = tmp_path / "outputs" / "old.mp4"
    old.parent.mkdir()
    old.write_bytes(b"an older result")
    for _ in range(3):
        floor.engine.answer_next(old)
    task = floor.add()
    floor.work()
    assert floor.store.get(task).status is Status.FAILED
    assert not floor.published()


class LookParams(TaskParams):
    at: int = Field(0, description="a number")


def test_a_dependency_arrives_as_a_local_file(floor: Floor) -> None:
    found: list[tuple[str, int]] = []

    def look(params: LookParams, context: TaskContext) -> Done:
        found.extend((d.task.id, probe_video(d.output).num_frames) for d in context.dependencies())
        return Done(None, {"at": params.at})

    floor.register("look", look, LookParams)
    first = floor.add(num_frames=5)
    task = floor.add("look", dependant_on=(first,), at=7)
    floor.work()
    assert found == [(first, 5)]
    assert floor.store.get(task).result_data == {"at": 7}


def test_a_dependency_whose_file_is_gone_names_task_and_file(floor: Floor) -> None:
    first = floor.add()
    floor.work()
    floor.output(first).unlink()

    def look(params: TaskParams, context: TaskContext) -> Done:
        return Done(context.dependencies()[0].output)

    floor.register("look", look)
    task = floor.add("look", dependant_on=(first,))
    floor.work()
    message = floor.store.get(task).error_message or ""
    assert first in message
    assert floor.output(first).name in message


def test_an_orchestrator_ends_with_its_last_child(floor: Floor) -> None:
    def plan(params: TaskParams, context: TaskContext) -> Spawned:
        first = NewTask.child(context.task, "part:0", "draw", {"prompt": "one"})
        last = NewTask.child(context.task, "part:1", "draw", {"prompt": "two"}, (first.id,))
        return Spawned((first, last), last.id)

    floor.register("plan", plan)
    task = floor.add("plan")
    floor.work()
    row = floor.store.get(task)
    children = floor.store.children(task)
    assert row.status is Status.COMPLETE
    assert row.output_location == children[-1].output_location
    assert len(floor.published()) == 2


class TunedOptions(GenerationOptions):
    sparkle: int | None = Field(None, description="a knob of this test")


def test_a_new_knob_reaches_the_engine_untouched(floor: Floor) -> None:
    floor.add(sparkle=3)
    floor.work(options_class=TunedOptions)
    assert floor.engine.calls[0]["sparkle"] == 3


def test_an_empty_result_is_a_failure(floor: Floor) -> None:
    def hollow(params: TaskParams, context: TaskContext) -> Done:
        (context.scratch / "clip.mp4").touch()
        return Done(context.scratch / "clip.mp4")

    floor.register("hollow", hollow)
    task = floor.add("hollow")
    floor.work()
    assert floor.store.get(task).status is Status.FAILED
    assert not floor.published()


def test_a_result_that_is_the_users_own_file_stays_where_it_was(floor: Floor, tmp_path: Path) -> None:
    own = tmp_path / "holiday.txt"
    own.write_text("mine")

    def pass_on(params: TaskParams, context: TaskContext) -> Done:
        return Done(own)

    floor.register("pass_on", pass_on)
    task = floor.add("pass_on")
    floor.work()
    assert own.read_text() == "mine"
    assert floor.output(task).read_text() == "mine"


def test_tasks_that_need_no_gpu_run_while_it_is_busy(tmp_path: Path) -> None:
    from headless.testing import Gate

    gate = Gate()
    floor = Floor(tmp_path, FakeOrchestrator(gate=gate))
    busy = floor.add()
    with floor.working():
        gate.wait_until_held()
        light = floor.add("nothing")
        floor.wait_for(light, Status.COMPLETE)
        assert floor.store.get(busy).status is Status.IN_PROGRESS
        gate.open()
        floor.wait_for(busy, Status.COMPLETE)
    floor.close()


def test_a_thin_child_gets_its_details_from_its_orchestrators_row(floor: Floor) -> None:
    parent = floor.add("nothing", orchestrator_details={"prompt": "a lake", "seed": 5})
    child = floor.add("draw", orchestrator_task_id_ref=parent, prompt=None)
    orphan = floor.add("draw", orchestrator_task_id_ref="nobody")
    floor.work()
    assert {floor.store.get(each).status for each in (child, orphan)} == {Status.COMPLETE}
    assert {"prompt": "a lake", "seed": 5} in floor.engine.calls


def test_a_damaged_medium_is_named_by_its_field(floor: Floor, tmp_path: Path) -> None:
    note = tmp_path / "cat.png"
    note.write_text("I am no picture")

    def fetch(params: TaskParams, context: TaskContext) -> Done:
        with pytest.raises(InvalidMedia, match=r"^portrait: .*text"):
            context.fetch(str(note), kind="image", field="portrait")
        return Done(None)

    floor.register("fetch", fetch)
    task: Task = floor.store.get(floor.add("fetch"))
    floor.work()
    assert floor.store.get(task.id).status is Status.COMPLETE


def test_a_poster_is_published_with_the_result_and_named_in_it(floor: Floor) -> None:
    def show(params: TaskParams, context: TaskContext) -> Done:
        result = context.generate("fake_t2v", GenerationOptions(prompt="a ball"))
        return Done(result.output, {"made": 1}, poster(result.output, context.scratch / "first.jpg"))

    floor.register("show", show)
    task = floor.add("show")
    floor.work()
    row = floor.store.get(task)
    assert row.result_data is not None
    told = {"made": 1, "thumbnail_url": f"files/{task}_first.jpg"}
    assert row.result_data == told | {"gpu_seconds": row.result_data["gpu_seconds"]}
    shown = read_image(floor.settings.public_dir / row.result_data["thumbnail_url"])
    assert np.abs(shown.astype(int) - read_frame(floor.output(task), 0)).mean() < 4
    assert len(floor.published()) == 2


def test_a_task_that_lost_its_claim_publishes_no_poster(floor: Floor) -> None:
    """The row is cancelled behind the worker's back while it stages: neither file appears."""

    def show(params: TaskParams, context: TaskContext) -> Done:
        result = context.generate("fake_t2v", GenerationOptions(prompt="a ball"))
        picture = poster(result.output, context.scratch / "first.jpg")
        floor.store.fail(context.task.claim, "taken away", error_class="test")
        return Done(result.output, None, picture)

    floor.register("show", show)
    task = floor.add("show")
    floor.work()
    assert floor.store.get(task).error_message == "taken away"
    assert floor.published() == []
