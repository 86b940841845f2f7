"""Results on a real stack: Edge Functions, Postgres, an S3 server; several machines that share nothing else."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import requests
from local_stack import LocalStack
from local_stack import stack as stack
from project_floor import ProjectFloor
from pydantic import Field

from source.errors import StaleClaim
from source.params.base import TaskParams
from source.store.supabase import SupabaseStore
from source.store.types import Claim, NewTask, Status
from source.supabase_storage import storage_for
from source.task_registry import Done, TaskContext
from Wan2GP.media import probe_image, probe_video

SHORT = {"lease_s": 1.5, "heartbeat_s": 0.4}

#: a worker process that generates and delivers
VICTIM = """
import sys
from pathlib import Path
from worker_floor import Floor

Floor(
    Path(sys.argv[1]), db_type="supabase", supabase_url=sys.argv[2], supabase_access_token="@" + sys.argv[3],
    lease_s=1.5, heartbeat_s=0.4,
).work()
"""


class FollowParams(TaskParams):
    after: str = Field(..., description="the task that is gone on from")


def follow(params: FollowParams, context: TaskContext) -> Done:
    """Say what the other task's output is here."""
    found = context.fetch(str(context.output_of(params.after, field="after")), kind="video", field="after")
    held = found.stat().st_nlink > 1
    return Done(None, {"sha256": hashlib.sha256(found.read_bytes()).hexdigest(), "was_here": held})


@pytest.fixture
def make(tmp_path: Path, stack: LocalStack) -> Iterator[Callable[..., ProjectFloor]]:
    """Machines by name."""
    made = []

    def machine(name: str = "one", **options: Any) -> ProjectFloor:
        floor = ProjectFloor(tmp_path / name, stack, **SHORT | options)
        floor.register("follow", follow, FollowParams)
        made.append(floor)
        return floor

    yield machine
    for floor in made:
        floor.close()


def test_a_result_is_in_the_bucket_with_its_picture_and_nothing_is_left_here(make: Callable[..., ProjectFloor]) -> None:
    floor = make(kept_outputs_gb=0)
    task = floor.add(num_frames=5, resolution="64x48")
    floor.work()
    row = floor.store.get(task)
    assert (row.status, row.error_message) == (Status.COMPLETE, None)
    project = "00000000-0000-0000-0000-000000000000"
    assert str(floor.output(task).relative_to(floor.stack.objects)).startswith(f"{project}/tasks/{task}/1-")
    assert probe_video(floor.output(task)).num_frames == 5
    answer = requests.get(row.output_location or "", timeout=30)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "video/mp4")
    assert answer.content == floor.output(task).read_bytes()
    poster = floor.object((row.result_data or {})["thumbnail_url"])
    assert (probe_image(poster).format, probe_image(poster).width) == ("jpeg", 64)
    assert len(floor.published()) == 2
    assert not floor.undelivered() and not floor.leftovers()
    names = floor.event_names(task)
    assert names.index("publishing") < names.index("uploading") < names.index("complete")


def test_a_task_goes_on_from_anothers_output_on_any_machine(make: Callable[..., ProjectFloor]) -> None:
    one, two = make("one"), make("two")
    made = one.add(num_frames=5)
    one.work()
    digest = hashlib.sha256(one.output(made).read_bytes()).hexdigest()
    for machine, was_here in ((one, True), (two, False)):
        task = machine.add("follow", dependant_on=(made,), after=made)
        machine.work()
        row = machine.store.get(task)
        assert row.error_message is None
        assert row.result_data == {"sha256": digest, "was_here": was_here}


def test_a_successor_on_the_same_machine_downloads_nothing(make: Callable[..., ProjectFloor]) -> None:
    floor = make()
    made = floor.add(num_frames=5)
    floor.work()
    digest = hashlib.sha256(floor.output(made).read_bytes()).hexdigest()
    floor.output(made).write_bytes(b"what a download would bring")
    task = floor.add("follow", dependant_on=(made,), after=made)
    floor.work()
    row = floor.store.get(task)
    assert (row.error_message, row.result_data) == (None, {"sha256": digest, "was_here": True})


def test_a_persons_own_worker_delivers_under_their_name(make: Callable[..., ProjectFloor], stack: LocalStack) -> None:
    anna = stack.person()
    floor = make(token=anna.access_token)
    [task] = floor.store.add_many([_row(anna.project_id)])
    follower = floor.store.add(_row(anna.project_id, "follow", after=task, dependant_on=(task,)))
    floor.work()
    assert floor.store.get(task).status is Status.COMPLETE, floor.store.get(task).error_message
    assert floor.output(task).is_relative_to(stack.objects / anna.user_id / "tasks" / task)
    assert floor.store.get(follower).status is Status.COMPLETE


def test_a_row_names_no_output_of_another_project(make: Callable[..., ProjectFloor], stack: LocalStack) -> None:
    """The worker sees everybody's rows; who wrote this one does not."""
    anna, ben = stack.person(), stack.person()
    floor = make()
    made = floor.store.add(_row(anna.project_id))
    floor.work()
    tasks = [floor.store.add(_row(who.project_id, "follow", after=made)) for who in (anna, ben)]
    floor.work()
    rows = [floor.store.get(task) for task in tasks]
    assert [row.status for row in rows] == [Status.COMPLETE, Status.FAILED]
    assert f"there is no task {made} in the project of this one" in (rows[1].error_message or "")


