#!/usr/bin/env python3
"""What the way over HTTP costs: claims through the Edge Functions of the local stack, and no-op tasks end to end.

    python benchmarks/supabase_claims.py [--tasks 1000] [--claimers 8] [--json]

Everything runs on this machine: clients, gateway, functions, Postgres. `one client` asks for one row after the other;
`claimers` do so at once, as workers that want more work. The last line is a whole worker on tasks that do nothing.
"""

from __future__ import annotations

import json
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from noop_tasks import types
from rich import box
from rich.console import Console
from rich.table import Table
from separate_runs import machine

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from headless.model_management import HeadlessTaskQueue
from headless.testing import FakeOrchestrator
from source.daemon import Worker
from source.devstack.stack import Stack
from source.devstack.state import free_ports
from source.settings import Settings, load_settings
from source.store.opening import open_supabase
from source.store.supabase import SupabaseStore
from source.store.types import NewTask, Status
from source.supabase_storage import storage_for
from Wan2GP.command_line import Command

WARM_UP = 20


@contextmanager
def project(folder: Path) -> Iterator[Settings]:
    """The settings of a worker on a stack of its own."""
    stack = Stack(folder / "stack", durable=False)
    try:
        stack.up(ports=free_ports())
        yield load_settings(
            db_type="supabase", supabase_url=stack.url, supabase_access_token=stack.state.service_key,
            main_output_dir=folder / "outputs",
        )  # fmt: skip
    finally:
        stack.down(erase=True)


@contextmanager
def store_of(settings: Settings) -> Iterator[SupabaseStore]:
    """A client with connections of its own."""
    store = open_supabase(settings)
    try:
        yield store
    finally:
        store.close()


def queue(store: SupabaseStore, task_type: str, tasks: int) -> None:
    """Queue so many rows."""
    for start in range(0, tasks, 1000):
        store.add_many([NewTask(task_type=task_type, params={}) for _ in range(min(1000, tasks - start))])


def claim_all(settings: Settings, name: str) -> list[float]:
    """Claim one row after the other until there is none; the milliseconds that each claim took."""
    waits_ms = []
    with store_of(settings) as store:
        while True:
            asked_at = time.perf_counter()
            claimed = store.claim(name, lease_s=3600)
            waits_ms.append(1000 * (time.perf_counter() - asked_at))
            if not claimed:
                return waits_ms


def measure_claims(settings: Settings, tasks: int, claimers: int) -> dict[str, float]:
    """Claims a second, and the milliseconds of one."""
    with store_of(settings) as store:
        queue(store, "t2v", tasks + WARM_UP)
        for _ in range(WARM_UP):
            store.claim("warm", lease_s=3600)
    began = time.perf_counter()
    with ThreadPoolExecutor(claimers) as pool:
        waits_ms = sorted(
            wait for waits in pool.map(claim_all, [settings] * claimers, "abcdefgh" * 8) for wait in waits
        )
    per_s = tasks / (time.perf_counter() - began)
    return {
        "claims_per_s": round(per_s, 1),
        "p50_ms": round(statistics.median(waits_ms), 1),
        "p99_ms": round(waits_ms[len(waits_ms) * 99 // 100], 1),
    }


def measure_worker(settings: Settings, tasks: int) -> float:
    """No-op tasks a second of one worker, from its start to the last completion."""
    engine = FakeOrchestrator()
    with store_of(settings) as store, HeadlessTaskQueue(engine) as gpu:
        done = store.counts()[Status.COMPLETE]
        queue(store, "nothing", tasks)
        storage = storage_for(settings, store)
        worker = Worker(settings, store, gpu, registry=types(), describe=engine.describe, storage=storage)
        began = time.perf_counter()
        worker.run(until_idle=True)
        seconds = time.perf_counter() - began
        if store.counts()[Status.COMPLETE] != done + tasks:
            raise SystemExit("not all tasks are complete")
    return round(tasks / seconds, 1)


def measure(tasks: int, claimers: int) -> dict[str, Any]:
    """All numbers, each on a stack of its own."""
    result: dict[str, Any] = {"benchmark": "supabase_claims", "tasks": tasks, "claimers": claimers}
    for name, number in (("one_client", 1), ("many_clients", claimers)):
        with tempfile.TemporaryDirectory() as folder, project(Path(folder)) as settings:
            result[name] = measure_claims(settings, tasks, number)
    with tempfile.TemporaryDirectory() as folder, project(Path(folder)) as settings:
        result["noop_tasks_per_s"] = measure_worker(settings, tasks)
    return result | {"machine": machine()}


def show(result: dict[str, Any]) -> None:
    """Print the tables."""
    claims = Table("clients", "claims a second", "p50", "p99", box=box.MARKDOWN)
    for number, name in ((1, "one_client"), (result["claimers"], "many_clients")):
        row = result[name]
        claims.add_row(str(number), f"{row['claims_per_s']:.0f}", f"{row['p50_ms']} ms", f"{row['p99_ms']} ms")
    tasks = Table("no-op tasks", "per second by one worker", box=box.MARKDOWN)
    tasks.add_row(str(result["tasks"]), f"{result['noop_tasks_per_s']:.0f}")
    Console().print(claims, tasks, result["machine"])


EXAMPLES = (("python benchmarks/supabase_claims.py", "measure, and print a table"),)
CODES = {0: "measured", 1: "it cannot run here; also a wrong flag"}


def parser() -> Command:
    """The flags."""
    flags = Command("benchmarks/supabase_claims.py", description=__doc__, examples=EXAMPLES, codes=CODES)
    flags.add_argument("--tasks", type=int, default=1000, help="tasks in all")
    flags.add_argument("--claimers", type=int, default=8, help="that claim at once")
    flags.add_argument("--json", action="store_true", help="print JSON instead of a table")
    flags.add_version()
    return flags


def main() -> None:
    """Measure and print."""
    given = parser().parse_args()
    logging.disable(logging.INFO)
    result = measure(given.tasks, given.claimers)
    if given.json:
        print(json.dumps(result, indent=2))
    else:
        show(result)


if __name__ == "__main__":
    main()
