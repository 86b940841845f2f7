"""Log lines on their way to the database, and what heartbeats do with them."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from source.errors import InvalidInput, StoreError
from source.logs import task_context
from source.store.supabase import SupabaseStore
from source.worker_logs import LONGEST, WorkerLogs

TASK = str(uuid.uuid4())


class Recorder:
    """Functions that note what they were asked, and fail as told."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.failures: list[Exception] = []

    def call(self, function: str, body: Mapping[str, Any], *, repeat: bool = True) -> Any:
        self.asked.append(dict(body))
        if self.failures:
            raise self.failures.pop(0)
        return {"lost": [], "cancel_requested": []}

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def logs() -> Iterator[WorkerLogs]:
    """On a logger of the test's own."""
    handler = WorkerLogs(["swordfish"], capacity=1000)
    logger = logging.getLogger("source.test_worker_logs")
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def line(text: str, level: int = logging.INFO) -> None:
    logging.getLogger("source.test_worker_logs").log(level, text)


def messages(entries: list[dict[str, Any]]) -> list[str]:
    return [entry["message"] for entry in entries]


def test_a_line_carries_its_time_level_task_and_logger(logs: WorkerLogs) -> None:
    with task_context(TASK):
        line("started")
    line("outside", logging.ERROR)
    with task_context("no uuid"):
        line("of another database", 45)
    line("not worth sending", logging.DEBUG)
    started, outside, other = logs.take()
    assert (started["level"], started["task_id"], started["message"]) == ("INFO", TASK, "started")
    assert started["metadata"]["logger"] == "source.test_worker_logs"
    assert started["timestamp"].endswith("Z")
    assert outside["level"] == other["level"] == "ERROR"
    assert "task_id" not in outside and other["task_id"] == "no uuid"
    assert logs.take() == []


def test_lines_hold_no_secret_and_are_not_endless(logs: WorkerLogs) -> None:
    try:
        raise ValueError("the password is swordfish")
    except ValueError:
        logging.getLogger("source.test_worker_logs").exception("PUT https://s3/a.mp4?X-Amz-Signature=abc123 failed")
    line("x" * 100_000)
    failed, long = logs.take()
    assert "ValueError" in failed["message"]
    assert "swordfish" not in failed["message"] and "abc123" not in failed["message"]
    assert len(long["message"]) == LONGEST


def test_what_does_not_fit_is_counted_and_said(logs: WorkerLogs) -> None:
    for number in range(1007):
        line(str(number))
    first, second, *_ = logs.take(100)
    assert first["message"].startswith("7 older log lines were dropped")
    assert (first["level"], second["message"]) == ("WARNING", "7")
    assert logs.take(1)[0]["message"] == "107"


def test_lines_of_many_threads_are_all_there(logs: WorkerLogs) -> None:
    threads = [threading.Thread(target=lambda: [line("hello") for _ in range(100)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(logs.take(1000)) == 800


# -- heartbeats -----------------------------------------------------------------------------------------------------


def test_heartbeats_take_a_hundred_lines_along(logs: WorkerLogs) -> None:
    functions = Recorder()
    store = SupabaseStore(functions, logs=logs)
    for number in range(150):
        line(f"{number} \0")
    for _ in range(3):
        store.heartbeat("w", [], lease_s=60, metadata={"vram_total_mb": 81559})
    assert [len(beat.get("logs", [])) for beat in functions.asked] == [100, 50, 0]
    assert functions.asked[0]["logs"][7]["message"] == "7 \ufffd"
    assert functions.asked[0]["metadata"] == {"vram_total_mb": 81559}


def test_lines_of_a_beat_that_failed_go_with_the_next_one(logs: WorkerLogs) -> None:
    functions = Recorder()
    store = SupabaseStore(functions, logs=logs)
    line("first")
    functions.failures = [StoreError("out of reach")]
    with pytest.raises(StoreError):
        store.heartbeat("w", [], lease_s=60)
    line("second")
    store.heartbeat("w", [], lease_s=60)
    assert messages(functions.asked[-1]["logs"]) == ["first", "second"]


def test_lines_that_are_refused_do_not_cost_the_lease(logs: WorkerLogs) -> None:
    functions = Recorder()
    store = SupabaseStore(functions, logs=logs)
    line("unreadable")
    functions.failures = [InvalidInput("logs: what is that?")]
    assert store.heartbeat("w", [], lease_s=60).lost == frozenset()
    assert "logs" not in functions.asked[-1]
    store.heartbeat("w", [], lease_s=60)
    assert "logs" not in functions.asked[-1]
