"""What surrounds a row: the facts that say why it waits, runs, or ended as it did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from source.store.types import Task, WorkerRow


@dataclass(frozen=True, kw_only=True)
class Owner:
    """Whose row it is: a person, or a project that nobody owns."""

    #: rows that run now; orchestrators and waiting parents do not count
    running: int = 0
    #: None: no limit
    max_in_progress: int | None = None
    #: None: nothing is charged
    credits: float | None = None
    #: whether workers of the service may take its rows
    in_cloud: bool = True


@dataclass(frozen=True, kw_only=True)
class Ahead:
    """Rows that a claim could take before this one."""

    #: of higher priority
    higher: int = 0
    #: older ones of the same owner and priority
    older: int = 0
    #: how many of the same priority each other owner has
    others: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """All of it at one moment. Rows come without their params and result_data."""

    #: by the database's clock, as all times here
    now: str
    task: Task
    #: how often a younger row of a loaded model was taken before it although it was its owner's oldest, and since when
    passed_over: int = 0
    passed_over_since: str | None = None
    #: what it waits for, directly or not: rows that are not Complete, and ids that are no row
    needed: tuple[Task, ...] = ()
    missing: tuple[str, ...] = ()
    parent: Task | None = None
    #: those that are not Complete
    children: tuple[Task, ...] = ()
    owner: Owner = field(default_factory=Owner)
    #: False for a task type that was switched off
    type_active: bool = True
    #: the latest seen first
    workers: tuple[WorkerRow, ...] = ()
    #: rows that run now, of all workers
    running: tuple[Task, ...] = ()
    #: None for a row that is not Queued
    ahead: Ahead | None = None
    #: younger rows of the same owner and priority by model, of the other models that workers have loaded
    loaded: Mapping[str, int] = field(default_factory=dict)
