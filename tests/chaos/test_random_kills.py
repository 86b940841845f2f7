"""F3: workers that are killed again and again do as much afterwards as workers that nothing befell.

The short form is a slow test. CHAOS_MINUTES=3 makes it the long one, which `make chaos` runs: a random worker dies
every 3-10 seconds for so many minutes.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from place import Place, place

from source.chaos.checker import Asked, check
from source.chaos.crew import Crew
from source.chaos.grounds import Ground, SqliteGround, StackGround
from source.chaos.history import read_histories
from source.chaos.run import found_in
from source.store.types import Status

SEED, KILLS, WORKERS = 3, 8, 2
MINUTES = float(os.environ.get("CHAOS_MINUTES", "0"))
#: so that no task is given up, however often a worker died with it
MANY = 1000
#: tasks of one comparison; queued while workers are killed
COMPARED, AHEAD = 12, 6
#: a loss that lasts shows in every comparison, what the machine does meanwhile does not
COMPARISONS, LEAST = 12, 0.9


def pauses(source: random.Random) -> Iterator[float]:
    """Seconds before each kill."""
    if not MINUTES:
        yield from (source.uniform(0, 2) for _ in range(KILLS))
        return
    over = time.monotonic() + 60 * MINUTES
    while time.monotonic() < over:
        yield source.uniform(3, 10)


def kill_at_random(at: Place, crew: Crew, tasks: list[str]) -> int:
    """How often; there is always something to do meanwhile."""
    source, kills = random.Random(SEED), 0
    for pause in pauses(source):
        at.fill(tasks, AHEAD)
        threading.Event().wait(pause)
        victim = source.randrange(WORKERS)
        at.until(lambda victim=victim: crew.ready(victim), "it is at work")
        crew.kill(victim)
        kills += 1
    at.until(at.store.idle, "all tasks end")
    return kills


def share(at: Place, control: Place, tasks: list[str]) -> float:
    """Tasks a second of the one by those of the other, which gets as many in the same moment."""
    both, took = (at, control), dict[Place, float]()
    wanted = {each: each.store.counts()[Status.COMPLETE] + COMPARED for each in both}
    began = time.monotonic()
    for each in both:
        added = each.add(COMPARED)
        tasks += added if each is at else ()

    def done() -> bool:
        for each in both:
            if each not in took and each.store.counts()[Status.COMPLETE] == wanted[each]:
                took[each] = time.monotonic() - began
        return len(took) == len(both)

    at.until(done, "both are done")
    print(f"  {COMPARED} tasks in {took[at]:.1f} s, beside them in {took[control]:.1f} s")
    return took[control] / took[at]


@pytest.mark.slow
@pytest.mark.timeout(900 + 60 * MINUTES)
@pytest.mark.parametrize("kind", [SqliteGround, StackGround])
def test_random_kills_leave_the_rate_as_it_was(kind: Callable[[Path, int], Ground], folder: Path) -> None:
    """Two databases of a kind at the same time; the workers of the second one are left alone. Steps take most of the
    time of a task."""
    (folder / "control").mkdir()
    with place(kind, folder, MANY) as at, place(kind, folder / "control", MANY) as control:
        crew, spared = (each.crew("w", WORKERS, CHAOS_STEP_S="0.25", MAX_ATTEMPTS=str(MANY)) for each in (at, control))
        tasks: list[str] = []
        kills = kill_at_random(at, crew, tasks)
        shares: list[float] = []
        while len(shares) < COMPARISONS and max(shares, default=0) < LEAST:
            shares.append(share(at, control, tasks))
        assert crew.leave() == spared.leave() == [0] * WORKERS
        asked = Asked(frozenset(tasks), max_attempts=MANY, faults=kills)
        found = check(asked, found_in(at.ground, tasks), read_histories(crew.histories))
    print(f"{kind.name}: seed {SEED}, {kills} kills; afterwards {shares[-1]:.2f} of the rate beside them; {found.ends}")
    assert found.violations == ()
    assert set(found.ends) == {"Complete"}
    assert shares[-1] >= LEAST
