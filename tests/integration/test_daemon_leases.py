"""What holds when a run takes long, is cancelled, loses its claim, or the worker has to leave."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from worker_floor import DEADLINE_S, Floor, draw

from headless.testing import FakeOrchestrator, Gate
from source.daemon import new_worker_id
from source.diagnostics.views import seconds_between
from source.errors import StoreError
from source.leases import Changes, Leases, repeat_after_s
from source.params.base import TaskParams
from source.store.sqlite import SqliteStore
from source.store.types import Claim, NewTask, Status, Task
from source.task_registry import Done, TaskContext

#: a lease that ends within a test, renewed four times in that time
SHORT = {"lease_s": 2.0, "heartbeat_s": 0.5}


@contextmanager
def gated(folder: Path, **settings: Any) -> Iterator[tuple[Floor, Gate]]:
    """A floor whose engine stops in its first step until the gate is opened."""
    gate = Gate()
    floor = Floor(folder, FakeOrchestrator(gate=gate), **settings)
    try:
        yield floor, gate
    finally:
        gate.open()
        floor.close()


def test_heartbeats_keep_the_lease_of_a_long_run(tmp_path: Path) -> None:
    with gated(tmp_path, **SHORT) as (floor, gate):
        task = floor.add()
        with floor.working():
            gate.wait_until_held()
            first = floor.store.get(task).lease_expires_at
            assert first is not None
            floor.wait_until(lambda: clock(floor) > first)
            row = floor.store.get(task)
            assert (row.status, row.claim_number) == (Status.IN_PROGRESS, 1)
            assert row.lease_expires_at is not None
            assert row.lease_expires_at > first
            gate.open()
            assert floor.wait_for(task, Status.COMPLETE).attempts == 0


@pytest.mark.parametrize(("holds", "longest_s", "calls"), [(True, 5, 14), (False, 20, 7)])
def test_heartbeats_of_an_outage_become_fewer(holds: bool, longest_s: float, calls: int) -> None:
    """On Supabase each is a call that costs. `calls`: in the first minute."""
    waits = [repeat_after_s(failures, 20, holds=holds) for failures in range(1, 40)]
    assert waits[:2] == [1, 2]
    assert max(waits) == waits[-1] == longest_s
    assert sum(sum(waits[:number]) < 60 for number in range(len(waits))) == calls
    assert repeat_after_s(1, 0.5, holds=holds) == 0.5, "never later than the next one that was due anyway"


def test_a_running_task_is_cancelled_within_two_seconds_and_no_neighbour(tmp_path: Path) -> None:
    with gated(tmp_path, lease_s=60, heartbeat_s=50, max_in_flight=1) as (floor, gate):
        task, neighbour = floor.add(), floor.add()
        with floor.working():
            gate.wait_until_held()
            floor.store.cancel(task)
            row = floor.wait_for(task, Status.CANCELLED)
            asked = next(event.at for event in floor.store.events(task) if event.name == "cancel_requested")
            assert row.generation_processed_at is not None
            assert seconds(asked, row.generation_processed_at) < 2
            gate.wait_until_held()
            gate.open()
            floor.wait_for(neighbour, Status.COMPLETE)
        assert not list((floor.settings.main_output_dir / "draw").glob(f"{task}*"))


def test_a_task_that_waits_for_the_gpu_is_cancelled_too(tmp_path: Path) -> None:
    with gated(tmp_path) as (floor, gate):
        running, waiting = floor.add(), floor.add()
        with floor.working():
            gate.wait_until_held()
            floor.wait_for(waiting, Status.IN_PROGRESS)
            floor.store.cancel(waiting)
            floor.wait_for(waiting, Status.CANCELLED)
            assert floor.store.get(running).status is Status.IN_PROGRESS
            gate.open()
            floor.wait_for(running, Status.COMPLETE)


def test_one_generation_is_prepared_ahead_and_the_others_are_left_to_other_workers(tmp_path: Path) -> None:
    with gated(tmp_path) as (floor, gate):
        tasks = [floor.add() for _ in range(4)]
        with floor.working():
            gate.wait_until_held()
            floor.wait_until(lambda: len(floor.claimed()) == 2)
            assert len(floor.store.claim("another", lease_s=60, limit=9)) == 2
            gate.open()
            for task in tasks[:2]:
                floor.wait_for(task, Status.COMPLETE)


def hold_up(floor: Floor) -> tuple[threading.Event, threading.Event]:
    """Registers `prepare`, a generation whose preparation sets the first event and waits for the second."""
    preparing, go_on = threading.Event(), threading.Event()

    def prepare(params: TaskParams, context: TaskContext) -> Done:
        preparing.set()
        assert go_on.wait(DEADLINE_S)
        return draw(params, context)

    floor.register("prepare", prepare, uses_gpu=True)
    return preparing, go_on


def test_nothing_is_claimed_ahead_before_the_generation_has_begun(tmp_path: Path) -> None:
    """While a worker still prepares its first generation, an idle worker may take the next one."""
    floor = Floor(tmp_path, prepare_ahead_s=600)
    preparing, go_on = hold_up(floor)
    first = floor.add("prepare", prompt="a ball")
    second = floor.add()
    with floor.working():
        assert preparing.wait(DEADLINE_S)
        cpu = floor.add("nothing")
        floor.wait_for(cpu, Status.COMPLETE)
        assert floor.store.get(second).status is Status.QUEUED
        go_on.set()
        floor.wait_for(first, Status.COMPLETE)
        floor.wait_for(second, Status.COMPLETE)
    floor.close()


def test_a_generation_that_takes_long_to_prepare_does_not_keep_the_gpu_idle(tmp_path: Path) -> None:
    floor = Floor(tmp_path, prepare_ahead_s=0)
    _, go_on = hold_up(floor)
    slow = floor.add("prepare", prompt="a ball")
    quick = floor.add()
    with floor.working():
        floor.wait_for(quick, Status.COMPLETE)
        assert floor.store.get(slow).status is Status.IN_PROGRESS
        go_on.set()
        floor.wait_for(slow, Status.COMPLETE)
    floor.close()


def test_a_run_that_lost_its_claim_stops_and_publishes_nothing(tmp_path: Path) -> None:
    """A zombie: its lease expired and another worker has the row. Here the other one completes without a file."""
    with gated(tmp_path, lease_s=60, heartbeat_s=0.2, max_in_flight=1) as (floor, gate):
        task = floor.add()
        with floor.working() as worker:
            gate.wait_until_held()
            runs = worker.runs()
            expire(floor, task)
            [other] = floor.store.claim("other", lease_s=60)
            assert other.claim_number == 2
            assert runs[0].ended.wait(DEADLINE_S)
            floor.store.complete(other.claim, None)
        assert floor.store.get(task).status is Status.COMPLETE
        assert floor.event_names(task).count("complete") == 1
        assert not floor.published()


def test_a_worker_that_claims_its_own_lost_row_again_runs_it_after_the_first_run_stopped(tmp_path: Path) -> None:
    with gated(tmp_path, lease_s=60, heartbeat_s=50) as (floor, gate):
        task = floor.add()
        with floor.working() as worker:
            gate.wait_until_held()
            [first] = worker.runs()
            expire(floor, task)
            floor.wait_until(lambda: floor.store.get(task).claim_number == 2)
            assert first.ended.wait(DEADLINE_S)
            gate.open()
            row = floor.wait_for(task, Status.COMPLETE)
        assert (row.attempts, row.claim_number, len(floor.published())) == (1, 2, 1)
        assert len(floor.engine.calls) == 2


def test_a_completion_that_comes_too_late_is_refused(tmp_path: Path) -> None:
    """The row is taken away in the last moment, when nobody can stop the run any more."""
    floor = Floor(tmp_path, lease_s=60, heartbeat_s=50, max_in_flight=1)

    def too_late(params: TaskParams, context: TaskContext) -> Done:
        result = context.scratch / "late.txt"
        result.write_text("late")
        expire(floor, context.task.id)
        [other] = floor.store.claim("other", lease_s=60)
        floor.store.complete(other.claim, None)
        return Done(result)

    floor.register("too_late", too_late)
    task = floor.add("too_late")
    floor.work()
    row = floor.store.get(task)
    assert (row.status, row.output_location, row.worker_id) == (Status.COMPLETE, None, "other")
    assert not floor.published()
    floor.close()


def test_a_stopped_worker_puts_its_tasks_back_without_burning_an_attempt(tmp_path: Path) -> None:
    with gated(tmp_path) as (floor, gate):
        tasks = [floor.add(), floor.add()]
        with floor.working():
            gate.wait_until_held()
            floor.wait_for(tasks[1], Status.IN_PROGRESS)
        rows = [floor.store.get(task) for task in tasks]
        assert {(row.status, row.attempts, row.error_message) for row in rows} == {(Status.QUEUED, 0, None)}
        assert "released" in floor.event_names(tasks[0])
        assert not floor.leftovers()


def test_a_stopped_worker_lets_tasks_finish_within_the_grace(tmp_path: Path) -> None:
    with gated(tmp_path, shutdown_grace_s=20) as (floor, gate):
        task = floor.add()
        with floor.working() as worker:
            gate.wait_until_held()
            [run] = worker.runs()
            worker.stop()
            after = floor.add("nothing")
            gate.open()
            assert run.ended.wait(DEADLINE_S)
        assert floor.store.get(task).status is Status.COMPLETE
        assert floor.store.get(after).status is Status.QUEUED


class Unreachable(SqliteStore):
    """No row can be put back: each time one waits for an answer in vain."""

    released = 0

    def release(self, claim: Claim) -> None:
        self.released += 1
        threading.Event().wait(1.1)
        raise StoreError("no answer")


def test_a_database_that_does_not_answer_is_not_asked_for_every_run_that_hangs(tmp_path: Path) -> None:
    hangs, free = threading.Semaphore(0), threading.Event()

    def hang(params: TaskParams, context: TaskContext) -> Done:
        hangs.release()
        free.wait(DEADLINE_S)
        return Done(None)

    floor = Floor(tmp_path, open_it=lambda settings: Unreachable(settings.db_file), max_in_flight=6)
    floor.register("hang", hang)
    for _ in range(6):
        floor.add("hang")
    with floor.working() as worker:
        for _ in range(6):
            assert hangs.acquire(timeout=DEADLINE_S)
        worker.stop()
        worker.stop()
    assert cast(Unreachable, floor.store).released == 2
    free.set()
    for run in worker.runs():
        run.ended.wait(DEADLINE_S)
    floor.close()


def test_a_second_stop_lets_go_at_once_of_a_run_that_hangs(tmp_path: Path) -> None:
    floor = Floor(tmp_path, shutdown_grace_s=DEADLINE_S)
    hangs, free = threading.Event(), threading.Event()

    def hang(params: TaskParams, context: TaskContext) -> Done:
        hangs.set()
        free.wait(DEADLINE_S)
        return Done(None)

    floor.register("hang", hang)
    task = floor.add("hang")
    with floor.working() as worker:
        assert hangs.wait(DEADLINE_S)
        worker.stop()
        worker.stop()
        floor.wait_for(task, Status.QUEUED)
        [run] = worker.runs()
    free.set()
    assert run.ended.wait(DEADLINE_S)
    row = floor.store.get(task)
    assert (row.status, row.attempts) == (Status.QUEUED, 0)
    floor.close()


def test_until_idle_waits_for_another_workers_lease(tmp_path: Path) -> None:
    floor = Floor(tmp_path)
    task = floor.add("nothing")
    [elsewhere] = floor.store.claim("other", lease_s=60)
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(floor.work()))
    thread.start()
    thread.join(1.0)
    assert thread.is_alive()
    floor.store.complete(elsewhere.claim, None)
    thread.join(DEADLINE_S)
    assert codes == [0]
    assert floor.store.get(task).worker_id == "other"
    floor.close()


def test_until_idle_takes_over_what_a_dead_worker_left(tmp_path: Path) -> None:
    floor = Floor(tmp_path)
    task = floor.add("nothing")
    floor.store.claim("dead", lease_s=1)
    assert floor.work() == 0
    row = floor.store.get(task)
    assert (row.status, row.attempts, row.claim_number) == (Status.COMPLETE, 1, 2)
    floor.close()


def test_scratch_of_a_dead_claim_is_removed_by_the_next(tmp_path: Path) -> None:
    floor = Floor(tmp_path)
    task = floor.add()
    left = floor.settings.main_output_dir / "draw" / floor.of_claim(task)
    left.mkdir(parents=True)
    (left / "half.mp4").write_bytes(b"half")
    floor.store.claim("dead", lease_s=0.001)
    floor.work()
    assert floor.store.get(task).status is Status.COMPLETE
    assert not floor.leftovers()
    floor.close()


def test_a_new_row_is_seen_long_before_the_next_poll(tmp_path: Path) -> None:
    floor = Floor(tmp_path, poll_interval_s=600, rescue_interval_s=600)
    with floor.working():
        outside = SqliteStore(floor.settings.db_file)
        task = outside.add(NewTask(task_type="nothing", params={}))
        floor.wait_for(task, Status.COMPLETE)
        outside.close()
    floor.close()


def test_workers_of_one_name_are_told_apart() -> None:
    first, second = new_worker_id("box"), new_worker_id("box")
    assert first != second
    assert first.startswith("box-")


def test_a_worker_appears_in_the_table_and_says_goodbye(tmp_path: Path) -> None:
    floor = Floor(tmp_path)
    with floor.working() as worker:
        floor.wait_until(lambda: bool(floor.store.workers()))
        assert (floor.store.workers()[0].id, floor.store.workers()[0].status) == (worker.worker_id, "active")
    assert floor.store.workers()[0].status == "stopped"
    floor.close()


class Outage:
    """Wraps a store: while `down`, every call fails as if the database were away. `hits` counts them."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self.down = False
        self.hits = 0
        self.struck = threading.Event()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        return self._guarded(found) if callable(found) else found

    def _guarded(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*args: Any, **keywords: Any) -> Any:
            if self.down:
                self.hits += 1
                self.struck.set()
                raise StoreError("the database is away")
            return call(*args, **keywords)

        return guarded


