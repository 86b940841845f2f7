"""Many processes on one SQLite file, and processes that die in the middle of a write."""

from __future__ import annotations

import multiprocessing
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from source.store import NewTask, Status
from source.store.sqlite import SqliteStore

PROCESSES, THREADS, TASKS = 8, 4, 2_000
LEASE_S = 600.0
ROOT = Path(__file__).parents[2]

_start: Barrier


def a_task(number: int) -> NewTask:
    return NewTask(task_type="t2v", params={"number": number}, id=f"task-{number:04d}")


# -- claiming from many processes -----------------------------------------------------------------------------------


def share_the_start(barrier: Barrier) -> None:
    global _start
    _start = barrier


def open_in_a_new_process(path: Path) -> int:
    """Open a file that does not exist yet, at the same moment as the others do."""
    _start.wait()
    with closing(SqliteStore(path)) as store:
        return sum(store.counts().values())


def claim_in_threads(path: Path, process: int) -> list[tuple[str, int]]:
    """Claim until nothing is left; (id, claim number) of every claim."""
    with closing(SqliteStore(path)) as store, ThreadPoolExecutor(THREADS) as threads:
        _start.wait()
        workers = [f"process-{process}:thread-{thread}" for thread in range(THREADS)]
        return [
            claimed for claims in threads.map(lambda worker: claim_all(store, worker), workers) for claimed in claims
        ]


def claim_all(store: SqliteStore, worker: str) -> list[tuple[str, int]]:
    claimed = []
    while tasks := store.claim(worker, lease_s=LEASE_S):
        claimed += [(task.id, task.claim_number) for task in tasks]
        assert tasks[0].worker_id == worker
    return claimed


@pytest.fixture
def processes() -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(
        PROCESSES, mp_context=context, initializer=share_the_start, initargs=(context.Barrier(PROCESSES),)
    )


def test_no_row_is_claimed_twice_and_no_lock_shows(tmp_path: Path, processes: ProcessPoolExecutor) -> None:
    path = tmp_path / "tasks.db"
    with closing(SqliteStore(path)) as store:
        store.add_many([a_task(number) for number in range(TASKS)])
        with processes:
            futures = [processes.submit(claim_in_threads, path, process) for process in range(PROCESSES)]
            claims = [claim for future in futures for claim in future.result()]
        assert Counter(claims) == Counter({(f"task-{number:04d}", 1): 1 for number in range(TASKS)})
        assert store.counts()[Status.IN_PROGRESS] == TASKS


def test_processes_may_create_the_file_together(tmp_path: Path, processes: ProcessPoolExecutor) -> None:
    with processes:
        futures = [processes.submit(open_in_a_new_process, tmp_path / "tasks.db") for _ in range(PROCESSES)]
        assert [future.result() for future in futures] == [0] * PROCESSES


# -- dying ----------------------------------------------------------------------------------------------------------

BATCH = 7
WRITER = f"""
import sys
from source.store import NewTask
from source.store.sqlite import SqliteStore

store = SqliteStore(sys.argv[1])
while True:
    store.add_many([NewTask(task_type="t2v", params={{}}) for _ in range({BATCH})])
    [task] = store.claim("victim", lease_s=-1)
    store.complete(task.claim, "files/" + task.id)
    print(task.id, flush=True)
"""


@pytest.mark.parametrize("acknowledged", [1, 8, 40])
def test_what_a_killed_process_was_told_is_done_is_done(tmp_path: Path, acknowledged: int) -> None:
    path = tmp_path / "tasks.db"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as victim:
        assert victim.stdout is not None
        done = [victim.stdout.readline().strip() for _ in range(acknowledged)]
        victim.send_signal(signal.SIGKILL)
        done += victim.stdout.read().split()
    check_file(path)
    with closing(SqliteStore(path)) as store:
        assert all(store.get(task_id).output_location == f"files/{task_id}" for task_id in done)
        counts = store.counts()
        assert sum(counts.values()) % BATCH == 0, "a batch is added whole or not at all"
        assert len(done) <= counts[Status.COMPLETE] <= len(done) + 1
        assert store.rescue() == counts[Status.IN_PROGRESS] <= 1


def test_a_cut_off_log_opens_with_a_beginning_of_the_history(tmp_path: Path) -> None:
    """As after a power cut: of the write-ahead log only a part had reached the disk."""
    path, copy = tmp_path / "tasks.db", tmp_path / "copy.db"
    with closing(SqliteStore(path)) as store:
        order = store.add_many([a_task(number) for number in range(20)])
        for _ in order:
            store.complete(store.claim("w", lease_s=LEASE_S)[0].claim, None)
        log = path.with_name("tasks.db-wal").read_bytes()
        lengths = []
        for cut in range(1, 12):
            shutil.copy(path, copy)
            copy.with_name("copy.db-wal").write_bytes(log[: len(log) * cut // 11 - 13])
            check_file(copy)
            with closing(SqliteStore(copy)) as partial:
                complete = {task.id for task in partial.tasks(status=Status.COMPLETE)}
            assert complete == set(order[: len(complete)])
            lengths.append(len(complete))
    assert lengths == sorted(lengths) and lengths[0] < lengths[-1]


def check_file(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
