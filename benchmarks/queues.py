#!/usr/bin/env python3
"""Our task tables beside two queues that others use: no-op tasks per second, and how long one claim takes.

    python benchmarks/queues.py [--tasks 500] [--rounds 3] [--json]

SQLite against huey, Postgres (our SQL functions over psycopg) against procrastinate: in turns, with equal durability
(`synchronous=FULL` and a write-ahead log; `fsync` on), three tasks at once. "Tasks" is a whole worker, from its start
to the last completion; "claim" is one caller that claims row after row. A round works on a new database, filled before
the clock runs; the first is dropped.

They do not promise the same. huey removes a task from its table when it hands it out: one write a task, and a worker
that dies loses it. procrastinate marks a job, and again when it ends. Ours writes a claim with a lease and an end, each
with an entry of the task's timeline.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huey import SqliteHuey
from noop_tasks import types
from procrastinate import App, PsycopgConnector
from rich import box
from rich.console import Console
from rich.table import Table
from separate_runs import machine

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from postgres_server import Database, PostgresServer
from postgres_store import PostgresStore

from headless.model_management import HeadlessTaskQueue
from headless.testing import FakeOrchestrator
from source.daemon import Worker
from source.devstack.postgres import Postgres
from source.devstack.state import free_ports
from source.settings import load_settings
from source.store.base import TaskStore
from source.store.sqlite import SqliteStore
from source.store.types import NewTask, Status
from Wan2GP.command_line import Command

AT_ONCE = 3
LEASE_S = 3600.0

#: fills a new table with so many tasks; returns tasks per second of a worker, or the milliseconds of each claim
Rate = Callable[[int, Path], float]
Waits = Callable[[int, Path], list[float]]


def _filled(store: TaskStore, tasks: int) -> TaskStore:
    for start in range(0, tasks, 1000):
        store.add_many([NewTask(task_type="nothing", params={}) for _ in range(min(1000, tasks - start))])
    return store


# ---- ours


def our_rate(store: TaskStore, tasks: int, folder: Path) -> float:
    """A whole worker."""
    engine = FakeOrchestrator()
    settings = load_settings(db_file=folder / "tasks.db", main_output_dir=folder, max_in_flight=AT_ONCE)
    with HeadlessTaskQueue(engine) as gpu:
        worker = Worker(settings, _filled(store, tasks), gpu, registry=types(), describe=engine.describe)
        began = time.perf_counter()
        worker.run(until_idle=True)
        seconds = time.perf_counter() - began
    if store.counts()[Status.COMPLETE] != tasks:
        raise SystemExit("not all of our tasks are complete")
    return tasks / seconds


def our_waits(store: TaskStore, tasks: int) -> list[float]:
    """One caller."""
    _filled(store, tasks)
    return _timed(lambda: bool(store.claim("one", lease_s=LEASE_S)), tasks)


def _timed(claim: Callable[[], bool], times: int) -> list[float]:
    waits_ms = []
    for _ in range(times):
        began = time.perf_counter()
        if not claim():
            raise SystemExit("a claim came back empty although tasks were left")
        waits_ms.append(1000 * (time.perf_counter() - began))
    return waits_ms


@contextmanager
def _sqlite(folder: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(folder / "tasks.db")
    try:
        yield store
    finally:
        store.close()


def sqlite_rate(tasks: int, folder: Path) -> float:
    """No-op tasks per second."""
    with _sqlite(folder) as store:
        return our_rate(store, tasks, folder)


def sqlite_waits(tasks: int, folder: Path) -> list[float]:
    """Milliseconds of each claim."""
    with _sqlite(folder) as store:
        return our_waits(store, tasks)


# ---- huey


def _huey(folder: Path, tasks: int, work: Callable[[], None]) -> SqliteHuey:
    queue = SqliteHuey(filename=str(folder / "huey.db"), fsync=True)
    task = queue.task()(work)
    for _ in range(tasks):
        task()
    return queue


def huey_rate(tasks: int, folder: Path) -> float:
    """huey's own consumer, with threads."""
    left, lock, all_done = tasks, threading.Lock(), threading.Event()

    def nothing() -> None:
        nonlocal left
        with lock:
            left -= 1
            if not left:
                all_done.set()

    queue = _huey(folder, tasks, nothing)
    consumer = queue.create_consumer(workers=AT_ONCE, periodic=False)
    began = time.perf_counter()
    consumer.start()
    all_done.wait()
    seconds = time.perf_counter() - began
    consumer.stop(graceful=True)
    queue.storage.close()
    return tasks / seconds


def huey_waits(tasks: int, folder: Path) -> list[float]:
    """Milliseconds of each hand-out."""
    queue = _huey(folder, tasks, lambda: None)
    try:
        return _timed(lambda: queue.dequeue() is not None, tasks)
    finally:
        queue.storage.close()


# ---- Postgres


class PostgresRounds:
    """Rounds on databases of one durable server."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server

    @contextmanager
    def _database(self, database: Database) -> Iterator[Database]:
        try:
            yield database
        finally:
            self._server.drop(database)

    def our_rate(self, tasks: int, folder: Path) -> float:
        """No-op tasks per second."""
        with self._database(self._server.fresh()) as database:
            return our_rate(PostgresStore(database), tasks, folder)

    def our_waits(self, tasks: int, folder: Path) -> list[float]:
        """Milliseconds of each claim."""
        with self._database(self._server.fresh()) as database:
            return our_waits(PostgresStore(database), tasks)

    def their_rate(self, tasks: int, folder: Path) -> float:
        """procrastinate's own worker."""
        with self._database(self._server.bare()) as database:
            return asyncio.run(_procrastinate_rate(database.uri, tasks))

    def their_waits(self, tasks: int, folder: Path) -> list[float]:
        """Milliseconds of each fetch."""
        with self._database(self._server.bare()) as database:
            return asyncio.run(_procrastinate_waits(database.uri, tasks))