def test_an_outage_of_the_database_loses_no_generation(tmp_path: Path) -> None:
    gate = Gate()
    floor = Floor(tmp_path, FakeOrchestrator(gate=gate), heartbeat_s=0.2)
    store = floor.store
    outage = Outage(store)
    floor.store = outage  # type: ignore[assignment]
    task = floor.add()
    with floor.working():
        gate.wait_until_held()
        outage.down = True
        gate.open()
        assert outage.struck.wait(DEADLINE_S)
        wait_for_hits(outage, 5)
        outage.down = False
        row = floor.wait_for(task, Status.COMPLETE)
    assert (row.attempts, row.claim_number) == (0, 1)
    assert len(floor.engine.calls) == 1
    assert floor.output(task).is_file()
    floor.store = store
    floor.close()


def wait_for_hits(outage: Outage, count: int) -> None:
    while outage.hits < count:
        outage.struck.clear()
        assert outage.struck.wait(DEADLINE_S)


def expire(floor: Floor, task_id: str) -> None:
    """The lease ran out: this worker was stopped for longer than that."""
    connection = sqlite3.connect(floor.settings.db_file, isolation_level=None)
    connection.execute("UPDATE tasks SET lease_expires_at = '2000-01-01T00:00:00.000Z' WHERE id = ?", (task_id,))
    connection.close()


