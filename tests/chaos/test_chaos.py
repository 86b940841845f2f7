"""The chaos itself: real worker processes on real databases, killed, stopped and cut off; and what the command says."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from source.chaos.grounds import Ground, SqliteGround, StackGround
from source.chaos.plan import draw
from source.chaos.report import lines
from source.chaos.run import MAX_ATTEMPTS, Outcome, run

#: a plan in which every kind of fault occurs
SEED = 7
FAULTS = 45


def carried_out(
    ground: Ground, folder: Path, *, seed: int, faults: int, workers: int = 3, **given: list[str]
) -> Outcome:
    outcome = run(ground, draw(seed, faults, workers, list(ground.faults)), workers, folder, lambda _: None, **given)
    print(lines(outcome))
    return outcome


def test_the_same_seed_makes_the_same_plan() -> None:
    plan = draw(SEED, 100, 3, ["kill_postgres"])
    assert plan == draw(SEED, 100, 3, ["kill_postgres"]) != draw(SEED + 1, 100, 3, ["kill_postgres"])
    assert {"kill", "terminate", "stand_still", "twin", "cancel", "retry", "kill_postgres"} == {
        fault.kind for fault in plan.faults
    }
    traps = [plan.trap(worker, start) for worker in range(3) for start in range(20)]
    assert traps == [plan.trap(worker, start) for worker in range(3) for start in range(20)]
    assert {trap.rpartition(":")[2] for trap in traps} == {"", "kill", "lose", "stop"}


def test_the_command_prints_the_seed_and_that_all_is_well(root: Path, tmp_path: Path) -> None:
    flags = f"chaos --json --seed 113 --faults 3 --workers 2 --folder {tmp_path}"
    command = ["debug.py", *flags.split()]
    done = subprocess.run([sys.executable, *command], cwd=root, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stdout + done.stderr
    [view] = json.loads(done.stdout)
    assert (view["seed"], view["well"], sum(view["injected"].values())) == (113, True, 3)
    assert view["lost"] == view["unexpected"] == view["duplicated"] == view["stale_accepted"] == []
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", [SqliteGround, StackGround])
def test_tasks_complete_once_under_many_faults(kind: Callable[[Path, int], Ground], folder: Path) -> None:
    with closing(kind(folder, MAX_ATTEMPTS)) as ground:
        outcome = carried_out(ground, folder, seed=SEED, faults=FAULTS)
    assert outcome.well, lines(outcome)


#: a worker whose store breaks a promise: `python -c` this, with the name of one
BROKEN = """
import sys
sys.path.insert(0, {tests!r})
from test_broken_stores import spoilt
from source.chaos.worker import main
sys.exit(main(spoilt({name!r})))
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["Unfenced", "Unguarded", "Forgetful"])
def test_workers_that_break_a_promise_are_found_out(name: str, folder: Path) -> None:
    code = BROKEN.format(tests=str(Path(__file__).parent), name=name)
    with closing(SqliteGround(folder, MAX_ATTEMPTS)) as ground:
        outcome = carried_out(ground, folder, seed=SEED, faults=20, command=[sys.executable, "-c", code])
    assert outcome.findings.violations
