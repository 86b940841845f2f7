"""A worker whose disk is short: it begins nothing, finishes what runs, cleans up and goes on by itself."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from worker_floor import Floor

import debug
from headless.testing import FakeOrchestrator, Gate
from source.disk import GB, Disk
from source.leftovers import Leftovers
from source.params.base import TaskParams
from source.storage import LocalStorage
from source.store.types import NewTask, Status
from source.supabase_storage import storage_for
from source.task_registry import Done, TaskContext

PLENTY, NOTHING = int(9 * GB), int(0.01 * GB)


class Disks:
    """What a test says is free."""

    def __init__(self) -> None:
        self.free = PLENTY

    def __call__(self, folder: Path) -> int:
        return self.free


@pytest.fixture
def disks() -> Disks:
    return Disks()


@pytest.fixture
def floor(tmp_path: Path) -> Iterator[Floor]:
    floor = Floor(tmp_path)
    yield floor
    floor.close()


def full(params: TaskParams, context: TaskContext) -> Done:
    """Write to a disk that is full."""
    context.scratch.joinpath("half.bin").write_bytes(bytes(1000))
    with open("/dev/full", "wb", buffering=0) as file:
        file.write(b"x")
    return Done(None)


def test_claiming_pauses_while_what_runs_finishes_and_goes_on_by_itself(tmp_path: Path, disks: Disks) -> None:
    gate = Gate()
    floor = Floor(tmp_path, FakeOrchestrator(gate=gate), heartbeat_s=0.1)
    running = floor.add()
    with floor.working(disk=Disk(floor.settings, free_bytes=disks)):
        gate.wait_until_held()
        disks.free = NOTHING
        waiting = floor.add()
        floor.wait_until(lambda: [worker.status for worker in floor.store.workers()] == ["low_disk"])
        gate.open()
        floor.wait_for(running, Status.COMPLETE)
        assert floor.store.get(waiting).status is Status.QUEUED
        disks.free = PLENTY
        assert floor.wait_for(waiting, Status.COMPLETE).attempts == 0
        floor.wait_until(lambda: [worker.status for worker in floor.store.workers()] == ["active"])
    floor.close()


def test_a_task_that_met_a_full_disk_waits_for_room_and_burns_no_attempt(floor: Floor, disks: Disks) -> None:
    def first_full(params: TaskParams, context: TaskContext) -> Done:
        if context.task.claim_number == 1:
            disks.free = NOTHING
            return full(params, context)
        return Done(None)

    floor.register("first_full", first_full)
    task = floor.add("first_full")
    with floor.working(disk=Disk(floor.settings, free_bytes=disks)):
        floor.wait_until(lambda: "released" in floor.event_names(task))
        row = floor.store.get(task)
        assert (row.status, row.attempts) == (Status.QUEUED, 0)
        [said] = [event.detail for event in floor.store.events(task) if event.name == "disk_full"]
        assert said is not None and "debug.py disk --clean" in said and "No space left" in said
        disks.free = PLENTY
        assert floor.wait_for(task, Status.COMPLETE).claim_number == 2


def test_a_task_too_large_for_the_disk_fails_after_its_attempts_and_says_why(floor: Floor, disks: Disks) -> None:
    floor.register("full", full)
    task = floor.add("full")
    assert floor.worker(disk=Disk(floor.settings, free_bytes=disks)).run(until_idle=True) == 0
    row = floor.store.get(task)
    assert (row.status, row.error_class, row.attempts) == (Status.FAILED, "disk_full", 3)
    assert row.error_message is not None
    assert "No space left" in row.error_message and "free some space there" in row.error_message
    assert not floor.leftovers()


class Refusing(LocalStorage):
    """Where results go, on a disk that is full until the test says otherwise."""

    room = False

    def stage(self, *given: Any, **more: Any) -> Any:
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.public_dir))
        return super().stage(*given, **more)


def test_a_finished_result_waits_for_room_and_is_not_made_again(floor: Floor) -> None:
    storage = Refusing(floor.settings)
    task = floor.add()
    with floor.working(storage=storage):
        floor.wait_until(lambda: floor.parcel(task).is_dir())
        storage.room = True
        assert floor.wait_for(task, Status.COMPLETE).claim_number == 1
    assert len(floor.engine.tasks) == 1


def test_results_above_their_quota_are_delivered_all_the_same_one_at_a_time(tmp_path: Path) -> None:
    """The next claim of its task delivers a result: if nothing were claimed the quota would hold it back for ever."""
    floor = Floor(tmp_path, outbox_quota_gb=1e-9)
    storage = Refusing(floor.settings)
    task = floor.add()
    with floor.working(storage=storage):
        floor.wait_until(lambda: floor.parcel(task).is_dir())
    other = floor.add("nothing")
    with floor.working(storage=storage):
        floor.wait_until(lambda: not floor.parcel(task).exists() and len(floor.undelivered()) == 1)
        storage.room = True
        delivered, begun = floor.wait_for(task, Status.COMPLETE), floor.wait_for(other, Status.COMPLETE)
    assert delivered.claim_number == 2 and len(floor.engine.tasks) == 1 and not floor.undelivered()
    assert delivered.generation_processed_at and begun.claimed_at
    assert delivered.generation_processed_at <= begun.claimed_at
    floor.close()


def test_a_result_that_waits_for_room_can_be_cancelled(floor: Floor) -> None:
    task, neighbour = floor.add(), floor.add("nothing")
    with floor.working(storage=Refusing(floor.settings)):
        floor.wait_until(lambda: floor.parcel(task).is_dir())
        floor.store.cancel(task)
        floor.wait_for(task, Status.CANCELLED)
        floor.wait_for(neighbour, Status.COMPLETE)
    assert floor.published() == []


# -- what can go ----------------------------------------------------------------------------------------------------


def made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"frames")
    return path


def test_what_nobody_needs_goes_and_everything_else_stays(floor: Floor) -> None:
    storage_for(floor.settings, floor.store).prepare()
    live, ended, kept = (
        floor.store.add(NewTask(task_type="draw", params=params)) for params in ({}, {}, {"debug": True})
    )
    for task in floor.store.claim("another", lease_s=600, limit=3):
        if task.id != live:
            floor.store.cancelled(task.claim) if task.id == ended else floor.store.complete(task.claim, None)
    scratch, staging = floor.settings.main_output_dir / "draw", floor.settings.public_dir / ".staging"
    goes = [
        made(scratch / floor.of_claim(ended) / "a.mp4"),
        made(scratch / floor.of_claim(live, 0) / "a.mp4"),
        made(staging / f"{ended}-1_a.mp4"),
    ]
    stays = [
        made(scratch / floor.of_claim(live) / "a.mp4"), made(staging / f"{live}-1_a.mp4"),
        made(scratch / floor.of_claim(kept) / "a.mp4"),
        made(scratch / f"{ended}-1-0123abcd" / "a.mp4"), made(scratch / floor.of_claim(live, 2) / "a.mp4"),
        made(floor.settings.public_dir / "files" / f"{ended}_a.mp4"), made(floor.settings.main_output_dir / "mine.mp4"),
    ]  # fmt: skip
    removed = Leftovers(floor.settings, floor.store).clean()
    assert len(removed) == 3
    assert [path.exists() for path in goes] == [False] * 3
    assert [path.exists() for path in stays] == [True] * 7
    assert Leftovers(floor.settings, floor.store).clean() == []


def test_an_undelivered_result_stays_until_its_row_has_ended_elsewhere(floor: Floor) -> None:
    """The run that could not deliver it may still be stopping, and its scratch folder be there or not."""

    def cleaned() -> set[Path]:
        return {each.path for each in Leftovers(floor.settings, floor.store).clean() if each.kind == "outbox"}

    task = floor.add()
    storage = Refusing(floor.settings)
    with floor.working(storage=storage):
        floor.wait_until(lambda: floor.parcel(task).is_dir())
    parcel = floor.parcel(task)
    assert floor.store.get(task).status is Status.QUEUED
    assert parcel.is_dir() and cleaned() == set()
    floor.store.cancel(task)
    assert cleaned() == {parcel}
    assert not parcel.exists()


def test_a_short_disk_is_cleaned_before_anything_pauses(floor: Floor) -> None:
    ended = floor.add("nothing")
    floor.work()
    litter = made(floor.settings.main_output_dir / "nothing" / floor.of_claim(ended) / "a.mp4")
    disk = Disk(floor.settings, free_bytes=lambda folder: NOTHING if litter.exists() else PLENTY)
    task = floor.add()
    assert floor.worker(disk=disk).run(until_idle=True) == 0
    assert (floor.store.get(task).status, litter.exists()) == (Status.COMPLETE, False)


def test_debug_disk_shows_what_lies_where_and_removes_only_what_is_safe(
    floor: Floor, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = floor.add()
    floor.work()
    litter = made(floor.settings.main_output_dir / "draw" / floor.of_claim(done) / "a.mp4")
    nobodys = made(floor.settings.public_dir / "files" / "of-nobody_a.mp4")
    flags = ("--db-file", str(floor.settings.db_file), "--main-output-dir", str(floor.settings.main_output_dir))

    def disk(*words: str) -> str:
        monkeypatch.setattr("sys.argv", ["debug.py", "disk", *words, *flags])
        assert debug.main() == 0
        return capsys.readouterr().out

    view = json.loads(disk("--json"))
    assert [(each["path"], each["removable"]) for each in view["tasks"]] == [(str(litter.parent), True)]
    assert [each["path"] for each in view["results_without_row"]] == [str(nobodys)]
    assert {"scratch", "results", "database", "its latest changes", "weights", "LoRAs"} <= {
        each["name"] for each in view["folders"]
    }
    assert (view["removable_bytes"], litter.exists()) == (6, True)
    shown = disk()
    assert "--clean removes" in shown and done in shown and "of-nobody_a.mp4" in shown
    cleaned = json.loads(disk("--clean", "--json"))
    assert ([each["path"] for each in cleaned["removed"]], cleaned["tasks"]) == ([str(litter.parent)], [])
    assert (litter.exists(), nobodys.exists(), floor.output(done).exists()) == (False, True, True)
    assert "there was nothing to remove" in disk("--clean")