def clock(floor: Floor) -> str:
    """Now, by the database."""
    connection = sqlite3.connect(floor.settings.db_file)
    now: str = connection.execute("SELECT strftime('%Y-%m-%dT%H:%M:%fZ', 'now')").fetchone()[0]
    connection.close()
    return now


def seconds(start: str, end: str) -> float:
    between = seconds_between(start, end)
    assert between is not None
    return between


class Stood:
    """A run, as far as leases see it."""

    def __init__(self, task: Task) -> None:
        self.task, self.claim, self.lost = task, task.claim, False

    def lose(self) -> None:
        self.lost = True


def test_a_worker_that_stood_still_renews_its_leases_before_it_rescues(tmp_path: Path) -> None:
    """After a sleep, or an outage longer than the lease: nobody took the rows, so their runs go on."""
    floor = Floor(tmp_path, heartbeat_s=1e-9)
    taken, kept = floor.add("nothing"), floor.add("nothing")
    runs = [Stood(task) for task in floor.store.claim("worker", lease_s=60, limit=2)]
    expire(floor, taken)
    [other] = floor.store.claim("other", lease_s=60)
    leases = Leases(floor.store, "worker", floor.settings, lambda: runs, lambda: None)  # type: ignore[return-value, arg-type]
    expire(floor, kept)
    leases.catch_up()
    assert other.id == taken
    assert {run.task.id: run.lost for run in runs} == {taken: True, kept: False}
    assert floor.store.rescue() == 0
    floor.close()


