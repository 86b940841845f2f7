"""Hundreds of tasks through two workers with short leases: all complete once, and the workers do not grow."""

from __future__ import annotations

import signal
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from edge_proxy import edge_proxy
from local_stack import LocalStack
from local_stack import stack as stack
from supabase_box import SupabaseBox, wait_until

from source.store.types import NewTask, Status

TASKS, WARM = 300, 100
LEASE = {"LEASE_S": "2", "HEARTBEAT_S": "0.5"}
#: what the allocator may keep more of than it did when the workers were warm
GROWTH_MB = 40
GROWTH_FILES = 5


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_300_tasks_complete_once_and_cost_no_more_at_the_end(root: Path, tmp_path: Path, stack: LocalStack) -> None:
    box = SupabaseBox(root, tmp_path, stack, stack.service_key)
    params = box.sample("individual_travel_segment.i2v") | {"parsed_resolution_wh": "96x64"}
    box.store.add_many([NewTask(task_type="individual_travel_segment", params=params) for _ in range(TASKS)])
    with edge_proxy(stack.url) as proxy, ExitStack() as running:
        workers = {
            name: running.enter_context(box.worker(name, SUPABASE_URL=proxy.url, **LEASE)) for name in ("a", "b")
        }

        def finished(number: int) -> bool:
            return box.store.counts()[Status.COMPLETE] >= number

        wait_until(lambda: finished(WARM), f"{WARM} tasks are complete", workers["a"], seconds=600)
        warm = {name: size(worker.pid) for name, worker in workers.items()}
        wait_until(lambda: finished(TASKS), "all tasks are complete", workers["a"], seconds=1200)
        for name, worker in workers.items():
            megabytes, files = size(worker.pid)
            print(f"worker {name}: {warm[name][0]} -> {megabytes} MB, {warm[name][1]} -> {files} open files")
            assert megabytes - warm[name][0] < GROWTH_MB
            assert files - warm[name][1] <= GROWTH_FILES
            worker.send_signal(signal.SIGTERM)
            box.ends_well(worker, name)
        calls = Counter(function for function, _ in proxy.answers)
    print(", ".join(f"{function} {number / TASKS:.1f}" for function, number in calls.most_common()), "calls a task")
    rows = box.rows("select status::text, claim_number, attempts from tasks")
    assert Counter(rows) == {("Complete", 1, 0): TASKS}
    assert Counter(box.completions().values()) == {1: TASKS}
    assert len(box.objects()) == 2 * TASKS
    assert not box.undelivered()
    box.close()


def size(pid: int) -> tuple[int, int]:
    """Resident memory in MB, and how many files and sockets are open."""
    process = psutil.Process(pid)
    return process.memory_info().rss // 1_000_000, process.num_fds()
