"""What a worker answers Prometheus, and what a database does: scraped, parsed, and compared with the rows."""

from __future__ import annotations

import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from worker_floor import DEADLINE_S, Floor

from source.chaos.run import QUICK
from source.chaos.tasks import CLIP, PARENT
from source.errors import ConfigurationError
from source.metrics import names
from source.metrics.database import database_metrics
from source.metrics.worker import WorkerMetrics, served
from source.store.sqlite import SqliteStore
from source.store.types import NewTask, Status

ROOT = Path(__file__).resolve().parents[2]
Numbers = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parsed(text: str) -> Numbers:
    """Each sample by its name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def number(numbers: Numbers, metric: names.Metric, suffix: str = "", **labels: str) -> float:
    """One number."""
    return numbers[f"{metric.name}{suffix}", frozenset(labels.items())]


def in_lanes(numbers: Numbers) -> float:
    """Tasks that the worker is still at."""
    return sum(value for (name, _), value in numbers.items() if name == names.LANE_TASKS.name)


class Scraped:
    """A worker process with the fake engine and a metrics port."""

    def __init__(self, folder: Path) -> None:
        self.store = SqliteStore(folder / "tasks.db")
        environment = QUICK | {"DB_FILE": str(folder / "tasks.db"), "METRICS_PORT": "0", "CHAOS_STEP_S": "0.02"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "source.chaos.worker"], cwd=folder, text=True, stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        )  # fmt: skip
        assert self.process.stderr is not None
        found = None
        while found is None:
            line = self.process.stderr.readline()
            assert line, "the worker ended"
            found = re.search(r"metrics: (http://127\.0\.0\.1:\d+/metrics)", line)
        self.url = found[1]

    def text(self) -> str:
        with urllib.request.urlopen(self.url, timeout=DEADLINE_S) as response:
            assert response.headers.get_content_type() == "text/plain"
            return str(response.read().decode())

    def until(self, holds: Callable[[], bool]) -> None:
        for _ in range(round(DEADLINE_S / 0.1)):
            if holds():
                return
            self.store.wait_for_change(0.1)
        raise AssertionError("it did not happen")

    def end(self) -> str:
        self.process.send_signal(signal.SIGTERM)
        _, said = self.process.communicate(timeout=DEADLINE_S)
        self.store.close()
        return said


@pytest.fixture
def scraped(tmp_path: Path) -> Iterator[Scraped]:
    worker = Scraped(tmp_path)
    yield worker
    if worker.process.poll() is None:
        worker.end()


def test_the_numbers_of_a_worker_are_those_of_its_rows(scraped: Scraped) -> None:
    store = scraped.store
    family = store.add(NewTask(task_type=PARENT, params={"children": 2}))
    clips = [store.add(NewTask(task_type=CLIP, params={})) for _ in range(3)]
    refused = store.add(NewTask(task_type=CLIP, params={"misfortune": "bad_input", "times": 9}))
    repeated = store.add(NewTask(task_type=CLIP, params={"misfortune": "transient"}))
    scraped.until(lambda: store.idle())
    ends = Counter(task.status for task in store.tasks())
    assert ends == {Status.COMPLETE: 7, Status.FAILED: 1} and clips and family
    assert store.get(refused).status is Status.FAILED and store.get(repeated).attempts == 1
    # The row is complete a moment before the worker knows that.
    scraped.until(lambda: not in_lanes(parsed(scraped.text())))
    samples = len(store.samples())
    numbers = parsed(scraped.text())
    events = Counter(event.name for task in store.tasks() for event in store.events(task.id))
    # The parent ended in the database, with its last child.
    ended = {status: number(numbers, names.TASKS_ENDED, "_total", status=status.value, task_type=CLIP)
             for status in (Status.COMPLETE, Status.FAILED)}  # fmt: skip
    assert ended == {Status.COMPLETE: ends[Status.COMPLETE] - 1, Status.FAILED: ends[Status.FAILED]}
    claims = sum(value for (name, _), value in numbers.items() if name == f"{names.CLAIMS.name}_total")
    assert claims == events["claimed"] == 9
    assert number(numbers, names.TASKS_REQUEUED, "_total", reason="retry") == events["retry"] == 1
    assert number(numbers, names.FAILURES, "_total", error_class="transient") == 1
    assert number(numbers, names.FAILURES, "_total", error_class="bad_input") == 1
    assert number(numbers, names.STAGE_SECONDS, "_count", stage="prepare") == claims
    assert number(numbers, names.STAGE_SECONDS, "_sum", stage="denoise") > 0.02
    assert number(numbers, names.OUTBOX_PARCELS) == 0 == number(numbers, names.LOG_LINES_DROPPED, "_total")
    [worker] = store.workers()
    booked = {activity: number(numbers, names.GPU_SECONDS, "_total", activity=activity)
              for activity in worker.metadata["gpu_seconds"]}  # fmt: skip
    assert booked["denoise"] >= worker.metadata["gpu_seconds"]["denoise"] - 0.001 > 0
    # One may be stored and not counted yet.
    assert (
        number(numbers, names.HEARTBEATS, "_total") >= samples - 1
        and number(numbers, names.HEARTBEATS_FAILED, "_total") == 0
    )
    assert number(numbers, names.MODEL_LOADS, "_total") >= 1
    assert {name for name, _ in numbers if name.startswith("process_")}
    # Every metric is there, and no other.
    families = {family.name for family in text_string_to_metric_families(scraped.text())}
    on_a_gpu = {each.name for each in (names.GPU_MEMORY_USED, names.GPU_MEMORY_TOTAL, names.GPU_UTILIZATION)}
    ours = {name for name in families if name.startswith(names.PREFIX)}
    assert ours == {metric.name for metric in names.WORKER} - on_a_gpu
    said = scraped.end()
    assert scraped.process.returncode == 0 and "Traceback" not in said


def test_an_address_that_cannot_be_had_says_what_to_do() -> None:
    with (
        pytest.raises(ConfigurationError, match=r"METRICS_PORT 9 on 203\.0\.113\.1: .*; name another port"),
        served(WorkerMetrics(), "203.0.113.1", 9),
    ):
        pass


@pytest.mark.slow
def test_a_port_that_is_taken_is_said_before_anything_is_claimed(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "tasks.db")) as store, socket.create_server(("127.0.0.1", 0)) as taken:
        task = store.add(NewTask(task_type=CLIP, params={}))
        port = str(taken.getsockname()[1])
        ended = subprocess.run(
            [sys.executable, str(ROOT / "worker.py"), "--db-file", str(store.path), "--until-idle"], cwd=tmp_path,
            env=os.environ | {"METRICS_PORT": port}, capture_output=True, text=True, timeout=DEADLINE_S, check=False,
        )  # fmt: skip
        assert ended.returncode == 1
        assert f"METRICS_PORT {port} on 127.0.0.1: Address already in use; name another port" in ended.stderr
        assert store.get(task).status is Status.QUEUED


def test_the_metrics_of_a_database(tmp_path: Path) -> None:
    floor = Floor(tmp_path)
    assert floor.add() and floor.work() == 0
    waiting = floor.add("nothing")
    with closing(sqlite3.connect(floor.settings.db_file)) as db, db:
        added = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-100 seconds')"
        db.execute(f"UPDATE tasks SET created_at = {added} WHERE id = ?", (waiting,))
    floor.store.pause(floor.store.add(NewTask(task_type="a stranger's", params={})))
    text = database_metrics(floor.store, {kind.name for kind in floor.registry}).decode()
    numbers = parsed(text)
    assert number(numbers, names.QUEUE_TASKS, state="claimable", task_type="nothing") == 1
    assert number(numbers, names.QUEUE_TASKS, state="paused", task_type=names.OTHER) == 1
    assert 100 <= number(numbers, names.QUEUE_OLDEST, state="claimable") < 200
    assert number(numbers, names.QUEUE_OLDEST, state="running") == 0
    counts = floor.store.counts()
    assert {status: number(numbers, names.TASKS, status=status.value) for status in Status} == counts
    assert number(numbers, names.WORKERS, health="stopped") == 1 == len(floor.store.workers())
    assert number(numbers, names.WORKERS, health="healthy") == 0
    ended = sum(value for (name, _), value in numbers.items() if name == names.ENDED_LAST_HOUR.name)
    assert ended == 1
    families = {family.name for family in text_string_to_metric_families(text)}
    assert families == {metric.name for metric in names.DATABASE}
    floor.close()
