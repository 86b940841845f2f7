"""The tasks table behind one interface."""

from source.store.base import TaskStore
from source.store.types import (
    AffinityBound,
    Claim,
    Event,
    HeartbeatReply,
    LogFilter,
    LogLine,
    NewTask,
    OpenState,
    Preview,
    QueueDepth,
    Status,
    Task,
    TaskFilter,
    ThroughputBucket,
    WorkerRow,
    WorkerSample,
    child_id,
)

__all__ = [
    "AffinityBound",
    "Claim",
    "Event",
    "HeartbeatReply",
    "LogFilter",
    "LogLine",
    "NewTask",
    "OpenState",
    "Preview",
    "QueueDepth",
    "Status",
    "Task",
    "TaskFilter",
    "TaskStore",
    "ThroughputBucket",
    "WorkerRow",
    "WorkerSample",
    "child_id",
]
