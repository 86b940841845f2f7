"""What a store keeps for those who watch: log lines, samples of workers, what ended when."""

from __future__ import annotations

import logging
import uuid
from datetime import datetime, timedelta

import pytest
from contract_rows import LONG_S, FrontEnd, MakeStore, a_task, claim, fan_out

from source.errors import InvalidInput
from source.store import LogFilter, OpenState, Status, TaskStore
from source.worker_logs import WorkerLogs

TASK, OTHER = str(uuid.uuid4()), str(uuid.uuid4())


def line(logs: WorkerLogs, text: str, *, level: int = logging.INFO, task_id: str = "-", age_s: float = 0) -> None:
    """What a worker logs."""
    record = logging.LogRecord("source.test", level, __file__, 1, text, (), None)
    record.task, record.created = task_id, record.created - age_s
    logs.emit(record)


def messages(store: TaskStore, limit: int = 200, **chosen: object) -> list[str]:
    return [each.message for each in store.logs(LogFilter(**chosen), limit=limit)]  # type: ignore[arg-type]


class FactsContract:
    def test_log_lines_come_with_heartbeats(self, make_store: MakeStore) -> None:
        logs = WorkerLogs()
        store = make_store(logs=logs)
        line(logs, "prepared", task_id=TASK)
        line(logs, "slow disk", level=logging.WARNING)
        assert store.logs(LogFilter()) == []
        store.heartbeat("box-1a2b3c4d", [], lease_s=LONG_S)
        first, second = store.logs(LogFilter())
        assert (first.message, first.level, first.task_id, first.worker_id) == (
            "prepared",
            "INFO",
            TASK,
            "box-1a2b3c4d",
        )
        assert (second.message, second.level, second.task_id) == ("slow disk", "WARNING", None)
        assert first.metadata["logger"] == "source.test"
        assert abs(datetime.fromisoformat(first.at) - store.now()) < timedelta(minutes=1)
        assert first.at.endswith("Z")
        store.heartbeat("box-1a2b3c4d", [], lease_s=LONG_S)
        assert len(store.logs(LogFilter())) == 2

    def test_log_lines_are_chosen_and_the_newest_are_told_oldest_first(self, make_store: MakeStore) -> None:
        logs = WorkerLogs()
        store = make_store(logs=logs)
        line(logs, "long ago", age_s=7200)
        line(logs, "Prepared", task_id=TASK)
        line(logs, "a bad one", level=logging.ERROR, task_id=OTHER)
        line(logs, "100% done_", level=logging.WARNING, task_id=TASK)
        store.heartbeat("box-1a2b3c4d", [], lease_s=LONG_S)
        line(logs, "another's")
        store.heartbeat("box-1-1a2b3c4d", [], lease_s=LONG_S)
        assert messages(store, task_id=TASK) == ["Prepared", "100% done_"]
        assert messages(store, level="warning") == ["a bad one", "100% done_"]
        assert messages(store, since_s=3600.0, worker_id="box") == ["Prepared", "a bad one", "100% done_"]
        assert messages(store, worker_id="box-1-1a2b3c4d") == ["another's"]
        assert messages(store, worker_id="b.x") == messages(store, worker_id="box-1a2b3c4") == []
        store.heartbeat("a.(b)\\", [], lease_s=LONG_S, sample={"rss": 1})
        assert [each.worker_id for each in store.samples(worker_id="a.(b)\\")] == ["a.(b)\\"]
        assert messages(store, text="PREPARED") == ["Prepared"]
        assert messages(store, text="% done_") == ["100% done_"] and messages(store, text="e_") == ["100% done_"]
        assert messages(store, limit=2) == ["100% done_", "another's"]
        assert messages(store, limit=0) == messages(store, task_id="nobody") == []
        with pytest.raises(InvalidInput, match="loud"):
            store.logs(LogFilter(level="loud"))

    def test_a_line_that_no_database_likes_is_kept_with_the_others(self, make_store: MakeStore) -> None:
        logs = WorkerLogs()
        store = make_store(logs=logs)
        line(logs, "odd \ud800 text\0 here", task_id="no-uuid")
        line(logs, "next")
        store.heartbeat("w", [], lease_s=LONG_S)
        odd, following = messages(store)
        assert odd.startswith("odd ") and odd.endswith(" here") and following == "next"

    def test_samples_of_workers(self, store: TaskStore) -> None:
        values = {"gpu_utilization": 93, "gpu_memory_used": 2**35, "gpu_seconds": {"denoise": 1.5}, "rss": None}
        store.heartbeat("box-1a2b3c4d", [], lease_s=LONG_S, sample=values)
        store.heartbeat("box-1a2b3c4d", [], lease_s=LONG_S)
        store.heartbeat("other", [], lease_s=LONG_S, sample={"rss": 7})
        first, second = store.samples()
        assert (first.worker_id, first.values) == ("box-1a2b3c4d", values)
        assert (second.worker_id, second.values) == ("other", {"rss": 7})
        assert first.at <= second.at and abs(datetime.fromisoformat(first.at) - store.now()) < timedelta(minutes=1)
        assert store.samples(worker_id="box") == [first]
        assert store.samples(limit=1) == [second] and store.samples(limit=0) == []

    def test_what_ended_by_span_status_and_type(self, store: TaskStore) -> None:
        for task_type in ("t2v", "t2v", "i2v"):
            store.add(a_task(task_type=task_type))
            done = claim(store).claim
            store.generation_started(done)
            store.complete(done, None)
        store.add(a_task())
        store.fail(claim(store).claim, "no", error_class="bad_input")
        store.cancel(store.add(a_task()))
        store.add(a_task())
        found = store.throughput(since_s=3600.0, bucket_s=86_400.0)
        ended = {(each.status, each.task_type): each.count for each in found}
        # Two spans around midnight.
        if len({each.at for each in found}) == 1:
            assert ended == {
                (Status.COMPLETE, "t2v"): 2, (Status.COMPLETE, "i2v"): 1, (Status.FAILED, "t2v"): 1,
                (Status.CANCELLED, "t2v"): 1,
            }  # fmt: skip
        assert sum(each.count for each in found) == 5
        assert all(each.at.endswith("T00:00:00.000Z") and 0 <= each.seconds < 60 for each in found)
        assert sum(each.count for each in store.throughput(since_s=3600.0, bucket_s=1.0)) == 5
        for since_s, bucket_s in ((3600.0, 0.5), (1e6, 1.0), (0.0, 60.0)):
            with pytest.raises(InvalidInput):
                store.throughput(since_s=since_s, bucket_s=bucket_s)

    def test_how_many_rows_are_where(self, store: TaskStore, front_end: FrontEnd) -> None:
        assert store.queue_depths() == []
        store.add(a_task(task_type="old"))
        store.complete(claim(store).claim, None)
        store.add(a_task(task_type="i2v"))
        claim(store)
        parent, _ = fan_out(store, "segment:0", "stitch:0")
        first = store.add(a_task())
        store.add(a_task(dependant_on=(first,)))
        store.pause(store.add(a_task()))
        front_end.update(store.add(a_task()), run_after="2999-01-01T00:00:00.000Z")
        found = store.queue_depths()
        assert {(each.state, each.task_type): each.count for each in found} == {
            (OpenState.RUNNING, "i2v"): 1, (OpenState.WAITING, "travel_orchestrator"): 1,
            (OpenState.CLAIMABLE, "t2v"): 2, (OpenState.BLOCKED, "t2v"): 3, (OpenState.PAUSED, "t2v"): 1,
        }  # fmt: skip
        assert all(0 <= each.oldest_s < 60 for each in found) and parent
