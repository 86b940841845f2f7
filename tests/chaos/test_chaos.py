"""The chaos itself: real worker processes on real databases, killed, stopped and cut off; and what the command says."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from local_stack import LocalStack
from local_stack import stack as stack

from source.chaos.grounds import Ground, ProjectGround, SqliteGround, StackGround
from source.chaos.plan import NOTHING, Fault, Plan, draw
from source.chaos.report import lines
from source.chaos.run import MAX_ATTEMPTS, Outcome, run
from source.chaos.tasks import CLIP, MODELS
from source.errors import InvalidInput, StoreError
from source.settings import Settings, load_settings
from source.store.types import NewTask

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


def settings_of(stack: LocalStack, token: str) -> Settings:
    return load_settings(db_type="supabase", supabase_url=stack.url, supabase_access_token=token)


def test_a_service_key_is_refused_and_so_is_a_person_at_work(stack: LocalStack) -> None:
    """Workers of the chaos would take tasks of others."""
    with pytest.raises(InvalidInput, match="service key"):
        ProjectGround(settings_of(stack, stack.service_key))
    settings = settings_of(stack, stack.person().access_token)
    with closing(ProjectGround(settings)) as ground:
        ground.store.add(NewTask(task_type="t2v", params={}))
    with pytest.raises(InvalidInput, match="1 open tasks"):
        ProjectGround(settings)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_in_a_project_touches_no_row_of_others(stack: LocalStack, folder: Path) -> None:
    with closing(ProjectGround(settings_of(stack, stack.person().access_token))) as neighbour:
        theirs = neighbour.store.add(NewTask(task_type="t2v", params={}))
        before = neighbour.store.get(theirs)
        with closing(ProjectGround(settings_of(stack, stack.person().access_token))) as ground:
            outcome = carried_out(ground, folder, seed=SEED, faults=12)
        assert outcome.well, lines(outcome)
        assert neighbour.store.get(theirs) == before


@pytest.mark.slow
def test_workers_that_do_not_start_end_the_run_and_their_log_is_named(folder: Path) -> None:
    with closing(SqliteGround(folder, MAX_ATTEMPTS)) as ground, pytest.raises(StoreError, match="log says why"):
        carried_out(ground, folder, seed=SEED, faults=10, command=[sys.executable, "-c", "import nothing_of_ours"])


#: a worker whose store breaks a promise: `python -c` this, with the name of one
BROKEN = """
import sys
sys.path.insert(0, {tests!r})
from test_broken_stores import spoilt
from source.chaos.worker import main
sys.exit(main(spoilt({name!r})))
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_workers_that_break_a_promise_are_found_out(folder: Path) -> None:
    """Completions without fencing, each after another claim of its row. Fewer tasks than the workers can hold: one must
    be free to claim."""
    code = BROKEN.format(tests=str(Path(__file__).parent), name="Overtaken")
    clips = tuple(NewTask(task_type=CLIP, params={"model": MODELS[0]}) for _ in range(2))
    plan = Plan(SEED, (Fault(NOTHING, worker=0, pick=0.0, pause_s=0.0, tasks=clips),))
    with closing(SqliteGround(folder, MAX_ATTEMPTS)) as ground:
        outcome = run(ground, plan, 3, folder, lambda _: None, [sys.executable, "-c", code])
    assert outcome.findings.stale_accepted, lines(outcome)
