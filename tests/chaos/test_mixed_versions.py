"""F21: workers of the older contract and ours on one queue, as in the hours in which an installation is brought up to
date."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from older_worker import older_workers
from place import Place, place

from source.chaos.checker import FINAL, GIVEN_BACK
from source.chaos.grounds import StackGround
from source.store.types import Status, Task

#: tasks that each kind of worker is to complete at least, and how many are kept queued until then
EACH, AHEAD = 3, 8


def by_ours(rows: list[Task]) -> int:
    return sum(row.status is Status.COMPLETE and str(row.worker_id).startswith("chaos-") for row in rows)


def turns(at: Place, task: str) -> list[str]:
    """How a task came to the queue, to a worker, and to its end."""
    return [event.name for event in at.store.events(task) if event.name in GIVEN_BACK | FINAL | {"claimed"}]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_older_workers_and_ours_share_a_queue_and_no_claim_fails(folder: Path) -> None:
    """Meanwhile one of each kind is told to leave. The lease is long, so that only a fault could burn an attempt."""
    with place(StackGround, folder) as at:
        crew = at.crew("ours", 2, CHAOS_STEP_S="0.05", SHUTDOWN_GRACE_S="0", LEASE_S="60", HEARTBEAT_S="1")
        at.until(lambda: crew.ready(0) and crew.ready(1), "our workers are there")
        tasks: list[str] = []

        def until(holds: Callable[[], object], what: str) -> None:
            """The queue does not run dry meanwhile."""

            def filled() -> object:
                at.fill(tasks, AHEAD)
                return holds()

            at.until(filled, what)

        def done() -> int:
            return min(sum(len(each.completed) for each in older), by_ours(at.rows(tasks)))

        with older_workers(at.ground, 2) as older:
            until(lambda: done() >= EACH, f"both kinds have completed {EACH} tasks")
            crew.terminate(0)
            until(lambda: len(older[0].claimed) > len(older[0].completed), "the older one is at work")
            older[0].leave()
            until(lambda: done() >= 2 * EACH, "both kinds go on")
            rows = at.until_complete(tasks)
        assert crew.leave() == [0, 0]
        refused = [sentence for each in older for sentence in each.refused]
        put_back = [task for each in older for task in each.put_back]
        ways = [turns(at, task) for task in tasks]
        outputs = [at.ground.digest(row) for row in rows]
    print(f"{by_ours(rows)} tasks by ours, {len(rows) - by_ours(rows)} by the older ones, {len(put_back)} put back")
    assert refused == []
    assert {row.attempts for row in rows} == {0}
    assert all(outputs)
    completions = Counter(str(row.worker_id) for row in rows)
    assert {name: completions[name] for name in ("older-0", "older-1")} == {
        each.name: len(each.completed) for each in older
    }
    for way in ways:
        assert set(way[:-1:2]) <= {"queued", "released"} and set(way[1::2]) == {"claimed"} and way[-1] == "complete"
