"""Rows of several models and owners that arrive over time, played on a store: real claims, virtual seconds."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from source.store import AffinityBound, Claim, NewTask, Status, Task, TaskStore
from source.store.types import USUAL_AFFINITY

LEASE_S = 3600.0
GREEDY, OTHER = (f"00000000-0000-4000-8000-00000000000{digit}" for digit in "ab")


@dataclass(frozen=True)
class Arrival:
    """A row, and the second at which it is queued."""

    at: float
    owner: str
    model: str
    priority: int = 0


@dataclass
class Played:
    """What became of a trace."""

    loads: int = 0
    seconds: float = 0.0
    #: from arrival to claim, by arrival
    waits: dict[int, float] = field(default_factory=dict)
    #: of rows whose owner had no other row when they arrived
    first_waits: dict[str, list[float]] = field(default_factory=dict)
    #: the most rows of a loaded model that went before an owner's oldest of that priority
    passed_over: int = 0


def mixed_trace(seed: int, *, rows: int = 200, models: int = 5, others: int = 20) -> list[Arrival]:
    """`others` of the rows belong to a user who asks for one every few seconds; a greedy one queues the rest early."""
    chance = random.Random(seed)
    found = [(6.0 * number + chance.uniform(0, 2), OTHER) for number in range(others)]
    found += [(chance.uniform(0, 0.3 * rows), GREEDY) for _ in range(rows - others)]
    return [Arrival(at, owner, f"model-{chance.randrange(models)}") for at, owner in sorted(found)]


def in_order_of_age(trace: Sequence[Arrival]) -> list[Arrival]:
    """The same for one owner alone: without a loaded model, claims go by age then."""
    return [replace(arrival, owner=GREEDY) for arrival in trace]


class Play:
    """Workers, each with one row at a time, on `store`, which is empty. `load_s`: what a switch of models costs."""

    def __init__(
        self, store: TaskStore, trace: Sequence[Arrival], *, workers: int = 2, task_s: float = 1.0, load_s: float = 1.0,
        bound: AffinityBound | None = USUAL_AFFINITY,
    ) -> None:  # fmt: skip
        self._store, self._trace = store, trace
        self._task_s, self._load_s, self._bound = task_s, load_s, bound
        self._loaded: list[str | None] = [None] * workers
        self._busy: list[tuple[float, Claim] | None] = [None] * workers
        self._arrived = 0
        #: arrivals by id: queued, and queued or running
        self._queued: dict[str, int] = {}
        self._open: dict[str, int] = {}
        self._passed: dict[str, int] = {}
        self._alone: set[int] = set()
        self.played = Played()

    def run(self) -> Played:
        """Play until every row is Complete."""
        now = 0.0
        while self._arrived < len(self._trace) or any(self._busy):
            now = min([busy[0] for busy in self._busy if busy] + [each.at for each in self._trace[self._arrived :][:1]])
            self._finish(now)
            self._arrive(now)
            for worker, busy in enumerate(self._busy):
                if busy is None:
                    self._claim(worker, now)
        assert not self._open
        assert self._store.counts()[Status.COMPLETE] == len(self._trace)
        self.played.seconds = now
        return self.played

    def _finish(self, now: float) -> None:
        for worker, busy in enumerate(self._busy):
            if busy and busy[0] <= now:
                self._store.complete(busy[1], None)
                del self._open[busy[1].task_id]
                self._busy[worker] = None

    def _arrive(self, now: float) -> None:
        while self._arrived < len(self._trace) and self._trace[self._arrived].at <= now:
            row = self._trace[self._arrived]
            if row.owner not in {self._trace[index].owner for index in self._open.values()}:
                self._alone.add(self._arrived)
            added = self._store.add(
                NewTask(task_type="t2v", params={"model": row.model}, project_id=row.owner, priority=row.priority)
            )
            self._queued[added] = self._open[added] = self._arrived
            self._arrived += 1

    def _claim(self, worker: int, now: float) -> None:
        affinity = {"loaded_model": self._loaded[worker], "affinity": self._bound} if self._bound else {}
        claimed = self._store.claim(f"worker-{worker}", lease_s=LEASE_S, **affinity)  # type: ignore[arg-type]
        assert bool(claimed) == bool(self._queued), "a free worker gets a row as long as there is one"
        if claimed:
            self._check_order(claimed[0], worker)
            switched = claimed[0].model != self._loaded[worker]
            self._loaded[worker] = claimed[0].model
            self.played.loads += switched
            self._busy[worker] = (now + self._task_s + switched * self._load_s, claimed[0].claim)
            self._book(self._queued.pop(claimed[0].id), now)

    def _book(self, index: int, now: float) -> None:
        row = self._trace[index]
        self.played.waits[index] = now - row.at
        if index in self._alone:
            self.played.first_waits.setdefault(row.owner, []).append(now - row.at)

    def _check_order(self, task: Task, worker: int) -> None:
        """The highest priority; of its owner the oldest, or one of the loaded model."""
        rows = {name: self._trace[index] for name, index in self._queued.items()}
        assert task.priority == max(row.priority for row in rows.values())
        same = [name for name, row in rows.items() if (row.owner, row.priority) == (task.project_id, task.priority)]
        if task.id != same[0]:
            assert task.model == self._loaded[worker]
            self._passed[same[0]] = self._passed.get(same[0], 0) + 1
            self.played.passed_over = max(self.played.passed_over, self._passed[same[0]])
