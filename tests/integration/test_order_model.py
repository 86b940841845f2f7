"""The order of claims against a plain model of it, over random histories: models, owners with limits, priorities,
pauses, dependencies, kinds of work, rows that come back. Whoever asks gets the row that the model says, so no worker
ever leaves a row to another, and in the end everything that can run has run."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from postgres_server import Database
from postgres_server import database as database
from postgres_server import shared_database as shared_database
from postgres_store import PostgresStore

from source.store import AffinityBound, NewTask, Status, Task, TaskStore
from source.store.sqlite import SqliteStore

#: people with the most that each may have running, and the projects of each; the last is nobody's
PEOPLE = {f"00000000-0000-4000-8000-0000000000a{number}": limit for number, limit in enumerate((2, 1000))}
PROJECTS = {
    f"00000000-0000-4000-8000-0000000000b{number}": owner for number, owner in enumerate([*PEOPLE, *PEOPLE, None])
}
TYPES = ("t2v", "z_image_turbo", "travel_orchestrator")
FAR_S = 3600.0
SEED, STEPS, BOUND = 7, 250, 1
OPEN = (Status.QUEUED, Status.IN_PROGRESS)


@dataclass
class Row:
    owner: str
    priority: int
    key: str
    task_type: str
    needs: tuple[str, ...]
    paused: bool = False
    status: Status = Status.QUEUED
    passed_over: int = 0
    claimed: Task | None = None


class Order:
    """What `TaskStore.claim` promises, the plain way."""

    def __init__(self, limits: dict[str, int], bound: int) -> None:
        self.rows: dict[str, Row] = {}
        self._limits, self._bound = limits, bound
        self._served: dict[str, str] = {}

    def take(self, worker: str, loaded: str | None, types: tuple[str, ...]) -> str | None:
        able = {name: row for name, row in self.rows.items() if row.task_type in types and self._eligible(row)}
        if not able:
            return None
        top = max(row.priority for row in able.values())
        served = self._served.get(worker)
        owner = min(
            {row.owner for row in able.values() if row.priority == top},
            key=lambda each: (self._running(each), served is not None and each <= served, each),
        )
        own = [name for name, row in able.items() if (row.owner, row.priority) == (owner, top)]
        chosen, oldest = own[0], self.rows[own[0]]
        warm = next((name for name in own if self.rows[name].key == loaded), chosen)
        if warm != chosen and oldest.passed_over < self._bound:
            oldest.passed_over += 1
            chosen = warm
        self._served[worker] = owner
        self.rows[chosen].status, self.rows[chosen].passed_over = Status.IN_PROGRESS, 0
        return chosen

    def end(self, name: str, status: Status) -> None:
        self.rows[name].status = status
        if status in (Status.FAILED, Status.CANCELLED):
            for other, row in self.rows.items():
                if name in row.needs and row.status is Status.QUEUED:
                    self.end(other, status)

    def _eligible(self, row: Row) -> bool:
        ready = all(self.rows[name].status is Status.COMPLETE for name in row.needs)
        may = self._running(row.owner) < self._limits.get(row.owner, 1000)
        return row.status is Status.QUEUED and not row.paused and ready and may

    def _running(self, owner: str) -> int:
        own = [row for row in self.rows.values() if row.owner == owner and row.status is Status.IN_PROGRESS]
        return sum(row.task_type != "travel_orchestrator" for row in own)


class History:
    """Random verbs on a store and on the model; at each claim both have to agree."""

    def __init__(self, store: TaskStore, owner_of: Callable[[str], str], limits: dict[str, int], seed: int) -> None:
        self._store, self._owner_of = store, owner_of
        self._chance = random.Random(seed)
        self._order = Order(limits, BOUND)
        self._loaded: dict[str, str | None] = dict.fromkeys(("w0", "w1", "w2"))

    def run(self, steps: int) -> None:
        verbs = {self._add: 8, self._claim: 8, self._end: 5, self._pause: 1, self._resume: 1, self._disturb: 2}
        for verb in self._chance.choices(list(verbs), list(verbs.values()), k=steps):
            verb()
        self._finish()
        for name, row in self._order.rows.items():
            assert self._store.get(name).status is row.status
            assert row.status not in OPEN

    def _add(self) -> None:
        known = [name for name, row in self._order.rows.items() if row.status in (*OPEN, Status.COMPLETE)]
        model, task_type, project = map(self._chance.choice, (("wan", "flux", "ltx", None), TYPES, list(PROJECTS)))
        needs = (self._chance.choice(known),) if known and self._chance.random() < 0.2 else ()
        priority = self._chance.choice([0, 0, 0, 0, 0, 0, 1, -1])
        task = NewTask(
            task_type=task_type, params={"model": model} if model else {}, project_id=project, priority=priority,
            dependant_on=needs,
        )  # fmt: skip
        name = self._store.add(task)
        self._order.rows[name] = Row(self._owner_of(project), priority, model or task_type, task_type, needs)

    def _claim(self) -> None:
        types = self._chance.choice([TYPES, TYPES, TYPES[:1], TYPES[1:]])
        self._claim_as(self._chance.choice(list(self._loaded)), types, self._chance.choice([1, 1, 3]))

    def _claim_as(self, worker: str, types: tuple[str, ...], limit: int) -> int:
        loaded = self._loaded[worker]
        taken = self._store.claim(
            worker, lease_s=FAR_S, limit=limit, loaded_model=loaded, task_types=types,
            affinity=AffinityBound(BOUND, FAR_S),
        )  # fmt: skip
        expected = [self._order.take(worker, loaded, types) for _ in range(limit)]
        assert [task.id for task in taken] == [name for name in expected if name]
        for task in taken:
            self._order.rows[task.id].claimed = task
            self._loaded[worker] = task.model or task.task_type
        return len(taken)

    def _end(self) -> None:
        for name in self._some(Status.IN_PROGRESS, 2):
            claimed = self._order.rows[name].claimed
            assert claimed is not None
            how = self._chance.choice(["complete", "complete", "fail", "release"])
            if how == "complete":
                self._store.complete(claimed.claim, None)
                self._order.end(name, Status.COMPLETE)
            elif how == "fail":
                self._store.fail(claimed.claim, "no", error_class="engine")
                self._order.end(name, Status.FAILED)
            else:
                self._store.release(claimed.claim)
                self._order.end(name, Status.QUEUED)

    def _pause(self) -> None:
        for name in self._some(Status.QUEUED, 3):
            self._store.pause(name)
            self._order.rows[name].paused = True

    def _resume(self) -> None:
        for name in [name for name, row in self._order.rows.items() if row.paused and row.status in OPEN]:
            self._store.resume(name)
            self._order.rows[name].paused = False

    def _disturb(self) -> None:
        for name in self._some(Status.IN_PROGRESS, 1):
            self._store.requeue(name)
            self._order.end(name, Status.QUEUED)
        for name in self._some(Status.QUEUED, 1)[: self._chance.randrange(2)]:
            self._store.cancel(name)
            self._order.end(name, Status.CANCELLED)

    def _finish(self) -> None:
        self._resume()
        while any(row.status in OPEN for row in self._order.rows.values()):
            for name in self._some(Status.IN_PROGRESS, len(self._order.rows)):
                claimed = self._order.rows[name].claimed
                assert claimed is not None
                self._store.complete(claimed.claim, None)
                self._order.end(name, Status.COMPLETE)
            left = any(row.status in OPEN for row in self._order.rows.values())
            assert sum(self._claim_as(worker, TYPES, 1) for worker in self._loaded) or not left

    def _some(self, status: Status, most: int) -> list[str]:
        names = [name for name, row in self._order.rows.items() if row.status is status]
        return self._chance.sample(names, min(most, len(names)))


@pytest.mark.slow
def test_claims_on_sqlite_are_those_of_the_plain_model(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "tasks.db")) as store:
        History(store, lambda project: project, {}, SEED).run(STEPS)


@pytest.mark.slow
def test_claims_on_postgres_are_those_of_the_plain_model(database: Database) -> None:
    with database.acting("service_role") as service:
        for person, limit in PEOPLE.items():
            service.execute("insert into public.users (id, max_in_progress) values (%s, %s)", (person, limit))
        for project, owner in PROJECTS.items():
            service.execute("insert into public.projects (id, user_id) values (%s, %s)", (project, owner))
    History(PostgresStore(database), lambda project: PROJECTS[project] or project, PEOPLE, SEED).run(STEPS)
