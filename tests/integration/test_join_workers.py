"""Several workers on one database share the transitions of a join; the death of one loses nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from join_shop import clip, frames_of, project, textured
from skimage.metrics import structural_similarity
from worker_floor import DEADLINE_S, Floor

from headless.testing import FakeOrchestrator, Gate
from source.store.types import NewTask, Status
from source.task_registry import registry

SURVIVOR = {"worker_id": "survivor", "lease_s": 1.5, "heartbeat_s": 0.4}

#: a worker that the operating system kills in the middle of its second transition
VICTIM = """
import os, signal, sys
from pathlib import Path
from headless.testing import FakeOrchestrator
from source.task_registry import registry
from worker_floor import Floor

class Dying(FakeOrchestrator):
    def generate(self, task, on_progress, cancel):
        def report(progress):
            on_progress(progress)
            if len(self.tasks) == 2 and progress.phase == "denoising":
                floor.wait_until(lambda: floor.store.get(self.tasks[0].id).terminal)
                os.kill(os.getpid(), signal.SIGKILL)
        return super().generate(task, report, cancel)

floor = Floor(Path(sys.argv[1]), Dying(), worker_id="victim", lease_s=1.5, heartbeat_s=0.4)
floor.worker(registry=registry()).run(until_idle=True)
"""


def test_two_workers_share_a_join_of_six_clips_and_one_of_them_dies(tmp_path: Path, root: Path) -> None:
    """The survivor stands at a gate until the other one is dead: both must have had transitions."""
    clips = [clip(tmp_path / f"clip{index}.mp4", 24, index) for index in range(6)]
    gate = Gate()
    floor = Floor(tmp_path, FakeOrchestrator(gate=gate), **SURVIVOR)
    job = floor.store.add(NewTask(task_type="join_clips_orchestrator", params=project(clips)))
    with floor.working(registry=registry()):
        gate.wait_until_held(DEADLINE_S)
        paths = f"{root}{os.pathsep}{root / 'tests'}"
        command = [sys.executable, "-c", VICTIM, str(tmp_path)]
        died = subprocess.run(command, cwd=root, env=os.environ | {"PYTHONPATH": paths}, timeout=100, check=False)
        assert died.returncode == -signal.SIGKILL
        gate.open()
        row = floor.wait_for(job, Status.COMPLETE)
    joins = [child for child in floor.store.children(job) if child.task_type == "join_clips_segment"]
    ends = [event for join in joins for event in floor.store.events(join.id) if event.name == "complete"]
    assert len(joins) == len(ends) == 5, "each transition was delivered once"
    workers = {str(event.worker_id).partition("-")[0] for event in ends}
    assert workers == {"survivor", "victim"}, "both workers made some"
    assert any("rescued" in floor.event_names(join.id) for join in joins)
    assert row.result_data is not None and row.result_data["num_frames"] == 6 * 24 + 5 * 9
    made = frames_of(floor.output(job))
    likeness = [structural_similarity(made[33 * k + 12], textured(12, k), channel_axis=2) for k in range(6)]
    assert len(made) == 189 and min(likeness) > 0.95
    floor.close()
