"""The tasks table behind one interface."""

from source.store.base import TaskStore
from source.store.types import (
    AffinityBound,
    Claim,
    Event,
    HeartbeatReply,
    NewTask,
    Preview,
    Status,
    Task,
    TaskFilter,
    WorkerRow,
    child_id,
)

__all__ = [
    "AffinityBound",
    "Claim",
    "Event",
    "HeartbeatReply",
    "NewTask",
    "Preview",
    "Status",
    "Task",
    "TaskFilter",
    "TaskStore",
    "WorkerRow",
    "child_id",
]
