"""Facts about a row become sentences that a person can act on."""

from __future__ import annotations

from typing import Any

import pytest

from source.diagnostics.reasons import reasons
from source.store import Status, Task, WorkerRow
from source.store.circumstances import Ahead, Circumstances, Owner
from source.store.types import AffinityBound

NOW = "2026-11-26T12:00:00.000Z"
QUEUED, RUNNING, FAILED, CANCELLED = Status.QUEUED, Status.IN_PROGRESS, Status.FAILED, Status.CANCELLED


def at(clock: str) -> str:
    return f"2026-11-26T{clock}.000Z"


def row(name: str = "it", status: Status = QUEUED, **values: Any) -> Task:
    return Task(**{"id": name, "task_type": "t2v", "params": {}, "status": status, "created_at": NOW} | values)


def worker(name: str = "box", seen: str = "11:59:55", model: str | None = None, **values: Any) -> WorkerRow:
    return WorkerRow(**{
        "id": name, "status": "active", "last_heartbeat": at(seen), "current_model": model, "created_at": NOW,
    } | values)  # fmt: skip


def held(name: str, by: str = "box", **values: Any) -> Task:
    return row(name, RUNNING, **{"worker_id": by, "claimed_at": at("11:59:18"), "claim_number": 1} | values)


DENOISING = {"phase": "denoising", "step": 3, "total": 20, "eta_s": 70}
ALONE: dict[str, Any] = {"ahead": Ahead(), "workers": (worker(),)}

