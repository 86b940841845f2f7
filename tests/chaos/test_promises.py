"""Promises with numbers in them, on real worker processes: how soon a dead worker's task goes on, that a SIGTERM costs
no attempt, that clocks of workers do not count, that a connection on which nothing comes back holds nobody up."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from place import Place, place

from source.chaos.checker import Asked, check
from source.chaos.grounds import Ground, SqliteGround, StackGround
from source.chaos.history import read_histories
from source.chaos.run import LEASE_S, RESCUE_S, found_in

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SEED = 5
ALLOWED_S = 5.0
TEN_MINUTES_S = 600
WRONG = (TEN_MINUTES_S, -TEN_MINUTES_S)
#: so that no task is given up
MANY = 1000


ON_BOTH = pytest.mark.parametrize("kind", [SqliteGround, StackGround])


def rescued_within(at: Place, victim: Mapping[str, str], sibling: Mapping[str, str]) -> float:
    """Seconds from a worker's SIGKILL until another one has its task again, by the database's clock."""
    long = {"CHAOS_STEP_S": "2", "CHAOS_STEPS": "60", "MAX_IN_FLIGHT": "1"}
    first = at.crew("victim", **long, **victim)
    [task] = at.add(1)
    at.until_runs(task)
    second = at.crew("sibling", CHAOS_STEP_S="0.01", **sibling)
    at.until(lambda: second.ready(0), "the sibling is there")
    [other] = at.add(1)
    row = at.until_complete([other])[0]
    assert row.attempts == 0
    assert at.store.get(task).claim_number == 1, "a task was taken from a worker that lives"
    first.end()
    died = at.store.now()
    at.until_complete([task])
    assert at.store.get(task).attempts == 1
    return (at.second_claim_at(task) - died).total_seconds()


@pytest.mark.alone
@ON_BOTH
def test_the_task_of_a_dead_worker_goes_on_soon(kind: Callable[[Path, int], Ground], folder: Path) -> None:
    with place(kind, folder) as at:
        took_s = rescued_within(at, {}, {})
    print(f"{kind.name}: taken again {took_s:.1f} s after the death, with a lease of {LEASE_S:g} s")
    assert took_s < LEASE_S + RESCUE_S + ALLOWED_S


@pytest.mark.alone
@pytest.mark.parametrize("clocks", [WRONG, WRONG[::-1]])
def test_wrong_clocks_of_workers_do_not_count(clocks: tuple[int, int], folder: Path) -> None:
    """Neither taken early, from a worker that lives, nor late."""
    wrong = [{"CHAOS_CLOCK_S": str(clock)} for clock in clocks]
    with place(StackGround, folder) as at:
        took_s = rescued_within(at, *wrong)
    print(f"clocks {clocks}: taken again {took_s:.1f} s after the death")
    assert took_s < LEASE_S + RESCUE_S + ALLOWED_S


def test_wrong_clocks_of_processes_on_one_file_lose_and_double_nothing(folder: Path) -> None:
    """SQLite's clock is each process's own: one that is ahead takes the others' tasks early, which costs attempts."""
    with place(SqliteGround, folder, MANY) as at:
        wrong = {"CHAOS_STEP_S": "0.25", "MAX_ATTEMPTS": str(MANY)}
        crews = [at.crew(f"by{clock}", CHAOS_CLOCK_S=str(clock), **wrong) for clock in WRONG]
        tasks = at.add(8)
        at.until(at.store.idle, "all tasks end")
        assert [crew.leave() for crew in crews] == [[0], [0]]
        history = [record for crew in crews for record in read_histories(crew.histories)]
        found = check(Asked(frozenset(tasks), max_attempts=MANY, faults=MANY), found_in(at.ground, tasks), history)
        attempts = [row.attempts for row in at.rows(tasks)]
    print(f"clocks {WRONG}: {found.ends}, attempts {attempts}")
    assert found.violations == ()
    assert set(found.ends) == {"Complete"}


@ON_BOTH
def test_a_sigterm_costs_no_attempt(kind: Callable[[Path, int], Ground], folder: Path) -> None:
    """Two workers are told to leave at random moments, again and again."""
    source = random.Random(SEED)
    with place(kind, folder) as at:
        tasks = at.add(24)
        crew = at.crew("told", 2, CHAOS_STEP_S="0.1", SHUTDOWN_GRACE_S="0", LEASE_S="60", HEARTBEAT_S="0.5")
        for number in range(16):
            at.until(lambda number=number: crew.ready(number % 2), "it is at work")
            threading.Event().wait(source.uniform(0, 0.6))
            crew.terminate(number % 2)
        rows = at.until_complete(tasks)
        assert crew.leave() == [0, 0]
        claims = sum(row.claim_number for row in rows)
        history = read_histories(crew.histories)
    print(f"{kind.name}: seed {SEED}, {claims} claims of {len(tasks)} tasks, {crew.starts} processes")
    assert {row.attempts for row in rows} == {0}
    assert any(record.name == "release" for record in history)


@pytest.mark.alone
def test_a_gateway_that_answers_nothing_is_noticed_and_costs_no_generation(folder: Path) -> None:
    """Connections stay open and nothing comes back, as when a cable is pulled, for several leases."""
    with place(StackGround, folder) as at:
        crew = at.crew("w", CHAOS_STEP_S="0.5")
        [task] = at.add(1)
        at.until_runs(task)
        log = folder / "w" / "chaos-0.log"
        at.ground.faults["freeze_gateway"]()
        began = time.monotonic()
        at.until(lambda: "did not reach the database" in log.read_text(), "the worker notices")
        noticed_s = time.monotonic() - began
        threading.Event().wait(2 * LEASE_S)
        at.ground.heal()
        [row] = at.until_complete([task])
        assert crew.leave() == [0]
        names = [event.name for event in at.store.events(task)]
    print(f"noticed after {noticed_s:.1f} s; {row.claim_number} claim(s)")
    assert noticed_s < 15
    assert names.count("complete") == names.count("started") == 1
