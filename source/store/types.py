"""What the store hands out and takes in: plain frozen values, the same for every backend."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Any

from source.errors import InvalidInput

DEFAULT_PROJECT_ID = "default_project_id"


class Status(StrEnum):
    """The state of a row. The values are what front ends read and write."""

    QUEUED = "Queued"
    IN_PROGRESS = "In Progress"
    COMPLETE = "Complete"
    FAILED = "Failed"
    CANCELLED = "Cancelled"


TERMINAL: frozenset[Status] = frozenset({Status.COMPLETE, Status.FAILED, Status.CANCELLED})
UNSUCCESSFUL: frozenset[Status] = frozenset({Status.FAILED, Status.CANCELLED})


#: what a row may ask for at most, whoever writes it (larger numbers are not exact in every JSON)
MAX_PRIORITY, MAX_DEPENDENCIES = 2**53 - 1, 1000


#: what a preview may take, and as what
MAX_PREVIEW_BYTES, PREVIEW_MEDIA_TYPES = 32 * 1024, frozenset({"image/webp", "image/png", "image/jpeg"})


def new_id() -> str:
    return str(uuid.uuid4())


def child_id(parent_id: str, child_key: str) -> str:
    """The derived id of a child (`child_key` is "role:index"), so that a repeated fan-out adds nothing.

    A parent's id that is no UUID (a front end chose it) is made one first.
    """
    try:
        namespace = uuid.UUID(parent_id)
    except ValueError:
        namespace = uuid.uuid5(uuid.NAMESPACE_OID, parent_id)
    return str(uuid.uuid5(namespace, child_key))


def model_of(params: Mapping[str, Any]) -> str | None:
    """The model a row asks for: model_name, then orchestrator_details.model_name, then model."""
    details = params.get("orchestrator_details")
    nested = details.get("model_name") if isinstance(details, Mapping) else None
    for name in (params.get("model_name"), nested, params.get("model")):
        if isinstance(name, str) and name:
            return name
    return None


def affinity_key(model: str | None, task_type: str) -> str:
    """What tells rows that want the same model loaded: their model, or their type where the type implies it."""
    return model or task_type


#: loads that the rows of another model are made to wait for, at least
LOADS_WAITED = 3


@dataclass(frozen=True)
class AffinityBound:
    """How far rows of the loaded model may go before an older one of the same owner and priority."""

    #: rows that may go before it
    tasks: int = 8
    #: seconds since the first of them
    wait_s: float = 300.0

    def over_loads(self, seconds: Iterable[float]) -> AffinityBound:
        """Where loads of models took so long: a switch that takes long is put off for longer."""
        return replace(self, wait_s=max(self.wait_s, LOADS_WAITED * max(seconds, default=0.0)))


USUAL_AFFINITY = AffinityBound()


@dataclass(frozen=True, kw_only=True)
class NewTask:
    """A row to insert."""

    task_type: str
    params: Mapping[str, Any]
    id: str = field(default_factory=new_id)
    dependant_on: tuple[str, ...] = ()
    project_id: str = DEFAULT_PROJECT_ID
    priority: int = 0
    parent_id: str | None = None
    #: "role:index", unique within the parent
    child_key: str | None = None

    @classmethod
    def child(
        cls, parent: Task, key: str, task_type: str, params: Mapping[str, Any], dependant_on: tuple[str, ...] = ()
    ) -> NewTask:
        """A child of `parent`, with a derived id and the parent's project and priority."""
        return cls(
            id=child_id(parent.id, key),
            task_type=task_type,
            params=params,
            dependant_on=dependant_on,
            parent_id=parent.id,
            child_key=key,
            project_id=parent.project_id,
            priority=parent.priority,
        )


@dataclass(frozen=True)
class Claim:
    """Proof of a claim. Every write of a worker carries one and is refused when it is stale."""

    task_id: str
    worker_id: str
    #: rises at every claim of the row: the fencing token
    claim_number: int


@dataclass(frozen=True, kw_only=True)
class Task:
    """A row as it was read. Times are `YYYY-MM-DDTHH:MM:SS.mmmZ`, by the database's clock."""

    id: str
    task_type: str
    params: Mapping[str, Any]
    status: Status
    dependant_on: tuple[str, ...] = ()
    output_location: str | None = None
    created_at: str
    updated_at: str | None = None
    generation_started_at: str | None = None
    generation_processed_at: str | None = None
    project_id: str = DEFAULT_PROJECT_ID
    worker_id: str | None = None
    claimed_at: str | None = None
    claim_number: int = 0
    #: failures and deaths so far: the retry budget
    attempts: int = 0
    lease_expires_at: str | None = None
    run_after: str | None = None
    priority: int = 0
    #: an orchestrator that has fanned out and waits for its children, without a lease
    waiting: bool = False
    paused: bool = False
    parent_id: str | None = None
    child_key: str | None = None
    model: str | None = None
    progress: Mapping[str, Any] | None = None
    result_data: Mapping[str, Any] | None = None
    error_message: str | None = None
    error_class: str | None = None
    cancel_requested: bool = False

    @property
    def claim(self) -> Claim:
        return Claim(self.id, self.worker_id or "", self.claim_number)

    @property
    def terminal(self) -> bool:
        return self.status in TERMINAL


