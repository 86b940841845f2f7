"""F2: a worker process dies by SIGKILL at each named point of a task's way, one after another, at some of them also
later than at the first passing. Every task comes to its one right end.

CHAOS_SEEDS=3 adds two rounds, which `make chaos` runs: the passings are drawn, and another task depends on each one.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from place import Place, place

from source.chaos.checker import Asked, check
from source.chaos.engine import ENDS_AS
from source.chaos.grounds import Ground, SqliteGround, StackGround
from source.chaos.history import Record, read_histories
from source.chaos.points import POINTS
from source.chaos.run import found_in
from source.chaos.tasks import CLIP, FRAMES, PARENT
from source.store.types import NewTask

#: so that no task is given up, however often a worker died with it
MANY = 100
#: what has to be tried for a worker to come by these points; a clip comes by all others
MISFORTUNES = {"retry": "transient", "fail": "bad_input"}


#: passings of a point on the way of one clip; a worker comes by these again and again, by all others once
STEPS = 4
PASSINGS = {
    "step": STEPS, "write": FRAMES, "during-upload": 2,
    **dict.fromkeys(("before-claim", "before-heartbeat", "after-heartbeat", "before-rescue", "after-rescue"), 3),
}  # fmt: skip
ROUNDS = int(os.environ.get("CHAOS_SEEDS", "1"))


@dataclass(frozen=True)
class Death:
    """Where a worker dies. `outage`: what befalls the database's machines before."""

    point: str
    passing: int = 1
    outage: str = ""

    @property
    def trap(self) -> str:
        return f"{self.point}:{self.passing}:kill"


#: each step, in the middle of a file, and when an upload waits for its answer, or has just ended
FURTHER = [
    *(Death("step", passing) for passing in range(2, STEPS + 1)), Death("write", 3),
    Death("during-upload", 2), Death("during-upload", 2, "freeze_s3"),
]  # fmt: skip


def deaths(seed: int, kind: Callable[[Path, int], Ground]) -> list[Death]:
    """A local file is brought to its place in one step, so nobody can die in the middle of that."""
    source = random.Random(seed)
    first = [Death(point) for point in POINTS] + FURTHER
    drawn = [Death(point, source.randint(1, PASSINGS.get(point, 1))) for point in POINTS]
    return [
        death for death in (drawn if seed else first) if (death.point, kind) != ("during-upload", SqliteGround)
    ]  # fmt: skip


def tried(at: Place, point: str, priority: int) -> str:
    """The task that leads a worker to the point; the newest first."""
    name = point.partition("-")[2]
    if name == "fan_out":
        return at.add_one(PARENT, priority, children=2)
    misfortune = {"misfortune": MISFORTUNES[name]} if name in MISFORTUNES else {}
    return at.add_one(CLIP, priority, model="fake_t2v", **misfortune)


def die(at: Place, death: Death, number: int, behind: bool) -> tuple[list[str], list[Record]]:
    """The task, and with `behind` one that depends on it, and what the worker wrote until it died."""
    name = death.point.partition("-")[2]
    long = {"CHAOS_STEPS": "100", "CHAOS_STEP_S": "0.2"} if name in ("cancelled", "release") else {}
    trap = death.trap
    crew = at.crew(str(number), trap=lambda _, start: "" if start else trap, MAX_ATTEMPTS=str(MANY), **long)
    if death.outage:
        at.ground.faults[death.outage]()
    tasks = [tried(at, death.point, number)]
    if behind:
        tasks.append(at.store.add(NewTask(task_type=CLIP, params={}, dependant_on=(tasks[0],))))
    if long:
        at.until_runs(tasks[0])
    if name == "cancelled":
        at.store.cancel(tasks[0])
    if name == "release":
        crew.terminate(0)
    at.until(lambda: crew.starts > 1, f"a worker dies at {trap}")
    crew.end()
    at.ground.heal()
    return tasks, read_histories(crew.histories)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(ROUNDS))
@pytest.mark.parametrize("kind", [SqliteGround, StackGround])
def test_a_worker_may_die_at_any_point(kind: Callable[[Path, int], Ground], seed: int, folder: Path) -> None:
    tasks: dict[str, Death] = {}
    history: list[Record] = []
    all_deaths = deaths(seed, kind)
    with place(kind, folder, MANY) as at:
        for number, death in enumerate(all_deaths):
            added, records = die(at, death, number, behind=seed > 0)
            tasks |= dict.fromkeys(added, death)
            history += records
        crew = at.crew("healthy", 2, MAX_ATTEMPTS=str(MANY))
        at.until(at.store.idle, "all tasks end")
        assert crew.leave() == [0, 0]
        history += read_histories(crew.histories)
        asked = Asked(
            frozenset(tasks),
            cancelled=frozenset(task for task, death in tasks.items() if death.point.endswith("-cancelled")),
            may_fail={task: ENDS_AS["bad_input"] for task, death in tasks.items() if death.point.endswith("-fail")},
            faults=len(all_deaths),
        )
        found = check(asked, found_in(at.ground, asked.accepted), history)
    print(f"{kind.name}: seed {seed}, {len(all_deaths)} deaths; {found.ends}, "
          f"{found.duplicate_executions} repeated executions")  # fmt: skip
    assert found.violations == ()
    met = {record.detail for record in history if record.name == "misfortune"}
    assert met >= {f"trap {death.trap}" for death in all_deaths}