TABLE: dict[str, tuple[dict[str, Any], list[str]]] = {
    "paused": ({"task": row(paused=True)}, ["It is paused; `debug.py resume it` lets it go on."]),
    "later": (
        {"task": row(run_after=at("12:05:00"), attempts=1, error_message="connection\n reset.")},
        [f"It may not begin before {at('12:05:00')}, in 5 min, since attempt 1 failed: connection reset."],
    ),
    "a dependency that runs": (
        {"task": row(dependant_on=("a",)), "needed": (held("a", progress=DENOISING),)},
        ["It depends on t2v a: box has been running it for 42 s: denoising 3/20, 1:10 left."],
    ),
    "a chain down to a paused row": (
        {
            "task": row(dependant_on=("c",)),
            "needed": (row("a", paused=True), row("b", dependant_on=("a",)), row("c", dependant_on=("b",))),
        },
        ["It depends on t2v c: Queued, which waits in the end for t2v a (paused)."],
    ),
    "a circle ends": (
        {"task": row(dependant_on=("a",)), "needed": (row("a", dependant_on=("b",)), row("b", dependant_on=("a",)))},
        ["It depends on t2v a: Queued."],
    ),
    "missing": (
        {"task": row(dependant_on=("gone",)), "missing": ("gone",)},
        ["It depends on gone, which does not exist: the next rescue fails it."],
    ),
    "many dependencies": (
        {
            "task": row(dependant_on=tuple("abcdefg")),
            "needed": tuple(row(name, waiting=True, status=RUNNING) for name in "abcdefg"),
        },
        [*(f"It depends on t2v {name}: waits for its children." for name in "abcde"), "… and 2 more."],
    ),
    "type switched off": (
        {"task": row(), "type_active": False},
        ["The task type t2v is switched off (task_types.is_active)."],
    ),
    "no credits": ({"task": row(), "owner": Owner(credits=-0.5)}, ["Its owner has no credits left (-0.5)."]),
    "at the limit": (
        {"task": row(), "owner": Owner(running=5, max_in_progress=5, credits=7)},
        ["Its owner has 5 tasks running, and may have 5."],
    ),
    "cloud off": (
        {"task": row(), "owner": Owner(in_cloud=False)},
        ["Its owner keeps it from workers of the service (settings.ui.generationMethods.inCloud is false)."],
    ),
    "next, and a worker is idle": (
        {"task": row(), **ALONE},
        [
            "Nothing holds it up, and it is the next in line.",
            "box: idle; has no model loaded (heartbeat 5 s ago).",
        ],
    ),
    "a worker without room": (
        {
            "task": row(),
            "ahead": Ahead(),
            "workers": (worker(status="low_disk", metadata={"low_disk": "/data: full"}),),
        },
        [
            "Nothing holds it up, and it is the next in line.",
            "box: idle; has no model loaded (heartbeat 5 s ago); takes no task: /data: full.",
        ],
    ),
    "no worker": (
        {"task": row(), "ahead": Ahead()},
        [
            "Nothing holds it up, and it is the next in line.",
            "No worker ever sent a heartbeat: start one with `python worker.py`.",
        ],
    ),
    "dead workers": (
        {"task": row(), "ahead": Ahead(), "workers": (worker(seen="09:00:00"), worker("b", "08:00:00"))},
        [
            "Nothing holds it up, and it is the next in line.",
            "No worker is alive: box was last heard of 3 h ago.",
        ],
    ),
    "a worker that left": (
        {"task": row(), "ahead": Ahead(), "workers": (worker(status="stopped"),)},
        ["Nothing holds it up, and it is the next in line.", "No worker is alive: box stopped 5 s ago."],
    ),
    "in line": (
        {
            "task": row(model="flux", priority=1),
            "ahead": Ahead(higher=1, older=2, others=(40, 1)),
            "loaded": {"wan": 4},
            "passed_over": 3,
            "passed_over_since": at("11:59:20"),
            "workers": (worker(model="wan", metadata={"load_s": {"flux": 12.4}}),),
            "running": (held("r", progress=DENOISING), held("s", by="another")),
        },
        [
            "Nothing holds it up, but 15 rows may go before it.",
            "Priority: 1 row of higher priority than its 1.",
            "Fairness: its owner takes turns with 2 others, so up to 8 of their 41 rows go before it.",
            "Age: 2 rows of the same owner and priority are older.",
            "Affinity: a worker has wan loaded, not flux (which took 12 s to load); 4 younger rows for wan may go "
            "before its owner's oldest row, at most 8 and for 5 min.",
            "It was passed over 3 times so far, for 40 s.",
            "box: runs t2v r for 42 s: denoising 3/20, 1:10 left; has wan loaded (heartbeat 5 s ago).",
        ],
    ),
    "passed over": (
        {
            "task": row(model="flux"),
            "ahead": Ahead(),
            "loaded": {"wan": 40, "ltx": 1},
            "passed_over": 3,
            "passed_over_since": at("11:50:00"),
            "workers": (worker(model="wan", metadata={"load_s": {"wan": 400, "flux": 12.4}}), worker("b", model="ltx")),
        },
        [
            "Nothing holds it up, but 5 rows may go before it.",
            "Affinity: a worker has wan loaded, not flux (which took 12 s to load); 40 younger rows for wan may go "
            "before its owner's oldest row, at most 8 and for 20 min.",
            "Affinity: a worker has ltx loaded, not flux (which took 12 s to load); but this row was passed over for "
            "long enough, and goes before younger ones.",
            "It was passed over 3 times so far, for 10 min.",
            "box: idle; has wan loaded (heartbeat 5 s ago).",
            "b: idle; has ltx loaded (heartbeat 5 s ago).",
        ],
    ),
    "passed over as often as may be": (
        {"task": row(model="flux"), "ahead": Ahead(), "loaded": {"wan": 4}, "passed_over": 8, "passed_over_since": NOW},
        [
            "Nothing holds it up, and it is the next in line.",
            "Affinity: a worker has wan loaded, not flux; but this row was passed over for long enough, and goes "
            "before younger ones.",
            "It was passed over 8 times so far, for 0 s.",
            "No worker ever sent a heartbeat: start one with `python worker.py`.",
        ],
    ),
    "of whom fewer run": (
        {"task": row(), "ahead": Ahead(others=(40,)), "owner": Owner(running=2), "workers": (worker(),)},
        [
            "Nothing holds it up, but 40 rows may go before it.",
            "Fairness: its owner takes turns with 1 other. Whoever has fewer rows running goes first, and its owner "
            "has 2: theirs are 40 rows.",
            "box: idle; has no model loaded (heartbeat 5 s ago).",
        ],
    ),
    "its model is loaded": (
        {"task": row(), "ahead": Ahead(older=1), "workers": (worker(metadata={"takes_first": "t2v"}),)},
        [
            "Nothing holds it up, but 1 row may go before it.",
            "Age: 1 row of the same owner and priority is older.",
            "Affinity: box has t2v loaded, and takes it before older rows of other models.",
            "box: idle; has no model loaded (heartbeat 5 s ago).",
        ],
    ),
    "running": (
        {
            "task": held("it", lease_expires_at=at("12:00:38"), progress=DENOISING, cancel_requested=True),
            "workers": (worker("other"), worker()),
        },
        [
            "box has been running it for 42 s (claim 1): denoising 3/20, 1:10 left.",
            "Its lease lasts another 38 s; each heartbeat renews it.",
            "The last heartbeat of box came 5 s ago.",
            "Its cancellation was asked for: it stops at its next step.",
        ],
    ),
    "a dead claim": (
        {"task": held("it", lease_expires_at=at("11:59:40"))},
        [
            "box has been running it for 42 s (claim 1).",
            "Its lease ran out 20 s ago: the next claim or rescue puts it back into the queue.",
        ],
    ),
    "a waiting parent": (
        {
            "task": held("it", waiting=True),
            "children": (held("a"), row("b"), row("c", FAILED)),
        },
        [
            "It waits for 2 children and needs no worker meanwhile.",
            "t2v a: box has been running it for 42 s.",
            "t2v b: Queued.",
        ],
    ),
    "failed": (
        {"task": row(status=FAILED, error_class="engine", error_message="boom", attempts=3)},
        ["It failed (engine) after 3 attempts: boom.", "`debug.py retry it` queues it again."],
    ),
    "failed because of another": (
        {
            "task": row(status=FAILED, error_class="dependency", error_message="Not run", dependant_on=("b",)),
            "needed": (
                row("b", FAILED, error_class="dependency", error_message="Not run", dependant_on=("a",)),
                row("a", FAILED, error_class="bad_input", error_message="num_frames: 18"),
            ),
        },
        [
            "It failed (dependency): Not run.",
            "It depended on t2v a, which failed: num_frames: 18.",
            "`debug.py retry a` queues that, and this with it, again.",
        ],
    ),
    "cancelled with its parent": (
        {"task": row(status=CANCELLED, parent_id="p"), "parent": row("p", CANCELLED)},
        ["It was cancelled.", "Its parent, t2v p, was cancelled."],
    ),
    "failed with a child": (
        {
            "task": row(status=FAILED, error_message="segment 1 failed"),
            "children": (row("a", CANCELLED, error_class="parent"), row("b", FAILED, error_message="boom")),
        },
        [
            "It failed: segment 1 failed.",
            "Its child t2v b failed: boom.",
            "`debug.py retry it` queues it again.",
        ],
    ),
    "complete": (
        {"task": row(status=Status.COMPLETE, output_location="files/a.mp4")},
        ["It is Complete: files/a.mp4."],
    ),
}


@pytest.mark.parametrize("case", TABLE)
def test_reasons(case: str) -> None:
    facts, sentences = TABLE[case]
    assert reasons(Circumstances(now=NOW, **facts), AffinityBound()) == sentences
