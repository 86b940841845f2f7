"""A worker process dies by SIGKILL at each named point of a task's way, one after another. Every task comes to its one
right end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from place import Place, place

from source.chaos.checker import Asked, check
from source.chaos.engine import ENDS_AS
from source.chaos.grounds import Ground, SqliteGround, StackGround
from source.chaos.history import Record, read_histories
from source.chaos.points import POINTS
from source.chaos.run import found_in
from source.chaos.tasks import CLIP, PARENT

#: so that no task is given up, however often a worker died with it
MANY = 100
#: what has to be tried for a worker to come by these points; a clip comes by all others
MISFORTUNES = {"retry": "transient", "fail": "bad_input"}


def tried(at: Place, point: str, priority: int) -> str:
    """The task that leads a worker to the point; the newest first."""
    name = point.partition("-")[2]
    if name == "fan_out":
        return at.add_one(PARENT, priority, children=2)
    misfortune = {"misfortune": MISFORTUNES[name]} if name in MISFORTUNES else {}
    return at.add_one(CLIP, priority, model="fake_t2v", **misfortune)


def die_at(at: Place, point: str, priority: int) -> tuple[str, list[Record]]:
    """The task, and what the worker wrote until it died."""
    name = point.partition("-")[2]
    long = {"CHAOS_STEPS": "100", "CHAOS_STEP_S": "0.2"} if name in ("cancelled", "release") else {}
    crew = at.crew(point, trap=lambda _, start: "" if start else f"{point}:1:kill", MAX_ATTEMPTS=str(MANY), **long)
    task = tried(at, point, priority)
    if long:
        at.until_runs(task)
    if name == "cancelled":
        at.store.cancel(task)
    if name == "release":
        crew.terminate(0)
    at.until(lambda: crew.starts > 1, f"a worker dies at {point}")
    crew.end()
    return task, read_histories(crew.histories)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", [SqliteGround, StackGround])
def test_a_worker_may_die_at_any_point(kind: Callable[[Path, int], Ground], folder: Path) -> None:
    """A local file is brought to its place in one step, so nobody can die in the middle of that."""
    points = [point for point in POINTS if (point, kind) != ("during-upload", SqliteGround)]
    tasks, history = {}, []
    with place(kind, folder, MANY) as at:
        for priority, point in enumerate(points):
            tasks[point], records = die_at(at, point, priority)
            history += records
        crew = at.crew("healthy", 2, MAX_ATTEMPTS=str(MANY))
        at.until(at.store.idle, "all tasks end")
        assert crew.leave() == [0, 0]
        history += read_histories(crew.histories)
        asked = Asked(
            frozenset(tasks.values()),
            cancelled=frozenset(task for point, task in tasks.items() if point.endswith("-cancelled")),
            may_fail={task: ENDS_AS["bad_input"] for point, task in tasks.items() if point.endswith("-fail")},
            faults=len(points),
        )
        found = check(asked, found_in(at.ground, asked.accepted), history)
    print(f"{kind.name}: died at {len(points)} points; {found.ends}, {found.duplicate_executions} repeated executions")
    assert found.violations == ()
    met = {record.detail for record in history if record.name == "misfortune"}
    assert met >= {f"trap {point}:1:kill" for point in points}
