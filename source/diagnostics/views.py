"""Rows as plain JSON values, without secrets: what every page of debug.py, and of the web, is made of.

`task.task_view` is one task with all that is known of it, `tasks.tasks_view` a list of them, `worker.worker_view` one
worker, `workers.workers_view` all of them, `health.health_view` the installation, `logs.logs_view` log lines.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from source.redaction import hidden, redact_values, secrets_in
from source.store.types import Status, Task

View = dict[str, Any]

LIST_KEYS = (
    "id", "task_type", "status", "paused", "waiting", "attempts", "priority", "worker_id", "model", "output_location",
    "error_message", "error_class", "progress", "parent_id", "child_key", "created_at", "claimed_at",
    "generation_started_at", "generation_processed_at",
)  # fmt: skip
#: phases after the frames are there
_MADE = frozenset({"decoding", "saving", "finishing", "publishing", "uploading", "stitching", "splicing"})


def picked(row: object, keys: Iterable[str]) -> View:
    """Those attributes of a row, redacted; also what another program quoted of the secrets in its parameters."""
    with hidden(secrets_in(getattr(row, "params", None))):
        return {key: redact_values(getattr(row, key)) for key in keys}


def seconds_between(start: str | None, end: str | None) -> float | None:
    """Between two times of the database; None when one is missing."""
    if not start or not end:
        return None
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def time_of(moment: datetime) -> str:
    """As the database writes it."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds_at_work(row: Task, now: str | None = None) -> float | None:
    """From the start of the generation, or where there is none from the claim, to the end, or to `now`."""
    end = row.generation_processed_at if row.terminal else now
    return seconds_between(row.generation_started_at or row.claimed_at, end)


def share_done(row: Task) -> float:
    """How much of a row is done, 0 to 1: by the denoising steps of all its windows, which nearly all of the time goes
    to; 1 for one that ended well."""
    if row.status is Status.COMPLETE:
        return 1.0
    progress = row.progress or {}
    phase, fraction = progress.get("phase"), float(progress.get("fraction") or 0.0)
    if row.status is not Status.IN_PROGRESS:
        return 0.0
    if phase in _MADE:
        return 1.0
    if phase not in ("denoising", "generating"):
        return 0.0
    windows = max(int(progress.get("windows") or 1), 1)
    before = max(int(progress.get("window") or 1), 1) - 1
    return min((before + fraction) / windows, 1.0)