def test_a_deleted_row_stops_its_run_and_hides_no_other(tmp_path: Path) -> None:
    floor = Floor(tmp_path)
    gone, other = floor.add("nothing"), floor.add("nothing")
    runs = [Stood(task) for task in floor.store.claim("worker", lease_s=60, limit=2)]
    connection = sqlite3.connect(floor.settings.db_file, isolation_level=None)
    connection.execute("DELETE FROM tasks WHERE id = ?", (gone,))
    connection.execute("UPDATE tasks SET claim_number = 2 WHERE id = ?", (other,))
    connection.close()
    Changes(floor.store, lambda: runs, lambda: None, lambda: None).look_at_claims()  # type: ignore[return-value, arg-type]
    assert [run.lost for run in runs] == [True, True]
    floor.close()


def test_a_write_that_the_database_refuses_fails_the_task_and_is_not_repeated_for_ever(tmp_path: Path) -> None:
    floor = Floor(tmp_path)
    connection = sqlite3.connect(floor.settings.db_file, isolation_level=None)
    connection.execute(
        "CREATE TRIGGER mine BEFORE UPDATE OF output_location ON tasks WHEN NEW.output_location IS NOT NULL"
        " BEGIN SELECT RAISE(ABORT, 'no room in the gallery'); END"
    )
    connection.close()
    refused, fine = floor.add(), floor.add("nothing")
    assert floor.work() == 0
    row = floor.store.get(refused)
    assert (row.status, row.error_class) == (Status.FAILED, "database")
    assert row.error_message is not None and "no room in the gallery" in row.error_message
    assert floor.store.get(fine).status is Status.COMPLETE
    assert not floor.published()
    floor.close()
