#!/usr/bin/env python3
"""One task after the other beside three lanes: how long the same tasks take, and how long the GPU stands idle.

    python benchmarks/lanes.py [--tasks 12] [--gpu 0.25] [--rounds 2] [--json]

A task prepares, generates and finishes. Preparing and finishing wait (as for a download and an upload), each for half
of the host's share; the GPU is the shipped fake, whose steps wait too. All else is the worker as it is, on SQLite:
serial is `max_in_flight` 1, lanes are its default. The two take turns; medians. Idle is what lies between the begin of
the first generation and the end of the last one and is no generation. Aim at 1:1: >= 1.5 times faster, idle <= 5 %.
"""

from __future__ import annotations

import json
import logging
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from separate_runs import machine

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from headless.generation import CancelToken, GenerationOutcome, GenerationTask, OnProgress
from headless.model_management import HeadlessTaskQueue
from headless.testing import FakeOrchestrator
from source.daemon import Worker
from source.params.base import TaskParams
from source.settings import load_settings
from source.store.sqlite import SqliteStore
from source.store.types import NewTask, Status
from source.task_registry import Done, TaskContext, TaskRegistry, TaskType
from Wan2GP.command_line import Command

#: seconds of the host : seconds of the GPU
RATIOS = ((1, 1), (1, 4), (2, 1))
SERIAL, LANES = 1, 3
AIM_FASTER, AIM_IDLE = 1.5, 0.05
#: tasks beside those asked for, before the clock runs: they warm up imports
WARM_UP = 1


class TimedEngine(FakeOrchestrator):
    """The fake, which remembers when it was at work."""

    def __init__(self, seconds: float) -> None:
        super().__init__(steps=4, step_s=seconds / 4)
        self.work: list[tuple[float, float]] = []

    def generate(self, task: GenerationTask, on_progress: OnProgress, cancel: CancelToken) -> GenerationOutcome:
        """Note begin and end."""
        began = time.perf_counter()
        try:
            return super().generate(task, on_progress, cancel)
        finally:
            self.work.append((began, time.perf_counter()))

    def idle(self) -> float:
        """The share of the time between the first begin and the last end."""
        timed = self.work[WARM_UP:]
        whole = timed[-1][1] - timed[0][0]
        return 1 - sum(ended - began for began, ended in timed) / whole


@dataclass(frozen=True)
class Makespan:
    """Seconds from the first claim to the last completion, and the GPU's idle share."""

    seconds: float
    idle: float


def types(host_s: float) -> TaskRegistry:
    """A task type that waits, generates and waits."""

    def run(params: TaskParams, context: TaskContext) -> Done:
        context.wait(host_s / 2)
        made = context.generate("fake_image", params.options)
        context.wait(host_s / 2)
        return Done(made.output)

    registry = TaskRegistry()
    registry.register(TaskType("picture", TaskParams, run, "Wait and draw.", "a picture", uses_gpu=True))
    return registry


def makespan(tasks: int, host_s: float, gpu_s: float, in_flight: int) -> Makespan:
    """Run so many tasks by a worker that has so many in flight."""
    engine = TimedEngine(gpu_s)
    with tempfile.TemporaryDirectory() as folder, HeadlessTaskQueue(engine) as queue:
        settings = load_settings(
            db_file=Path(folder, "tasks.db"), main_output_dir=Path(folder, "outputs"), max_in_flight=in_flight
        )
        store = SqliteStore(settings.db_file)

        def work(count: int) -> float:
            store.add_many([NewTask(task_type="picture", params={"prompt": "a kite"}) for _ in range(count)])
            began = time.perf_counter()
            Worker(settings, store, queue, registry=types(host_s), describe=engine.describe).run(until_idle=True)
            return time.perf_counter() - began

        try:
            work(WARM_UP)
            seconds = work(tasks)
            if store.counts()[Status.COMPLETE] != tasks + WARM_UP:
                raise SystemExit("not all tasks are complete")
        finally:
            store.close()
    return Makespan(seconds, engine.idle())


def compare(host: int, gpu: int, tasks: int, gpu_s: float, rounds: int) -> dict[str, Any]:
    """Serial and lanes in turns; medians."""
    host_s = gpu_s * host / gpu
    spans: dict[int, list[Makespan]] = {SERIAL: [], LANES: []}
    for _ in range(rounds):
        for in_flight, found in spans.items():
            found.append(makespan(tasks, host_s, gpu_s, in_flight))
    serial, lanes = (statistics.median(span.seconds for span in spans[way]) for way in (SERIAL, LANES))
    idle_serial, idle_lanes = (statistics.median(span.idle for span in spans[way]) for way in (SERIAL, LANES))
    return {
        "host_to_gpu": f"{host}:{gpu}",
        "serial_s": round(serial, 2),
        "lanes_s": round(lanes, 2),
        "faster": round(serial / lanes, 2),
        "serial_idle": round(idle_serial, 3),
        "lanes_idle": round(idle_lanes, 3),
    }


def measure(tasks: int, gpu_s: float, rounds: int) -> dict[str, Any]:
    """All ratios."""
    return {
        "benchmark": "lanes",
        "tasks": tasks,
        "gpu_s": gpu_s,
        "rows": [compare(host, gpu, tasks, gpu_s, rounds) for host, gpu in RATIOS],
        "machine": machine(),
    }


def show(result: dict[str, Any]) -> None:
    """Print a table."""
    table = Table(
        "host : GPU", "serial", "lanes", "faster", "GPU idle, serial", "GPU idle, lanes", "aim", box=box.MARKDOWN
    )
    for row in result["rows"]:
        aim = f">= {AIM_FASTER}x, idle <= {AIM_IDLE:.0%}" if row["host_to_gpu"] == "1:1" else ""
        table.add_row(
            row["host_to_gpu"], f"{row['serial_s']} s", f"{row['lanes_s']} s", f"{row['faster']}x",
            f"{row['serial_idle']:.1%}", f"{row['lanes_idle']:.1%}", aim,
        )  # fmt: skip
    Console(width=140).print(table, f"{result['tasks']} tasks of {result['gpu_s']:g} s on the GPU; {result['machine']}")


EXAMPLES = (("python benchmarks/lanes.py", "measure, and print a table"),)
CODES = {0: "measured", 1: "it cannot run here; also a wrong flag"}


def parser() -> Command:
    """The flags."""
    flags = Command("benchmarks/lanes.py", description=__doc__, examples=EXAMPLES, codes=CODES)
    flags.add_argument("--tasks", type=int, default=12, help="tasks of a round")
    flags.add_argument("--gpu", type=float, default=0.25, help="seconds of a generation")
    flags.add_argument("--rounds", type=int, default=2, help="rounds, of which medians are taken")
    flags.add_argument("--json", action="store_true", help="print JSON instead of a table")
    flags.add_version()
    return flags


def main() -> None:
    """Measure and print."""
    given = parser().parse_args()
    logging.disable(logging.INFO)
    result = measure(given.tasks, given.gpu, given.rounds)
    if given.json:
        print(json.dumps(result, indent=2))
    else:
        show(result)


if __name__ == "__main__":
    main()
