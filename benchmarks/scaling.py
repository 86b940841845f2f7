#!/usr/bin/env python3
"""One table, 1 to 8 worker processes: tasks per second, and tasks that were handed out twice.

    python benchmarks/scaling.py [--each 8] [--gpu 0.4] [--workers 1,2,4,8] [--json]

Each worker is a process with the shipped fake engine, whose generation waits `--gpu` seconds and makes a small
picture, so N workers could end N / gpu tasks a second. SQLite is one file; Postgres is reached as a worker reaches it,
through the Edge Functions and the storage of the local stack, all on this machine. The clock is the database's: from
the first claim to the last completion of `--each` tasks for each worker. Those of a smaller number stay for the larger.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from separate_runs import machine

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from headless.testing import FakeOrchestrator
from source.devstack.stack import Stack
from source.devstack.state import free_ports
from source.params.base import TaskParams
from source.settings import Settings
from source.startup import Equipment, run_worker
from source.store.base import TaskStore
from source.store.opening import open_store
from source.store.types import NewTask, Status, Task
from source.task_registry import Done, TaskContext, TaskRegistry, TaskType
from Wan2GP.command_line import Command

STEPS = 4
#: how long workers may take to appear, and tasks to end
PATIENCE_S = 120.0

Environment = Mapping[str, str]


# ---- a worker process


def draw(params: TaskParams, context: TaskContext) -> Done:
    """A picture by the fake."""
    return Done(context.generate("fake_image", params.options).output)


def work(gpu_s: float) -> int:
    """What one worker process does, until it is told to stop."""
    kinds = TaskRegistry()
    kinds.register(TaskType("picture", TaskParams, draw, "Draw.", "a picture", uses_gpu=True))
    engine = FakeOrchestrator(steps=STEPS, step_s=gpu_s / STEPS)
    return run_worker(Settings(), equipment=Equipment(engine, kinds, lambda store, storage: (store, storage)))


@contextmanager
def worker(environment: Environment, folder: Path, number: int, gpu_s: float) -> Iterator[None]:
    """A worker process; what it says goes to a file."""
    command = [sys.executable, __file__, "--work", "--gpu", str(gpu_s)]
    name = f"worker{number}"
    with (folder / f"{name}.log").open("wb") as said:
        process = subprocess.Popen(
            command, cwd=folder, stdout=said, stderr=said, env={**os.environ, **environment, "WORKER_ID": name}
        )
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


# ---- databases


@contextmanager
def sqlite(folder: Path) -> Iterator[Environment]:
    """A new file."""
    yield {"DB_TYPE": "sqlite", "DB_FILE": str(folder / "tasks.db")}


@contextmanager
def supabase(folder: Path) -> Iterator[Environment]:
    """A new stack."""
    stack = Stack(folder / "stack", durable=False)
    try:
        stack.up(ports=free_ports())
        yield {"DB_TYPE": "supabase", "SUPABASE_URL": stack.url, "SUPABASE_ACCESS_TOKEN": stack.state.service_key}
    finally:
        stack.down(erase=True)


DATABASES = {"SQLite": sqlite, "Postgres": supabase}


# ---- measuring


def measure_database(name: str, numbers: list[int], each: int, gpu_s: float) -> list[dict[str, Any]]:
    """A row for each number of workers."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        reached = stack.enter_context(DATABASES[name](folder))
        environment = {**reached, "MAIN_OUTPUT_DIR": str(folder / "outputs"), "POLL_INTERVAL_S": "0.5"}
        names = {key.lower(): value for key, value in reached.items()}
        store = open_store(Settings(main_output_dir=folder / "outputs", **names))
        stack.callback(store.close)
        rows, running = [], 0
        for number in numbers:
            for count in range(running, number):
                stack.enter_context(worker(environment, folder, count, gpu_s))
            running = number
            wait_until(store, lambda wanted=number: len(store.workers()) >= wanted, "the workers did not all appear")
            rows.append({"database": name, "workers": number} | measure_workers(store, number * each))
    return rows


def measure_workers(store: TaskStore, tasks: int) -> dict[str, Any]:
    """Tasks per second, and how many were handed out more than once."""
    before = store.counts()[Status.COMPLETE]
    ids = set(store.add_many([NewTask(task_type="picture", params={"prompt": "a kite"}) for _ in range(tasks)]))
    wait_until(store, lambda: store.counts()[Status.COMPLETE] >= before + tasks, "the tasks did not all end well")
    rows = [row for row in store.tasks(status=Status.COMPLETE, limit=tasks) if row.id in ids]
    if len(rows) != tasks:
        raise SystemExit("the newest completed rows are not those that were added")
    return {"tasks_per_s": round(tasks / _seconds(rows), 2), "duplicates": sum(row.claim_number > 1 for row in rows)}


def _seconds(rows: list[Task]) -> float:
    began = min(datetime.fromisoformat(row.claimed_at or "") for row in rows)
    return (max(datetime.fromisoformat(row.generation_processed_at or "") for row in rows) - began).total_seconds()


def wait_until(store: TaskStore, holds: Callable[[], bool], otherwise: str) -> None:
    """Look after each change of the table."""
    deadline = store.now().timestamp() + PATIENCE_S
    while not holds():
        if store.now().timestamp() > deadline:
            raise SystemExit(otherwise)
        store.wait_for_change(0.25)


def measure(numbers: list[int], each: int, gpu_s: float, databases: list[str]) -> dict[str, Any]:
    """All databases."""
    rows = [row for name in databases for row in measure_database(name, numbers, each, gpu_s)]
    return {"benchmark": "scaling", "each": each, "gpu_s": gpu_s, "rows": rows, "machine": machine()}


def show(result: dict[str, Any]) -> None:
    """Print a table."""
    table = Table("database", "workers", "tasks per second", "of what N GPUs could do", "duplicates", box=box.MARKDOWN)
    for row in result["rows"]:
        share = row["tasks_per_s"] * result["gpu_s"] / row["workers"]
        table.add_row(
            row["database"], str(row["workers"]), str(row["tasks_per_s"]), f"{share:.0%}", str(row["duplicates"])
        )
    Console(width=140).print(table, f"{result['gpu_s']:g} s of GPU a task; {result['machine']}")


EXAMPLES = (("python benchmarks/scaling.py", "measure, and print a table"),)
CODES = {0: "measured", 1: "it cannot run here; also a wrong flag"}


def parser() -> Command:
    """The flags."""
    flags = Command("benchmarks/scaling.py", description=__doc__, examples=EXAMPLES, codes=CODES)
    flags.add_argument("--each", type=int, default=8, help="tasks for each worker")
    flags.add_argument("--gpu", type=float, default=0.4, help="seconds of a generation")
    flags.add_argument("--workers", default="1,2,4,8", help="how many workers, one round each")
    flags.add_argument("--databases", default=",".join(DATABASES), help="on which databases")
    flags.add_argument("--json", action="store_true", help="print JSON instead of a table")
    flags.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    flags.add_version()
    return flags


def main() -> int:
    """Measure and print."""
    given = parser().parse_args()
    if given.work:
        return work(given.gpu)
    logging.disable(logging.INFO)
    numbers = [int(number) for number in given.workers.split(",")]
    result = measure(numbers, given.each, given.gpu, given.databases.split(","))
    if given.json:
        print(json.dumps(result, indent=2))
    else:
        show(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