def test_a_stale_claim_uploads_nothing(make: Callable[..., ProjectFloor]) -> None:
    floor = make()
    floor.add()
    [first] = floor.store.claim("one", lease_s=60)
    floor.store.release(first.claim)
    [second] = floor.store.claim("two", lease_s=60)
    path = floor.settings.main_output_dir / "clip.bin"
    storage = storage_for(floor.settings, floor.store)
    storage.prepare()
    path.write_bytes(b"a clip")
    with pytest.raises(StaleClaim):
        storage.stage(first, path)
    assert floor.published() == []
    storage.stage(second, path)
    assert [name.rpartition("/")[2] for name in floor.published()] == ["2-clip.bin"]


def test_a_file_that_is_damaged_in_the_bucket_is_sent_again(make: Callable[..., ProjectFloor]) -> None:
    floor = make()
    damaged: list[Path] = []
    functions = floor.store.functions  # type: ignore[attr-defined]

    class Hurt(SupabaseStore):
        """Another hand spoils the first upload before the row is completed."""

        def complete(
            self, claim: Claim, output_location: str | None, *, result_data: Mapping[str, Any] | None = None,
            publish: Callable[[], None] | None = None,
        ) -> None:  # fmt: skip
            if not damaged:
                damaged.append(floor.object(output_location or ""))
                damaged[0].write_bytes(bytes(damaged[0].stat().st_size))
            super().complete(claim, output_location, result_data=result_data, publish=publish)

    task = floor.add(num_frames=5)
    whole, floor.store = floor.store, Hurt(functions)
    floor.work()
    floor.store = whole
    assert damaged == [floor.output(task)]
    assert probe_video(floor.output(task)).num_frames == 5
    assert len(floor.engine.calls) == 1
    assert floor.store.get(task).claim_number == 1


def test_a_storage_that_is_gone_for_a_while_costs_no_second_generation(
    make: Callable[..., ProjectFloor], stack: LocalStack
) -> None:
    floor = make()
    task = floor.add(num_frames=5)
    stack.s3.kill()
    with floor.working():
        floor.wait_until(lambda: bool(floor.undelivered()))
        assert floor.store.get(task).status is Status.IN_PROGRESS
        stack.start()
        floor.wait_for(task, Status.COMPLETE)
    assert len(floor.engine.calls) == 1
    assert floor.store.get(task).attempts == 0
    assert probe_video(floor.output(task)).num_frames == 5


def test_a_worker_killed_while_it_uploads_leaves_its_result_to_the_next(
    make: Callable[..., ProjectFloor], stack: LocalStack, tmp_path: Path, root: Path
) -> None:
    floor = make()
    token = tmp_path / "token"
    token.write_text(stack.service_key)
    task = floor.add(num_frames=5)
    stack.s3.pause()
    paths = {"PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}"}
    command = [sys.executable, "-c", VICTIM, str(tmp_path / "one"), stack.url, str(token)]
    with subprocess.Popen(command, env=os.environ | paths) as process:
        floor.wait_until(lambda: "uploading" in floor.event_names(task))
        process.send_signal(signal.SIGKILL)
    stack.s3.resume()
    assert floor.undelivered() == [floor.of_claim(task)]
    floor.work()
    row = floor.store.get(task)
    assert (row.status, row.attempts, row.claim_number) == (Status.COMPLETE, 1, 2)
    assert floor.output(task).name.startswith("2-")
    assert probe_video(floor.output(task)).num_frames == 5
    assert not floor.engine.calls, "this process generated nothing"
    assert floor.event_names(task).count("started") == 1


def test_a_cancel_is_heard_while_the_storage_stands_still(make: Callable[..., ProjectFloor], stack: LocalStack) -> None:
    floor = make()
    task = floor.add(num_frames=5)
    stack.s3.pause()
    with floor.working():
        floor.wait_until(lambda: "uploading" in floor.event_names(task))
        begun_at = time.monotonic()
        floor.store.cancel(task)
        floor.wait_for(task, Status.CANCELLED)
        assert time.monotonic() - begun_at < 3
        stack.s3.resume()
    assert not floor.undelivered()
    assert floor.store.get(task).output_location is None


def test_rows_of_a_shared_database_read_no_file_of_the_worker(
    make: Callable[..., ProjectFloor], tmp_path: Path
) -> None:
    floor = make()
    task = floor.add(model="fake_i2v", image_start=str(tmp_path / "secret.png"))
    floor.work()
    row = floor.store.get(task)
    assert (row.status, row.error_class) == (Status.FAILED, "bad_input")
    assert "MEDIA_DIRS" in (row.error_message or "")


def _row(project_id: str, task_type: str = "draw", dependant_on: tuple[str, ...] = (), **params: Any) -> NewTask:
    given = {"prompt": "a ball"} if task_type == "draw" else {}
    return NewTask(task_type=task_type, params=given | params, project_id=project_id, dependant_on=dependant_on)
