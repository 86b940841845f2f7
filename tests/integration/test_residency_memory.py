"""What models leave in a process: two within the budget are read once for a hundred tasks, and one that leaves gives
back what it took."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TASKS = 100
MB = 2**20

#: a process that says what it holds; its models are those of two folders, in turn
PROCESS = """
import ctypes, gc, json, sys
from pathlib import Path
from headless.generation import GenerationTask
from headless.model_management import HeadlessTaskQueue
from headless.options import GenerationOptions
from headless.orchestrator import MemoryPlan, WanOrchestrator
from tiny_models import _TRANSFORMER, tiny_wan_t2v, write_definition

folder, tasks, wide, ram_gb = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])

def weights(name, seed):
    import torch
    from diffusers import WanTransformer3DModel
    made = tiny_wan_t2v(folder / name, seed=seed)
    if wide:
        torch.manual_seed(seed)
        WanTransformer3DModel(**_TRANSFORMER | {"ffn_dim": wide}).save_pretrained(made / "transformer")
    return made

def rss_mb():
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    [rss] = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(rss) / 1024

def run(queue, number):
    options = {"prompt": "a red circle", "resolution": "32x32", "video_length": 5, "num_inference_steps": 1}
    task = GenerationTask(
        id=str(number), model="ab"[number % 2], options=GenerationOptions.parse(options | {"seed": number}),
        output_dir=folder / "out"
    )
    queue.submit(task).result()

for seed, name in enumerate("ab"):
    write_definition(folder / "rows", name, "t2v_1.3B", weights(name, seed))
engine = WanOrchestrator(
    checkpoints=folder, definitions=[folder / "rows"], device="cpu", memory=MemoryPlan(ram_gb=ram_gb)
)
held = []
with HeadlessTaskQueue(engine) as queue:
    for number in range(1, tasks + 1):
        run(queue, number)
        if number <= 5 or number == tasks:
            held.append(rss_mb())
    report, loads = engine.memory_report(), queue.statistics().model_loads
held.append(rss_mb())
print(json.dumps({"rss_mb": held, "report": report, "loads": loads}))
"""


def told(root: Path, folder: Path, tasks: int, *, wide: int = 0, ram_gb: float = 1.0) -> dict[str, object]:
    paths = {"PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}"}
    ended = subprocess.run(
        [sys.executable, "-c", PROCESS, str(folder), str(tasks), str(wide), str(ram_gb)], env=os.environ | paths,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    found: dict[str, object] = json.loads(ended.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_hundred_tasks_on_two_models_read_each_once_and_hold_what_two_tasks_held(tmp_path: Path, root: Path) -> None:
    found = told(root, tmp_path, TASKS)
    assert found["loads"] == 2 and found["report"]["loaded"] == {"a": 1, "b": 1}
    assert found["report"]["models"] == ["b", "a"] and found["report"]["text"] == {"computed": 4, "found": 196}
    held = found["rss_mb"]
    assert held[-2] <= held[1] * 1.05, held


@pytest.mark.slow
def test_a_model_that_leaves_gives_back_what_it_took(tmp_path: Path, root: Path) -> None:
    wide, size_mb = 1 << 19, 200
    found = told(root, tmp_path, 4, wide=wide, ram_gb=1.5 * size_mb / 1024)
    assert found["loads"] == 4 and found["report"]["left"] == {"a": 1, "b": 2}
    *held, released = found["rss_mb"]
    assert max(held[1:]) - min(held[1:]) <= size_mb / 4, "one model is there, whichever it is"
    assert held[-1] - released >= size_mb * 0.9
