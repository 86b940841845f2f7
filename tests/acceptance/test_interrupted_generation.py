"""A worker process dies or is stopped in the middle of a video: the next claim goes on, and the frames are the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import tiny_wan_t2v, write_definition
from worker_floor import Floor

from headless.generation import Progress
from headless.orchestrator import WanOrchestrator
from source.checkpoints import Checkpoints
from source.store.types import NewTask, Status, Task
from source.task_registry import registry
from Wan2GP import wgp
from Wan2GP.media import read_frames

STEPS, WINDOWS = 12, 3
CLIP: dict[str, Any] = {
    "model": "tiny", "prompt": "a red circle", "resolution": "32x32", "seed": 5, "num_inference_steps": STEPS,
    "video_length": 41, "sliding_window_size": 17, "sliding_window_overlap": 5,
}  # fmt: skip
#: each step is kept
QUICK = {"lease_s": 1.5, "heartbeat_s": 0.4, "checkpoint_interval_s": 0}

#: a worker that is killed by the operating system in the very report of step 7 in window 2
VICTIM = """
import os, signal, sys
from pathlib import Path
from worker_floor import Floor
from headless.orchestrator import WanOrchestrator
from source.task_registry import registry

class Dying(WanOrchestrator):
    def generate(self, task, on_progress, cancel):
        def report(progress):
            on_progress(progress)
            if (progress.phase, progress.window, progress.step) == ("denoising", 2, 7):
                os.kill(os.getpid(), signal.SIGKILL)
        return super().generate(task, report, cancel)

folder, models = map(Path, sys.argv[1:])
engine = Dying(checkpoints=folder, definitions=[models], device="cpu")
floor = Floor(folder, engine, lease_s=1.5, heartbeat_s=0.4, checkpoint_interval_s=0)
floor.worker(registry=registry()).run(until_idle=True)
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("tiny_wan")
    yield write_definition(folder / "models", "tiny", "t2v_1.3B", tiny_wan_t2v(folder / "weights"))
    wgp.release_model()
    wgp.configure(definitions=[])


def environment(root: Path, **more: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}"} | more


class Place:
    """A folder with a database, and a worker in this process that notes each step it hears of."""

    def __init__(self, folder: Path, models: Path, **settings: Any) -> None:
        engine = WanOrchestrator(checkpoints=folder, definitions=[models], device="cpu")
        self.floor = Floor(folder, engine, **QUICK | settings)  # type: ignore[arg-type]
        self.seen: list[Progress] = []

    def add(self, **params: Any) -> str:
        return self.floor.store.add(NewTask(task_type="generate_video", params=CLIP | params))

    def work(self) -> None:
        self.floor.worker(registry=registry(), watch=self._watch).run(until_idle=True)

    def _watch(self, task: Task, progress: Progress | None) -> None:
        if progress is not None:
            self.seen.append(progress)

    @property
    def steps(self) -> list[tuple[int, int]]:
        return [(seen.window, seen.step) for seen in self.seen if seen.phase == "denoising"]

    def frames(self, task: str) -> np.ndarray:
        return np.stack(list(read_frames(self.floor.output(task))))

    def checkpoint(self, task: str) -> Path:
        return Checkpoints(self.floor.settings).folder(self.floor.store.get(task), 1)


@contextmanager
def place(folder: Path, models: Path, **settings: Any) -> Iterator[Place]:
    folder.mkdir()
    found = Place(folder, models, **settings)
    try:
        yield found
    finally:
        found.floor.close()


def uninterrupted(folder: Path, models: Path, **params: Any) -> np.ndarray:
    with place(folder, models) as quiet:
        task = quiet.add(**params)
        quiet.work()
        return quiet.frames(task)


@pytest.mark.parametrize("solver", ["unipc", "dpm++_sde"])
def test_the_next_claim_of_a_killed_workers_video_goes_on_at_its_step(
    tmp_path: Path, models: Path, root: Path, solver: str
) -> None:
    with place(tmp_path / "killed", models) as survivor:
        task = survivor.add(sample_solver=solver)
        command = [sys.executable, "-c", VICTIM, str(tmp_path / "killed"), str(models)]
        died = subprocess.run(command, env=environment(root), capture_output=True, text=True)
        assert died.returncode == -signal.SIGKILL, died.stderr
        survivor.work()
        row = survivor.floor.store.get(task)
        assert (row.status, row.attempts, row.claim_number) == (Status.COMPLETE, 1, 2), row.error_message
        rest = [(2, step) for step in range(7, STEPS + 1)] + [(3, step) for step in range(STEPS + 1)]
        assert survivor.steps == rest
        assert row.result_data is not None
        assert "went on after step 7 of window 2" in row.result_data["notes"]
        assert survivor.floor.event_names(task).count("complete") == 1
        assert not survivor.floor.leftovers()
        frames = survivor.frames(task)
    assert np.array_equal(frames, uninterrupted(tmp_path / "quiet", models, sample_solver=solver))


def worker(folder: Path, models: Path, root: Path) -> subprocess.Popen[str]:
    """The real command."""
    command = [sys.executable, str(root / "worker.py"), "--until-idle", "--db-file", str(folder / "tasks.db")]
    command += ["--main-output-dir", str(folder / "outputs"), "--device", "cpu"]
    quick = {
        "FINETUNES": str(models),
        "SHUTDOWN_GRACE_S": "0",
        "PROGRESS_INTERVAL_S": "0",
        "CHECKPOINT_INTERVAL_S": "3600",
    }
    return subprocess.Popen(
        command, cwd=root, env=environment(root, **quick), text=True, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )


def test_sigterm_keeps_the_state_and_burns_no_attempt(tmp_path: Path, models: Path, root: Path) -> None:
    """The interval is an hour: what is kept was kept because the worker was told to stop."""
    long = {"num_inference_steps": 60, "resolution": "64x64"}
    with place(tmp_path / "stopped", models) as next_claim:
        task = next_claim.add(**long)
        process = worker(tmp_path / "stopped", models, root)
        try:
            wait_for_step(next_claim, process, task, window=2, step=3)
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
        assert process.returncode == 0, err
        row = next_claim.floor.store.get(task)
        assert (row.status, row.attempts) == (Status.QUEUED, 0), err
        next_claim.work()
        assert next_claim.steps[0] >= (2, 3)
        assert len(next_claim.steps) < 2 * 61
        assert not next_claim.floor.leftovers()
        frames = next_claim.frames(task)
    assert np.array_equal(frames, uninterrupted(tmp_path / "quiet", models, **long))


def wait_for_step(at: Place, process: subprocess.Popen[str], task: str, *, window: int, step: int) -> None:
    """Until the row says that this step is done."""
    deadline = time.monotonic() + 60
    while True:
        row = at.floor.store.get(task)
        told = row.progress or {}
        if told.get("phase") == "denoising" and (told["window"], told["step"]) >= (window, step):
            return
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, json.dumps(dict(told))
        at.floor.store.wait_for_change(0.05)
