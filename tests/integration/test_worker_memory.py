"""A worker that has run for long holds no more than one that has just begun."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EARLY, LATE = 50, 1000

#: a worker process that says what it holds after so many tasks; each fifth one generates
WORKER = """
import gc, json, os, sys
from pathlib import Path
from worker_floor import Floor
from source.store.types import NewTask, Status

def held():
    gc.collect()
    [rss] = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS")]
    return {"rss_mb": int(rss) / 1024, "files": len(os.listdir("/proc/self/fd"))}

def row(number):
    if number % 5:
        return NewTask(task_type="nothing", params={})
    return NewTask(task_type="draw", params={"prompt": str(number), "model": "fake_image"})

early, late = map(int, sys.argv[2:])
floor = Floor(Path(sys.argv[1]))
with floor.working():
    for done in range(early, late + 1, early):
        floor.store.add_many([row(number) for number in range(done - early, done)])
        floor.wait_until(lambda: floor.store.counts()[Status.COMPLETE] == done)
        if done in (early, late):
            print(json.dumps(held()), flush=True)
floor.close()
"""


@pytest.mark.slow
def test_memory_and_files_after_task_1000_are_those_after_task_50(tmp_path: Path, root: Path) -> None:
    paths = {"PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}"}
    ended = subprocess.run(
        [sys.executable, "-c", WORKER, str(tmp_path), str(EARLY), str(LATE)], env=os.environ | paths,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    early, late = map(json.loads, ended.stdout.splitlines())
    print(f"after task {EARLY} {early}, after task {LATE} {late}")
    assert late["rss_mb"] <= early["rss_mb"] * 1.05, (early, late)
    assert late["files"] <= early["files"] + 2, (early, late)
