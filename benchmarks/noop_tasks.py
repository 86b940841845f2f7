#!/usr/bin/env python3
"""No-op tasks per second end to end on SQLite: claim, parse, run on a thread, complete, each synced to the disk.

    python benchmarks/noop_tasks.py [--tasks 1000] [--rounds 5] [--json]

Nothing is left out but the GPU: the queue is the real one, with the shipped fake engine that is never asked. A round
fills a new database in one transaction, which is not timed. The first round is dropped; the others' median counts.
"""

from __future__ import annotations

import json
import logging
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from separate_runs import machine

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from headless.model_management import HeadlessTaskQueue
from headless.testing import FakeOrchestrator
from source.daemon import Worker
from source.params.base import TaskParams
from source.settings import Settings, load_settings
from source.store.sqlite import SqliteStore
from source.store.types import NewTask, Status
from source.task_registry import Done, TaskContext, TaskRegistry, TaskType
from Wan2GP.command_line import Command

AIM_PER_S = 100


def nothing(params: TaskParams, context: TaskContext) -> Done:
    """Do nothing."""
    return Done(None)


def types() -> TaskRegistry:
    """One task type, which does nothing."""
    registry = TaskRegistry()
    registry.register(TaskType("nothing", TaskParams, nothing, "Do nothing.", "nothing", uses_gpu=False))
    return registry


def seconds_for(num_tasks: int, settings: Settings) -> float:
    """How long a worker takes for `num_tasks` queued tasks, from its start to the last completion."""
    store = SqliteStore(settings.db_file)
    store.add_many([NewTask(task_type="nothing", params={}) for _ in range(num_tasks)])
    engine = FakeOrchestrator()
    with HeadlessTaskQueue(engine) as queue:
        worker = Worker(settings, store, queue, registry=types(), describe=engine.describe)
        started_at = time.perf_counter()
        worker.run(until_idle=True)
        seconds = time.perf_counter() - started_at
    done = store.counts()[Status.COMPLETE]
    store.close()
    if done != num_tasks:
        raise SystemExit(f"{done} of {num_tasks} tasks are complete")
    return seconds


def measure(num_tasks: int, rounds: int, folder: Path) -> dict[str, Any]:
    """Tasks per second of each round, and their median."""
    rates = []
    for number in range(rounds + 1):
        settings = load_settings(db_file=folder / f"round{number}.db", main_output_dir=folder / "outputs")
        rates.append(num_tasks / seconds_for(num_tasks, settings))
    return {
        "benchmark": "noop_tasks",
        "tasks": num_tasks,
        "tasks_per_s": round(statistics.median(rates[1:]), 1),
        "rounds_per_s": [round(rate, 1) for rate in rates[1:]],
        "aim_per_s": AIM_PER_S,
        "machine": machine(),
    }


def show(result: dict[str, Any]) -> None:
    """Print a table."""
    table = Table("no-op tasks", "median per second", "slowest round", "fastest round", "aim", box=box.MARKDOWN)
    table.add_row(
        str(result["tasks"]),
        f"{result['tasks_per_s']:.0f}",
        f"{min(result['rounds_per_s']):.0f}",
        f"{max(result['rounds_per_s']):.0f}",
        f">= {result['aim_per_s']}",
    )
    Console().print(table, result["machine"])


EXAMPLES = (("python benchmarks/noop_tasks.py", "measure, and print a table"),)
CODES = {0: "measured", 1: "it cannot run here; also a wrong flag"}


def parser() -> Command:
    """The flags."""
    flags = Command("benchmarks/noop_tasks.py", description=__doc__, examples=EXAMPLES, codes=CODES)
    flags.add_argument("--tasks", type=int, default=1000, help="tasks of a round")
    flags.add_argument("--rounds", type=int, default=5, help="rounds, of which medians are taken")
    flags.add_argument("--json", action="store_true", help="print JSON instead of a table")
    flags.add_version()
    return flags


def main() -> None:
    """Measure and print."""
    given = parser().parse_args()
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as folder:
        result = measure(given.tasks, given.rounds, Path(folder))
    if given.json:
        print(json.dumps(result, indent=2))
    else:
        show(result)


if __name__ == "__main__":
    main()
