"""One run of the chaos on one database: tasks and faults of a plan, the end of all tasks, and the checker's word."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from source.chaos.checker import Asked, Findings, Found, check
from source.chaos.crew import COMMAND, READY_S, Crew
from source.chaos.engine import POISON
from source.chaos.grounds import LISTED, Ground
from source.chaos.history import read_histories
from source.chaos.plan import NOTHING, Fault, Plan, may_fail
from source.errors import InvalidInput, StoreError, TaskNotFound
from source.reporting import persist
from source.store.types import TERMINAL, Event, NewTask, Status, Task

log = logging.getLogger(__name__)

LEASE_S, HEARTBEAT_S, RESCUE_S = 3.0, 0.5, 1.0
MAX_ATTEMPTS = 4
#: a process that stands still does so for longer than its lease
STILL_S = 1.5 * LEASE_S
#: how long what the database stands on is gone
OUTAGE_S = 1.5
LOOK_S = 0.1
#: what the workers get to end all tasks after the last fault
SETTLE_S = 300.0

#: the settings of its workers
QUICK = {
    "LEASE_S": str(LEASE_S), "HEARTBEAT_S": str(HEARTBEAT_S), "RESCUE_INTERVAL_S": str(RESCUE_S),
    "POLL_INTERVAL_S": "0.5", "RETRY_DELAY_S": "0.1", "PROGRESS_INTERVAL_S": "0", "SHUTDOWN_GRACE_S": "1",
    "MAX_ATTEMPTS": str(MAX_ATTEMPTS), "SUPABASE_LOOK_S": "0.5", "MAIN_OUTPUT_DIR": "outputs",
}  # fmt: skip

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """What a run came to."""

    ground: str
    plan: Plan
    workers: int
    findings: Findings
    #: how often each fault was injected
    injected: Mapping[str, int]
    #: traps that sprang, and errors and deaths that the engine was told of
    met: Mapping[str, int]
    #: the traps among them, as they were told
    sprung: Sequence[str]
    starts: int
    seconds: float
    #: of the workers at the end
    exit_codes: Sequence[int]

    @property
    def well(self) -> bool:
        """No violation, and every worker left in order at the end."""
        return not self.findings.violations and set(self.exit_codes) <= {0}


@dataclass
class _Asked:
    accepted: set[str] = field(default_factory=set)
    cancelled: set[str] = field(default_factory=set)
    injected: Counter[str] = field(default_factory=Counter)


def run(
    ground: Ground, plan: Plan, workers: int, folder: Path, tell: Tell, command: Sequence[str] = COMMAND
) -> Outcome:
    """Carry the plan out, and check. `folder` keeps histories and logs. Raises StoreError and OSError."""
    began = time.monotonic()
    crew = Crew(folder, workers, QUICK | dict(ground.environment), plan.trap, STILL_S, command)
    try:
        asked = _Run(ground, plan, crew, tell).carried_out()
        codes = crew.leave()
    finally:
        crew.end()
    history = read_histories(crew.histories)
    found = found_in(ground, asked.accepted)
    findings = check(
        Asked(
            frozenset(asked.accepted), frozenset(asked.cancelled), may_fail(plan.tasks()), MAX_ATTEMPTS,
            sum(asked.injected.values()),
        ),
        found, history,
    )  # fmt: skip
    met = [record.detail for record in history if record.name == "misfortune"]
    sprung = [detail.removeprefix("trap ") for detail in met if detail.startswith("trap ")]
    return Outcome(
        ground.name, plan, workers, findings, asked.injected, Counter(detail.split()[0] for detail in met), sprung,
        crew.starts, time.monotonic() - began, codes,
    )  # fmt: skip


class _Run:
    """The faults, one after another, and then the quiet in which everything must come to its end."""

    def __init__(self, ground: Ground, plan: Plan, crew: Crew, tell: Tell) -> None:
        self._ground, self._store, self._crew, self._plan, self._tell = ground, ground.store, crew, plan, tell
        self._asked = _Asked()
        self._never = threading.Event()

    def carried_out(self) -> _Asked:
        """Returns what was asked of the database. Raises StoreError when it does not come back."""
        for number, fault in enumerate(self._plan.faults, 1):
            self._tell(f"{self._ground.name}: fault {number} of {len(self._plan.faults)}: {fault.kind}")
            self._add(fault.tasks)
            self._never.wait(fault.pause_s)
            self._inject(fault)
            self._asked.injected[fault.kind] += fault.kind != NOTHING
        self._ground.heal()
        self._await_the_end()
        return self._asked

    def _add(self, tasks: Sequence[NewTask]) -> None:
        for task in tasks:
            try:
                persist(lambda task=task: self._store.add(task), self._never)  # type: ignore[misc]
            except InvalidInput:  # what it depends on has failed or was cancelled by now
                alone = NewTask(task_type=task.task_type, params=task.params, id=task.id, project_id=task.project_id)
                persist(lambda alone=alone: self._store.add(alone), self._never)  # type: ignore[misc]
            self._asked.accepted.add(task.id)

    def _inject(self, fault: Fault) -> None:
        if fault.kind in self._ground.faults:
            self._ground.faults[fault.kind]()
            self._never.wait(OUTAGE_S)
            self._ground.heal()
        elif fault.kind == NOTHING:
            return
        elif fault.kind == "cancel":
            self._cancel(fault)
        elif fault.kind == "retry":
            self._retry(fault)
        else:
            getattr(self._crew, fault.kind)(self._ready_worker(fault.worker))

    def _cancel(self, fault: Fault) -> None:
        if task := self._picked(fault, *(status for status in Status if status not in TERMINAL)):
            self._asked.cancelled.add(task.id)
            persist(lambda: self._store.cancel(task.id), self._never)

    def _retry(self, fault: Fault) -> None:
        """One that may end better: not a poisonous one. Somebody else may have been quicker."""
        task = self._picked(fault, Status.FAILED)
        if task and task.params.get("misfortune") != POISON:
            with suppress(InvalidInput):
                persist(lambda: self._store.retry(task.id), self._never)

    def _picked(self, fault: Fault, *statuses: Status) -> Task | None:
        """One of the chaos's own tasks."""
        rows = [row for status in statuses for row in persist(lambda s=status: self._listed(s), self._never)]  # type: ignore[misc]
        rows = sorted((row for row in rows if row.id in self._asked.accepted), key=lambda row: row.id)
        return rows[int(fault.pick * len(rows))] if rows else None

    def _listed(self, status: Status) -> list[Task]:
        return self._store.tasks(status=status, limit=LISTED)

    def _ready_worker(self, wanted: int) -> int:
        """The wanted one, or the next one that has done something since its start."""
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            order = [(wanted + further) % self._crew.size for further in range(self._crew.size)]
            if ready := [worker for worker in order if self._crew.ready(worker)]:
                return ready[0]
            if self._crew.hopeless():
                raise StoreError(f"no worker comes up; {self._crew.log(wanted)} says why")
            self._never.wait(LOOK_S)
        return wanted

    def _await_the_end(self) -> None:
        """Until no task is left that could change; a task that never ends is lost, and the checker says so."""
        self._tell(f"{self._ground.name}: waiting for the last tasks")
        deadline = time.monotonic() + SETTLE_S
        while time.monotonic() < deadline:
            self._never.wait(5 * LOOK_S)
            with suppress(StoreError):
                if self._store.idle():
                    return


def found_in(ground: Ground, accepted: Collection[str]) -> Found:
    """What the checker compares. Of an own database all rows, else the accepted ones and their children."""
    rows: dict[str, Task] = {}
    for task_id in sorted(accepted):
        with suppress(TaskNotFound):
            rows[task_id] = ground.store.get(task_id)
            rows |= {child.id: child for child in ground.store.children(task_id)}
    if ground.own:
        rows |= {row.id: row for row in ground.store.tasks(limit=LISTED)}
    timelines: dict[str, Sequence[Event]] = {task_id: ground.store.events(task_id) for task_id in rows}
    return Found(rows, timelines, ground.digest)
