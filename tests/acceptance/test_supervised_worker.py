"""F16 and F21 with real processes: a supervisor over worker processes that run the fake engine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from worker_floor import Floor

from source.ledger import claim_lines
from source.store.types import NewTask, Status

SUPERVISOR = """
import sys
from source.settings import load_settings
from source.supervision import DeviceProbe, Pace, Supervisor

probe = DeviceProbe(load_settings())

def probed():
    print("probed", flush=True)
    return probe()

sys.exit(Supervisor([sys.executable, *sys.argv[1:]], Pace(0.01, 300, 60), probed).run())
"""
STEPS = 60
CHAOS = ("-m", "source.chaos.worker")


@pytest.fixture
def floor(tmp_path: Path) -> Iterator[Floor]:
    """Its own worker and engine stay idle: it is there for its store."""
    floor = Floor(tmp_path)
    yield floor
    floor.close()


@contextmanager
def supervised(
    floor: Floor, root: Path, worker: tuple[str, ...] = CHAOS, **environment: str
) -> Iterator[subprocess.Popen[str]]:
    given = {
        "DB_FILE": str(floor.settings.db_file), "MAIN_OUTPUT_DIR": str(floor.settings.main_output_dir),
        "HISTORY_FILE": str(floor.settings.main_output_dir.parent / "history.jsonl"), "POLL_INTERVAL_S": "0.5",
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, *worker], cwd=root, env=os.environ | given | environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def clip(floor: Floor, **params: Any) -> str:
    return floor.store.add(NewTask(task_type="chaos_clip", params=params))


@pytest.mark.slow
def test_a_worker_that_lost_its_gpu_is_replaced_and_the_device_probed_before(floor: Floor, root: Path) -> None:
    unlucky, other = clip(floor, misfortune="device_lost"), clip(floor)
    with supervised(floor, root, CHAOS_STEP_S="0") as process:
        for task in (unlucky, other):
            floor.wait_for(task, Status.COMPLETE)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert out.split() == ["probed", "probed"]
    assert "the worker ended with exit code 3" in err
    assert [line.end for line in claim_lines(floor.store.events(unlucky))] == ["released: device_lost", "complete"]
    assert floor.store.get(unlucky).attempts == floor.store.get(other).attempts == 0


@pytest.mark.slow
def test_sigterm_in_the_middle_of_a_generation_burns_no_attempt(floor: Floor, root: Path) -> None:
    task = clip(floor)
    for number in (1, 2):
        with supervised(floor, root, CHAOS_STEPS=str(STEPS), CHAOS_STEP_S="0.5", SHUTDOWN_GRACE_S="0") as process:
            floor.wait_until(lambda number=number: at_work(floor, task, number))
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=60)
            assert process.returncode == 0, err
        row = floor.store.get(task)
        assert (row.status, row.attempts, row.claim_number) == (Status.QUEUED, 0, number)
    assert [line.end for line in claim_lines(floor.store.events(task))] == ["released", "released"]


@pytest.mark.slow
def test_a_task_that_kills_every_worker_is_given_up_and_the_others_run(floor: Floor, root: Path) -> None:
    """F14: three workers die of it, one after the other, and their supervisor replaces each."""
    poison, *others = clip(floor, misfortune="poison", times=3), clip(floor), clip(floor)
    short = {"LEASE_S": "2", "HEARTBEAT_S": "0.5", "RESCUE_INTERVAL_S": "0.5", "CHAOS_STEP_S": "0"}
    with supervised(floor, root, **short) as process:
        for task in (*others, poison):
            floor.wait_for(task, Status.FAILED if task == poison else Status.COMPLETE)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert out.split() == ["probed"] * 4
    row = floor.store.get(poison)
    assert (row.error_class, row.attempts) == ("poison", 3)
    ends = [line.end for line in claim_lines(floor.store.events(poison))]
    assert ends == ["rescued (death)", "rescued (death)", "failed: poison"]


#: a worker whose engine stands still for ever in the first run of all, and heeds nobody
DEAF = """
import sys, threading
from pathlib import Path
from headless.testing import FakeOrchestrator
from source.chaos.tasks import chaos_registry
from source.settings import load_settings
from source.startup import Equipment, run_worker

class Deaf(FakeOrchestrator):
    def generate(self, *arguments):
        if not mark.exists():
            mark.touch()
            threading.Event().wait()
        return super().generate(*arguments)

settings = load_settings()
mark = settings.main_output_dir / "stood"
sys.exit(run_worker(settings, equipment=Equipment(Deaf(), chaos_registry(), lambda *both: both)))
"""


@pytest.mark.slow
def test_a_worker_whose_engine_hangs_is_replaced_and_the_task_done_by_the_next(floor: Floor, root: Path) -> None:
    """F17: the engine is given up after its bound and its grace, well within the lease."""
    task = clip(floor)
    short = {"HANG_S": "2", "HANG_GRACE_S": "0.5", "RETRY_DELAY_S": "0", "SHUTDOWN_GRACE_S": "0"}
    with supervised(floor, root, ("-c", DEAF), **short) as process:
        floor.wait_for(task, Status.COMPLETE)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert out.split() == ["probed", "probed"]
    assert "the worker ended with exit code 3" in err and "the engine does not come back" in err
    assert [line.end for line in claim_lines(floor.store.events(task))] == ["retry: hang", "complete"]
    assert floor.store.get(task).attempts == 1


#: a worker whose store breaks in a way that nobody foresaw
BROKEN = """
import sys
from pathlib import Path
from headless.testing import FakeOrchestrator
from source.settings import load_settings
from source.startup import Equipment, run_worker
from source.task_registry import TaskRegistry

class Broken:
    def __init__(self, store):
        self.store = store
    def __getattr__(self, name):
        if name == "claim":
            raise ZeroDivisionError("nobody foresaw this")
        return getattr(self.store, name)

equipment = Equipment(FakeOrchestrator(), TaskRegistry(), lambda store, storage: (Broken(store), storage))
folder = Path(sys.argv[1])
sys.exit(run_worker(load_settings(db_file=folder / "tasks.db", main_output_dir=folder), equipment=equipment))
"""


@pytest.mark.slow
def test_an_unforeseen_failure_of_the_worker_is_no_wrong_configuration(tmp_path: Path, root: Path) -> None:
    command = [sys.executable, "-c", BROKEN, str(tmp_path)]
    ended = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert ended.returncode == 4
    assert "for a reason that nobody foresaw" in ended.stderr and "ZeroDivisionError" in ended.stderr


def at_work(floor: Floor, task: str, claim_number: int) -> bool:
    row = floor.store.get(task)
    return row.claim_number == claim_number and row.progress is not None and row.progress["phase"] == "denoising"
