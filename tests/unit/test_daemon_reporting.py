"""What a run tells the database, and how patiently."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from headless.generation import CancelToken, Progress
from source.errors import InvalidInput, RefusedWrite, StaleClaim, StoreError
from source.reporting import LostClaim, ProgressReport, as_json, persist
from source.running import MAX_RETRY_DELAY_S, retry_delay_s
from source.store.sqlite import SqliteStore
from source.store.types import Claim, NewTask


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "tasks.db")
    yield store
    store.close()


@pytest.fixture
def claim(store: SqliteStore) -> Claim:
    store.add(NewTask(task_type="t2v", params={}))
    [task] = store.claim("me", lease_s=60)
    return task.claim


def events(store: SqliteStore, claim: Claim) -> list[str]:
    return [event.name for event in store.events(claim.task_id)][2:]


def test_each_phase_is_stored_and_repetitions_are_throttled(store: SqliteStore, claim: Claim) -> None:
    report = ProgressReport(store, claim, CancelToken(), interval_s=3600)
    for progress in (
        Progress("loading"),
        Progress("denoising", 1, 9),
        Progress("denoising", 2, 9),
        Progress("loading"),
    ):
        report(progress)
    stored = dict(store.get(claim.task_id).progress or {})
    stages, steps = stored.pop("stages"), stored.pop("steps_made")
    assert (stored, steps) == (as_json(Progress("denoising", 1, 9)), 1)
    assert list(dict(stages)) == ["preparing", "loading", "denoising"]
    assert events(store, claim) == ["loading", "started"]


def test_generation_starts_once(store: SqliteStore, claim: Claim) -> None:
    report = ProgressReport(store, claim, CancelToken(), interval_s=0)
    for progress in (Progress("encoding"), Progress("denoising", 1, 2), Progress("decoding"), Progress("encoding")):
        report(progress)
    assert events(store, claim) == ["started"]


def test_progress_learns_of_a_cancel(store: SqliteStore, claim: Claim) -> None:
    token = CancelToken()
    store.cancel(claim.task_id)
    ProgressReport(store, claim, token, interval_s=0)(Progress("denoising", 1, 2))
    assert token.cancelled
    assert not isinstance(token.reason, StaleClaim)


def test_progress_of_a_lost_claim_stops_the_run(store: SqliteStore, claim: Claim) -> None:
    token = CancelToken()
    store.release(claim)
    ProgressReport(store, claim, token, interval_s=0)(Progress("denoising", 1, 2))
    assert isinstance(token.reason, LostClaim)


def test_progress_is_no_reason_to_fail_when_the_database_is_away(tmp_path: Path, claim: Claim) -> None:
    away = SqliteStore(tmp_path / "away.db")
    away.close()
    token = CancelToken()
    ProgressReport(away, claim, token, interval_s=0)(Progress("denoising", 1, 2))
    assert not token.cancelled


def test_progress_is_json(store: SqliteStore) -> None:
    stored = {"phase": "denoising", "step": 1, "total": 3, "fraction": 0.3333, "text": "x"}
    assert as_json(Progress("denoising", 1, 3, "x")) == stored


def test_a_write_is_repeated_until_the_database_answers() -> None:
    failures = [StoreError("away"), StoreError("still away")]

    def write() -> str:
        if failures:
            raise failures.pop()
        return "written"

    assert persist(write, threading.Event()) == "written"


def test_a_result_waits_for_room_on_the_disk() -> None:
    failures = [OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EDQUOT, "Quota exceeded")]

    def stage() -> str:
        if failures:
            raise failures.pop()
        return "staged"

    assert persist(stage, threading.Event()) == "staged"


@pytest.mark.parametrize(
    "error",
    [OSError(errno.EROFS, "read-only"), StaleClaim(), RefusedWrite(), InvalidInput("wrong"), ValueError("a bug")],
)
def test_a_refusal_is_not_repeated(error: Exception) -> None:
    calls = []

    def write() -> None:
        calls.append(1)
        raise error

    with pytest.raises(type(error)):
        persist(write, threading.Event())
    assert len(calls) == 1


def test_nothing_is_repeated_at_closing_time() -> None:
    closing = threading.Event()
    closing.set()

    def write() -> None:
        raise StoreError("away")

    with pytest.raises(StoreError):
        persist(write, closing)


@pytest.mark.parametrize(
    ("attempts", "expected_s"), [(0, 10), (1, 20), (2, 40), (30, MAX_RETRY_DELAY_S), (5000, MAX_RETRY_DELAY_S)]
)
def test_retries_wait_longer_each_time(attempts: int, expected_s: float) -> None:
    delays = [retry_delay_s(10, attempts) for _ in range(50)]
    assert all(0.75 * expected_s <= delay <= 1.25 * expected_s for delay in delays)
    assert len(set(delays)) > 1
