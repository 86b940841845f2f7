"""The negative control: stores that break a promise are found out, and the whole one is not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from source.chaos.checker import Asked, Findings, Found, check
from source.chaos.history import History, read_histories
from source.chaos.points import Trap
from source.chaos.witness import WitnessedStore
from source.errors import StaleClaim
from source.store.base import TaskStore
from source.store.sqlite import SqliteStore
from source.store.types import Claim, HeartbeatReply, NewTask, Task

EXPIRED_S, LONG_S, OVERTAKEN_S = -1.0, 60.0, 60.0


class Unfenced(SqliteStore):
    """Completes for whoever asks."""

    def complete(self, claim: Claim, output_location: str | None, **given: Any) -> None:
        return super().complete(self.get(claim.task_id).claim, output_location, **given)


class Overtaken(Unfenced):
    """Heartbeats extend no lease, and the first claim of a row is completed when another one has it."""

    def heartbeat(self, worker_id: str, claims: Sequence[Claim], **given: Any) -> HeartbeatReply:
        return super().heartbeat(worker_id, [], **given)

    def complete(self, claim: Claim, output_location: str | None, **given: Any) -> None:
        deadline = time.monotonic() + OVERTAKEN_S
        while claim.claim_number == 1 == self.get(claim.task_id).claim_number and time.monotonic() < deadline:
            threading.Event().wait(0.05)
        return super().complete(claim, output_location, **given)


class Unguarded(SqliteStore):
    """Hands out what is held already."""

    def claim(self, worker_id: str, **given: Any) -> list[Task]:
        with self._writing() as db:
            db.execute("UPDATE tasks SET status = 'Queued', worker_id = NULL WHERE status = 'In Progress'")
        return super().claim(worker_id, **given)


class Forgetful(SqliteStore):
    """Says that it completed, and does not."""

    def complete(self, claim: Claim, output_location: str | None, **given: Any) -> None:
        """Nothing."""


class Negligent(SqliteStore):
    """Never takes an expired lease back."""

    def claim(self, worker_id: str, *, lease_s: float, **given: Any) -> list[Task]:
        return super().claim(worker_id, lease_s=LONG_S, **given)


def spoilt(name: str) -> Callable[[TaskStore], TaskStore]:
    """What makes a worker's store one of these."""
    kind: type[SqliteStore] = globals()[name]
    return lambda store: kind(cast(SqliteStore, store).path)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[[type[SqliteStore]], Findings]]:
    stores: list[SqliteStore] = []
    history = History(tmp_path / "w.jsonl")

    def of(kind: type[SqliteStore]) -> Findings:
        """Two workers and one task: the first is a zombie, whose lease has expired when the second claims."""
        store = kind(tmp_path / "tasks.db")
        stores.append(store)
        task = store.add(NewTask(task_type="chaos_clip", params={}))
        watched = WitnessedStore(store, history, Trap())
        [first] = watched.claim("w1", lease_s=EXPIRED_S)
        second = watched.claim("w2", lease_s=LONG_S)
        for claimed in (first, *second):
            complete(watched, claimed)
        found = Found({task: store.get(task)}, {task: store.events(task)}, lambda _: None)
        return check(Asked(frozenset({task}), faults=1), found, read_histories(tmp_path))

    yield of
    for store in stores:
        store.close()
    history.close()


def complete(watched: WitnessedStore, task: Task, result: Mapping[str, Any] | None = None) -> None:
    try:
        watched.complete(task.claim, None, result_data=result)
    except StaleClaim:
        return


def test_the_whole_store_passes(run: Callable[[type[SqliteStore]], Findings]) -> None:
    assert run(SqliteStore).violations == ()


def test_completions_without_fencing_are_found_out(run: Callable[[type[SqliteStore]], Findings]) -> None:
    found = run(Unfenced)
    assert found.stale_accepted and found.duplicated


def test_claims_without_a_guard_are_found_out(run: Callable[[type[SqliteStore]], Findings]) -> None:
    [said] = run(Unguarded).unexpected
    assert said.endswith("claim 2 took it from claim 1, which held it")


def test_a_completion_that_was_not_stored_is_found_out(run: Callable[[type[SqliteStore]], Findings]) -> None:
    assert len(run(Forgetful).lost) == 2


def test_a_task_of_a_dead_worker_that_nobody_takes_is_found_out(tmp_path: Path) -> None:
    store = Negligent(tmp_path / "tasks.db")
    task = store.add(NewTask(task_type="chaos_clip", params={}))
    store.claim("w1", lease_s=EXPIRED_S)
    assert store.claim("w2", lease_s=LONG_S) == []
    found = check(Asked(frozenset({task})), Found({task: store.get(task)}, {}, lambda _: None), [])
    store.close()
    assert "for ever" in found.lost[0]
