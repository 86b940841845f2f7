"""Hundreds of tasks through two workers with short leases: all complete once, and the workers do not grow."""

from __future__ import annotations

import hashlib
import random
import signal
import subprocess
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
from Wan2GP.media import probe_video

TASKS, WARM = 300, 100
KILLED, FRAMES = 60, 17
LEASE = {"LEASE_S": "2", "HEARTBEAT_S": "0.5"}
#: as workers look and report by default
PACE = {"POLL_INTERVAL_S": "10", "SUPABASE_LOOK_S": "5", "PROGRESS_INTERVAL_S": "1"}
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
            name: running.enter_context(box.worker(name, SUPABASE_URL=proxy.url, **LEASE, **PACE))
            for name in ("a", "b")
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
    asked = ", ".join(f"{function} {number / TASKS:.2f}" for function, number in calls.most_common())
    print(f"{sum(calls.values()) / TASKS:.1f} calls a task: {asked}")
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


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_tasks_complete_once_whatever_is_killed_meanwhile(root: Path, tmp_path: Path, stack: LocalStack) -> None:
    """kill -9 of a worker or of a part of the stack, drawn by a fixed seed, each time a few more tasks are complete."""
    box = SupabaseBox(root, tmp_path, stack, stack.service_key)
    params = box.sample("individual_travel_segment.i2v") | {"parsed_resolution_wh": "96x64"}
    rows = box.store.add_many([NewTask(task_type="individual_travel_segment", params=params) for _ in range(KILLED)])
    draw = random.Random(7)
    with ExitStack() as running:

        def start(name: str, *arguments: str) -> subprocess.Popen[str]:
            return running.enter_context(box.worker(name, *arguments, MAX_ATTEMPTS="50", **LEASE))

        workers = {name: start(name) for name in ("a", "b")}
        for number in range(0, KILLED, 3):
            wait_until(lambda done=number: box.store.counts()[Status.COMPLETE] >= done, f"{number} tasks are complete")
            victim = draw.choice(["a", "b", "postgres", "gateway", "s3"])
            if victim in workers:
                workers[victim].kill()
                workers[victim].wait()
                workers[victim] = start(victim)
            else:
                getattr(stack, victim).kill()
                stack.start()
        wait_until(lambda: box.store.counts()[Status.COMPLETE] == KILLED, "all tasks are complete", seconds=300)
        for name, worker in workers.items():
            worker.send_signal(signal.SIGTERM)
            box.ends_well(worker, name)
            box.ends_well(start(name, "--until-idle"), name)  # forgets what another one delivered
    assert not [path for path in box.undelivered() if path.name == "manifest.json"]
    assert box.completions() == dict.fromkeys(rows, 1)
    for row in map(box.store.get, rows):
        key = str(box.object_of(str(row.output_location)).relative_to(stack.objects))
        assert key.rpartition("/")[2].startswith(f"{row.claim_number}-")
        [(declared,)] = box.rows("select sha256 from task_uploads where storage_path = %(key)s", key=key)
        assert hashlib.sha256((stack.objects / key).read_bytes()).hexdigest() == declared
        assert probe_video(stack.objects / key).num_frames == FRAMES
    again = sum(row.claim_number - 1 for row in map(box.store.get, rows))
    print(f"{KILLED} tasks, {again} claims more than tasks")
    box.close()
