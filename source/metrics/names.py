"""Every metric: its name, what it means, its labels. docs/monitoring.md is made from this table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PREFIX = "headless_wan2gp_"
Kind = Literal["counter", "gauge", "histogram"]
#: what stands for task types that this program does not know: a label must not grow with what people write
OTHER = "other"


@dataclass(frozen=True)
class Metric:
    """One of them. A counter's name lacks its `_total` here."""

    short_name: str
    kind: Kind
    meaning: str
    labels: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """In full."""
        return PREFIX + self.short_name

    @property
    def exposed(self) -> str:
        """As queries name it."""
        return self.name + {"counter": "_total", "gauge": "", "histogram": "_bucket"}[self.kind]


CLAIMS = Metric("claims", "counter", "tasks claimed", ("task_type",))
TASKS_ENDED = Metric(
    "tasks_ended", "counter", "tasks that this worker ended as Complete, Failed or Cancelled", ("status", "task_type")
)
TASKS_REQUEUED = Metric(
    "tasks_requeued", "counter",
    "tasks that went back to the queue: `retry` after a failure, `release` at a shutdown or a lost GPU", ("reason",),
)  # fmt: skip
FAILURES = Metric("failures", "counter", "attempts that failed, by the class of the error", ("error_class",))
STAGE_SECONDS = Metric(
    "stage_duration_seconds", "histogram",
    "what tasks spent in each stage, once a claim: prepare, queue, load, encode, denoise, decode, save, upload, other",
    ("stage",),
)  # fmt: skip
HEARTBEATS = Metric("heartbeats", "counter", "heartbeats that reached the database")
HEARTBEATS_FAILED = Metric("heartbeats_failed", "counter", "heartbeats that did not")
LAST_HEARTBEAT = Metric("last_heartbeat_timestamp_seconds", "gauge", "when the last one reached it; 0 before the first")
LEASES_LOST = Metric("leases_lost", "counter", "claims that turned out to be somebody else's by now, or ended")
GPU_SECONDS = Metric(
    "gpu_seconds", "counter",
    "what the GPU's thread did with each second: load, encode, denoise, decode, save, lent, idle_waiting, idle_no_task",
    ("activity",),
)  # fmt: skip
MODEL_LOADS = Metric("model_loads", "counter", "models loaded, each in the place of another")
LANE_TASKS = Metric("lane_tasks", "gauge", "claimed tasks being prepared, on the GPU, being finished", ("lane",))
GPU_MEMORY_USED = Metric("gpu_memory_used_bytes", "gauge", "of the whole device, other programs included")
GPU_MEMORY_TOTAL = Metric("gpu_memory_total_bytes", "gauge", "of the whole device")
GPU_UTILIZATION = Metric("gpu_utilization_ratio", "gauge", "share of a recent second in which the GPU ran something")
OUTBOX_PARCELS = Metric("outbox_parcels", "gauge", "finished results in the outbox that were not acknowledged yet")
CLAIMING_PAUSED = Metric("claiming_paused", "gauge", "1 while nothing is claimed for want of room on a disk")
LOG_LINES_DROPPED = Metric("log_lines_dropped", "counter", "log lines that could not be sent to the database in time")
WORKER_INFO = Metric("worker_info", "gauge", "1; says which worker this is", ("worker_id", "version"))

#: of a worker
WORKER = (
    CLAIMS, TASKS_ENDED, TASKS_REQUEUED, FAILURES, STAGE_SECONDS, HEARTBEATS, HEARTBEATS_FAILED, LAST_HEARTBEAT,
    LEASES_LOST, GPU_SECONDS, MODEL_LOADS, LANE_TASKS, GPU_MEMORY_USED, GPU_MEMORY_TOTAL, GPU_UTILIZATION,
    OUTBOX_PARCELS, CLAIMING_PAUSED, LOG_LINES_DROPPED, WORKER_INFO,
)  # fmt: skip

QUEUE_TASKS = Metric(
    "queue_tasks", "gauge",
    "open tasks: claimable, blocked (by a dependency or run_after), paused, running, waiting (for their children)",
    ("state", "task_type"),
)  # fmt: skip
QUEUE_OLDEST = Metric("queue_oldest_age_seconds", "gauge", "age of the oldest of them, since it was added", ("state",))
TASKS = Metric("tasks", "gauge", "all rows by status", ("status",))
WORKERS = Metric(
    "workers", "gauge", "workers by the age of their last heartbeat: healthy, late, stale; and stopped", ("health",)
)
ENDED_LAST_HOUR = Metric("tasks_ended_last_hour", "gauge", "tasks that ended within an hour", ("status", "task_type"))
ENDED_SECONDS = Metric(
    "tasks_ended_last_hour_seconds", "gauge", "from the begin of their generation to their end, all of them together",
    ("status", "task_type"),
)  # fmt: skip

#: of a database
DATABASE = (QUEUE_TASKS, QUEUE_OLDEST, TASKS, WORKERS, ENDED_LAST_HOUR, ENDED_SECONDS)
