"""What was made is delivered once, whatever happens between making and completing: nothing is generated twice."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from worker_floor import Floor

from source.errors import StoreError
from source.outbox import Outbox
from source.store.sqlite import SqliteStore
from source.store.types import Claim, Status
from source.task_registry import Done, TaskContext
from Wan2GP.media import probe_video

SHORT = {"lease_s": 1.5, "heartbeat_s": 0.4}

#: a worker process that generates, and stands still just before it completes
VICTIM = """
import sys, threading
from pathlib import Path
from source.store.sqlite import SqliteStore
from worker_floor import Floor

folder = Path(sys.argv[1])

class Held(SqliteStore):
    def complete(self, *given, **named):
        (folder / "completing").touch()
        threading.Event().wait()

floor = Floor(folder, lease_s=1.5, heartbeat_s=0.4)
floor.store.close()
floor.store = Held(floor.settings.db_file, max_attempts=3)
floor.work()
"""


class Unreachable(SqliteStore):
    """A database that cannot be reached when a row is to be completed."""

    def __init__(self, floor: Floor) -> None:
        super().__init__(floor.settings.db_file, max_attempts=3)
        self.asked = threading.Event()

    def complete(
        self, claim: Claim, output_location: str | None, *, result_data: Mapping[str, Any] | None = None,
        publish: Callable[[], None] | None = None,
    ) -> None:  # fmt: skip
        self.asked.set()
        raise StoreError("no answer")


@pytest.fixture
def floor(tmp_path: Path) -> Iterator[Floor]:
    floor = Floor(tmp_path, **SHORT)
    yield floor
    floor.close()


def stopped_in_an_outage(floor: Floor) -> None:
    """A worker generates, cannot complete, and is told to stop."""
    reachable, floor.store = floor.store, Unreachable(floor)
    with floor.working() as worker:
        assert floor.store.asked.wait(30)
        worker.stop()
        worker.stop()
    floor.store.close()
    floor.store = reachable


def test_a_worker_killed_before_the_completion_leaves_its_result_to_the_next(
    floor: Floor, tmp_path: Path, root: Path
) -> None:
    task = floor.add(num_frames=5)
    paths = {"PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}"}
    with subprocess.Popen([sys.executable, "-c", VICTIM, str(tmp_path)], env=os.environ | paths) as process:
        floor.wait_until(lambda: (tmp_path / "completing").exists())
        process.send_signal(signal.SIGKILL)
    assert floor.undelivered() == [floor.of_claim(task)]
    floor.work()
    row = floor.store.get(task)
    assert (row.status, row.attempts, row.claim_number) == (Status.COMPLETE, 1, 2)
    assert probe_video(floor.output(task)).num_frames == 5
    assert not floor.engine.calls, "this process generated nothing"
    assert floor.event_names(task).count("started") == 1
    assert not floor.undelivered() and not floor.leftovers()


def test_a_worker_stopped_in_an_outage_leaves_its_result_to_the_next(floor: Floor) -> None:
    task = floor.add(num_frames=5)
    stopped_in_an_outage(floor)
    assert floor.store.get(task).status is Status.QUEUED
    assert floor.undelivered() == [floor.of_claim(task)]
    floor.work()
    row = floor.store.get(task)
    assert (row.status, row.attempts, row.claim_number) == (Status.COMPLETE, 0, 2)
    assert len(floor.engine.calls) == 1
    assert probe_video(floor.output(task)).num_frames == 5
    assert not floor.undelivered() and not floor.leftovers()


def test_everything_of_a_result_survives(floor: Floor) -> None:
    runs = []

    def several(params: Any, context: TaskContext) -> Done:
        runs.append(1)
        names = ("first.txt", "second.txt", "poster.txt")
        first, second, poster = (context.scratch / name for name in names)
        for path in (first, second, poster):
            path.write_text(path.name)
        return Done(first, {"made": 1}, poster=poster, extra=(second,))

    floor.register("several", several)
    task = floor.add("several")
    stopped_in_an_outage(floor)
    floor.work()
    data = floor.store.get(task).result_data or {}
    files = [floor.settings.public_dir / location for location in (*data["outputs"], data["thumbnail_url"])]
    assert [path.read_text() for path in files] == ["first.txt", "second.txt", "poster.txt"]
    assert data["made"] == 1
    assert len(runs) == 1


def test_a_row_that_was_changed_meanwhile_is_made_anew(floor: Floor) -> None:
    task = floor.add(num_frames=5)
    stopped_in_an_outage(floor)
    with closing(sqlite3.connect(floor.settings.db_file)) as connection, connection:
        connection.execute("UPDATE tasks SET params = json_set(params, '$.num_frames', 9) WHERE id = ?", (task,))
    floor.work()
    assert probe_video(floor.output(task)).num_frames == 9
    assert len(floor.engine.calls) == 2
    assert not floor.undelivered()


def test_a_row_that_failed_and_is_queued_again_gets_the_result_that_is_here(floor: Floor) -> None:
    task = floor.add(num_frames=5)
    stopped_in_an_outage(floor)
    [claimed] = floor.store.claim("another", lease_s=60)
    floor.store.fail(claimed.claim, "the storage refused it", error_class="storage")
    Outbox(floor.settings).sweep(floor.store)
    floor.store.retry(task)
    floor.work()
    assert floor.store.get(task).status is Status.COMPLETE
    assert len(floor.engine.calls) == 1
    assert not floor.undelivered()


def test_a_result_whose_row_was_cancelled_goes(floor: Floor) -> None:
    task = floor.add()
    stopped_in_an_outage(floor)
    floor.store.cancel(task)
    Outbox(floor.settings).sweep(floor.store)
    assert not floor.undelivered()
    assert not floor.published()


def test_a_result_that_another_worker_completed_goes(floor: Floor) -> None:
    task = floor.add()
    stopped_in_an_outage(floor)
    [claimed] = floor.store.claim("another", lease_s=60)
    floor.store.complete(claimed.claim, "elsewhere.mp4")
    Outbox(floor.settings).sweep(floor.store)
    assert not floor.undelivered()
    assert floor.store.get(task).output_location == "elsewhere.mp4"


def test_a_file_that_stays_for_debugging_is_delivered_too(tmp_path: Path) -> None:
    floor = Floor(tmp_path, skip_cleanup=True)
    task = floor.add()
    floor.work()
    assert not floor.undelivered()
    [kept] = (floor.settings.main_output_dir / "draw" / floor.of_claim(task)).rglob("*.mp4")
    assert probe_video(kept).num_frames == probe_video(floor.output(task)).num_frames
    floor.close()