@dataclass(frozen=True, kw_only=True)
class TaskFilter:
    """Which tasks: those for which everything that is given holds."""

    statuses: tuple[Status, ...] | None = None
    task_type: str | None = None
    #: a worker's id, or the name that it was given (every start of it)
    worker_id: str | None = None
    error_class: str | None = None
    #: seconds since the row was added: at least, and at most
    older_than_s: float | None = None
    newer_than_s: float | None = None
    #: seconds since it ended, at most
    ended_within_s: float | None = None
    #: the id of an orchestrator, or the run_id of a travel: with all that came of it
    run: str | None = None
    paused: bool | None = None
    #: a part of the id, type, model, error message or prompt; ASCII letters in any case
    text: str | None = None
    #: whether it is nobody's child
    top: bool | None = None

    def given(self) -> dict[str, Any]:
        """The conditions by name; None where nothing was asked."""
        return {each.name: getattr(self, each.name) for each in fields(self)}


@dataclass(frozen=True)
class Event:
    """One entry of a task's timeline."""

    task_id: str
    at: str
    #: queued, claimed, fanned_out, progress…, complete, failed, retry, released, rescued, requeued,
    #: paused, resumed, cancelled
    name: str
    worker_id: str | None = None
    claim_number: int | None = None
    detail: str | None = None


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What a task that runs looks like so far."""

    task_id: str
    #: of the claim under which it was made
    claim_number: int
    at: str
    #: the denoising step after which it was made, counted from 1
    step: int
    #: one of PREVIEW_MEDIA_TYPES; a WebP of a video is animated
    media_type: str
    #: the file, MAX_PREVIEW_BYTES at most
    image: bytes = field(repr=False)


@dataclass(frozen=True)
class HeartbeatReply:
    """What a worker learns from its heartbeat."""

    #: task ids whose claim is no longer ours: stop working on them, write nothing
    lost: frozenset[str]
    #: task ids whose cancellation was asked for
    cancel_requested: frozenset[str]


@dataclass(frozen=True)
class WorkerRow:
    """A row of the workers table."""

    id: str
    status: str
    last_heartbeat: str | None
    current_model: str | None
    created_at: str
    #: what the worker says of itself: load_s (seconds by model), takes_first (the affinity key of its next claim) …
    metadata: Mapping[str, Any] = field(default_factory=dict)


#: of log lines, least to most
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


@dataclass(frozen=True)
class LogLine:
    """A line that a worker logged."""

    #: when it was logged, by the worker's clock: it came to the database with a later heartbeat
    at: str
    level: str
    message: str
    worker_id: str | None = None
    task_id: str | None = None
    #: logger, thread …
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class LogFilter:
    """Which log lines: those for which everything that is given holds."""

    task_id: str | None = None
    #: a worker's id, or the name that it was given (every start of it)
    worker_id: str | None = None
    #: the least of `LEVELS`
    level: str | None = None
    #: seconds before now, by the database's clock
    since_s: float | None = None
    #: part of the message, in any case
    text: str | None = None

    @property
    def levels(self) -> tuple[str, ...] | None:
        """The levels that are meant; None for all of them. Raises InvalidInput for one that does not exist."""
        if self.level is None:
            return None
        if self.level.upper() not in LEVELS:
            raise InvalidInput(f"{self.level!r} is no level; there are {', '.join(LEVELS)}", field="level")
        return LEVELS[LEVELS.index(self.level.upper()) :]


@dataclass(frozen=True)
class WorkerSample:
    """How a worker was doing at one moment."""

    worker_id: str
    #: by the database's clock
    at: str
    #: as `source.metrics.samples.measured` has it: gpu_utilization, gpu_memory_used, rss, gpu_seconds …
    values: Mapping[str, Any]


@dataclass(frozen=True)
class ThroughputBucket:
    """Rows of one type that ended one way within one span of time."""

    #: its begin: a multiple of its length since 1970
    at: str
    status: Status
    task_type: str
    count: int
    #: from generation_started_at to the end, all of them together
    seconds: float


class OpenState(StrEnum):
    """Where a row is that has not ended."""

    #: nothing of its own holds it back: the next free worker may take it
    CLAIMABLE = "claimable"
    #: a dependency is not complete, or its run_after has not come
    BLOCKED = "blocked"
    PAUSED = "paused"
    RUNNING = "running"
    #: for its children
    WAITING = "waiting"


@dataclass(frozen=True)
class QueueDepth:
    """Rows of one type in one state."""

    state: OpenState
    task_type: str
    count: int
    #: seconds since the oldest of them was added, by the database's clock
    oldest_s: float


@dataclass(frozen=True)
class Retention:
    """How long a SQLite file keeps what is written beside the tasks. (A project's database has its own, by SQL.)"""

    log_lines: int = 100_000
    log_days: float = 7.0
    sample_hours: float = 24.0
    #: since the last heartbeat of a worker
    worker_days: float = 30.0


USUAL_RETENTION = Retention()