async def _filled_app(app: App, tasks: int) -> None:
    @app.task(name="nothing")
    async def nothing() -> None:
        pass

    await app.schema_manager.apply_schema_async()
    await nothing.batch_defer_async(*({} for _ in range(tasks)))


async def _procrastinate_rate(uri: str, tasks: int) -> float:
    async with App(connector=PsycopgConnector(conninfo=uri)).open_async() as app:
        await _filled_app(app, tasks)
        began = time.perf_counter()
        await app.run_worker_async(wait=False, concurrency=AT_ONCE, install_signal_handlers=False)
        seconds = time.perf_counter() - began
        if len(list(await app.job_manager.list_jobs_async(status="succeeded"))) != tasks:
            raise SystemExit("not all of procrastinate's jobs are done")
    return tasks / seconds


async def _procrastinate_waits(uri: str, tasks: int) -> list[float]:
    async with App(connector=PsycopgConnector(conninfo=uri)).open_async() as app:
        await _filled_app(app, tasks)
        worker = await app.job_manager.register_worker()
        waits_ms = []
        for _ in range(tasks):
            began = time.perf_counter()
            if await app.job_manager.fetch_job(None, worker) is None:
                raise SystemExit("a fetch came back empty although jobs were left")
            waits_ms.append(1000 * (time.perf_counter() - began))
        await app.job_manager.unregister_worker(worker)
    return waits_ms


@contextmanager
def postgres_rounds() -> Iterator[PostgresRounds]:
    """On a server of its own that syncs to the disk."""
    with tempfile.TemporaryDirectory() as folder:
        server = Postgres(Path(folder), free_ports()["postgres"], secrets.token_hex(16))
        server.start()
        try:
            server.wait()
            yield PostgresRounds(PostgresServer(server.uri()))
        finally:
            server.stop()


# ---- in turns


def compare(sides: dict[str, tuple[Rate, Waits]], tasks: int, rounds: int) -> list[dict[str, Any]]:
    """Each side once a round; medians of the rounds' rates, and percentiles of all claims."""
    rates: dict[str, list[float]] = {name: [] for name in sides}
    waits_ms: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, (rate, waits) in sides.items():
            with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
                found, claims = rate(tasks, Path(first)), waits(tasks, Path(second))
            if number:
                rates[name].append(found)
                waits_ms[name] += claims
    return [_row(name, rates[name], sorted(waits_ms[name])) for name in sides]


def _row(name: str, rates: list[float], waits_ms: list[float]) -> dict[str, Any]:
    return {
        "queue": name,
        "tasks_per_s": round(statistics.median(rates), 1),
        "claim_p50_ms": round(statistics.median(waits_ms), 2),
        "claim_p99_ms": round(waits_ms[len(waits_ms) * 99 // 100], 2),
    }


def measure(tasks: int, rounds: int) -> dict[str, Any]:
    """Both pairs."""
    rows = compare({"SQLite, ours": (sqlite_rate, sqlite_waits), "huey": (huey_rate, huey_waits)}, tasks, rounds)
    with postgres_rounds() as postgres:
        sides = {
            "Postgres, ours": (postgres.our_rate, postgres.our_waits),
            "procrastinate": (postgres.their_rate, postgres.their_waits),
        }
        rows += compare(sides, tasks, rounds)
    return {"benchmark": "queues", "tasks": tasks, "rounds": rounds, "rows": rows, "machine": machine()}


def show(result: dict[str, Any]) -> None:
    """Print a table."""
    table = Table("queue", "no-op tasks per second", "claim p50", "claim p99", box=box.MARKDOWN)
    for row in result["rows"]:
        claim = (f"{row['claim_p50_ms']} ms", f"{row['claim_p99_ms']} ms")
        table.add_row(row["queue"], f"{row['tasks_per_s']:.0f}", *claim)
    Console(width=140).print(
        table, f"{result['rounds']} rounds of {result['tasks']} tasks, {AT_ONCE} at once; {result['machine']}"
    )


EXAMPLES = (("python benchmarks/queues.py", "measure, and print a table"),)
CODES = {0: "measured", 1: "it cannot run here; also a wrong flag"}


def parser() -> Command:
    """The flags."""
    flags = Command("benchmarks/queues.py", description=__doc__, examples=EXAMPLES, codes=CODES)
    flags.add_argument("--tasks", type=int, default=500, help="tasks of a round")
    flags.add_argument("--rounds", type=int, default=3, help="rounds, of which medians are taken")
    flags.add_argument("--json", action="store_true", help="print JSON instead of a table")
    flags.add_version()
    return flags


def main() -> None:
    """Measure and print."""
    given = parser().parse_args()
    logging.disable(logging.WARNING)
    result = measure(given.tasks, given.rounds)
    if given.json:
        print(json.dumps(result, indent=2))
    else:
        show(result)


if __name__ == "__main__":
    main()
