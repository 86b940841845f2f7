"""Worker processes that die or stand still: nothing is lost, nothing is done twice."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from worker_floor import Floor

from source.params.base import TaskParams
from source.store.types import Status
from source.task_registry import Done, TaskContext

SHORT = {"lease_s": 1.5, "heartbeat_s": 0.4}

#: a worker process whose task waits, in short steps, for a file to appear
VICTIM = """
import sys, threading
from pathlib import Path
from worker_floor import Floor
from source.task_registry import Done

folder = Path(sys.argv[1])

def stand(params, context):
    result = context.scratch / "victim.txt"
    result.write_text("by the victim")
    pause = threading.Event()
    while not (folder / "go").exists():
        context.report("standing")
        pause.wait(0.05)
    return Done(result)

floor = Floor(folder, lease_s=1.5, heartbeat_s=0.4)
floor.register("stand", stand)
floor.work()
"""


def stand(params: TaskParams, context: TaskContext) -> Done:
    """What the surviving worker does of the same task."""
    result = context.scratch / "survivor.txt"
    result.write_text("by the survivor")
    return Done(result)


@pytest.fixture
def floor(tmp_path: Path) -> Iterator[Floor]:
    floor = Floor(tmp_path, **SHORT)
    floor.register("stand", stand)
    yield floor
    floor.close()


@contextmanager
def victim(folder: Path, root: Path) -> Iterator[subprocess.Popen[str]]:
    paths = {"PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}"}
    process = subprocess.Popen(
        [sys.executable, "-c", VICTIM, str(folder)], env=os.environ | paths, text=True, stderr=subprocess.PIPE
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def standing(floor: Floor, task: str, claim_number: int = 1) -> bool:
    row = floor.store.get(task)
    return row.claim_number == claim_number and row.progress is not None and row.progress["phase"] == "standing"


def test_the_task_of_a_killed_worker_is_done_once_by_the_next(floor: Floor, tmp_path: Path, root: Path) -> None:
    task = floor.add("stand")
    with victim(tmp_path, root) as process:
        floor.wait_until(lambda: standing(floor, task))
        process.send_signal(signal.SIGKILL)
        process.wait()
    floor.work()
    row = floor.store.get(task)
    assert (row.status, row.attempts, row.claim_number) == (Status.COMPLETE, 1, 2)
    assert floor.output(task).read_text() == "by the survivor"
    assert floor.event_names(task).count("complete") == 1
    assert not floor.leftovers()


def test_a_worker_that_stood_still_for_longer_than_its_lease_is_refused(
    floor: Floor, tmp_path: Path, root: Path
) -> None:
    """SIGSTOP, the task is done elsewhere, SIGCONT: the zombie's result is not accepted and not published."""
    task = floor.add("stand")
    with victim(tmp_path, root) as process:
        floor.wait_until(lambda: standing(floor, task))
        stop_between_writes(process, floor.settings.db_file)
        floor.work()
        assert floor.store.get(task).status is Status.COMPLETE
        (tmp_path / "go").touch()
        process.send_signal(signal.SIGCONT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    assert floor.output(task).read_text() == "by the survivor"
    assert floor.published() == [floor.output(task).name]
    assert floor.event_names(task).count("complete") == 1


def stop_between_writes(process: subprocess.Popen[str], database: Path) -> None:
    """SIGSTOP at a moment at which the process does not hold the database's lock, which it would hold for good."""
    while True:
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        with closing(sqlite3.connect(database, timeout=0, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError:
                process.send_signal(signal.SIGCONT)


def test_a_task_that_kills_its_worker_each_time_is_given_up(floor: Floor, tmp_path: Path, root: Path) -> None:
    task = floor.add("stand")
    for claim_number in (1, 2, 3):
        with victim(tmp_path, root) as process:
            floor.wait_until(lambda number=claim_number: standing(floor, task, number))
            process.send_signal(signal.SIGKILL)
            process.wait()
    floor.work()
    row = floor.store.get(task)
    assert (row.status, row.error_class) == (Status.FAILED, "poison")
    assert not floor.published()


def test_a_worker_without_any_grace_still_waits_for_its_engine(tmp_path: Path, root: Path) -> None:
    """Torch aborts a process (exit code -6) that ends while another of its threads is at work."""
    command = [sys.executable, str(root / "worker.py"), "--until-idle", "--preload-model", "draft"]
    places = ["--db-file", str(tmp_path / "tasks.db"), "--main-output-dir", str(tmp_path / "outputs")]
    ended = subprocess.run(
        command + places, cwd=root, env=os.environ | {"SHUTDOWN_GRACE_S": "0"}, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert "left behind" not in ended.stderr
