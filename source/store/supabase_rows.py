"""What a Supabase project answers, as values."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from source.store.circumstances import Ahead, Circumstances, Owner
from source.store.types import (
    DEFAULT_PROJECT_ID,
    Event,
    HeartbeatReply,
    LogLine,
    OpenState,
    Preview,
    QueueDepth,
    Status,
    Task,
    ThroughputBucket,
    WorkerRow,
    WorkerSample,
)

#: what DEFAULT_PROJECT_ID is called there
DEFAULT_PROJECT = "00000000-0000-0000-0000-000000000000"

_TASK_FIELDS = frozenset(field.name for field in fields(Task))
_WORKER_FIELDS = tuple(field.name for field in fields(WorkerRow))


def task(row: Mapping[str, Any]) -> Task:
    """A row; params that are no JSON object (a front end wrote them) are shown under `unreadable`."""
    values = {name: value for name, value in row.items() if name in _TASK_FIELDS}
    values["status"] = Status(values["status"])
    values["dependant_on"] = tuple(values["dependant_on"])
    if values["project_id"] == DEFAULT_PROJECT:
        values["project_id"] = DEFAULT_PROJECT_ID
    if not isinstance(values.setdefault("params", {}), dict):
        values["params"] = {"unreadable": values["params"]}
    return Task(**values)


def tasks(rows: Sequence[Mapping[str, Any]]) -> list[Task]:
    """Rows, in their order."""
    return [task(row) for row in rows]


def workers(rows: Sequence[Mapping[str, Any]]) -> list[WorkerRow]:
    """Workers, in their order."""
    return [WorkerRow(**{name: row[name] for name in _WORKER_FIELDS}) for row in rows]


def events(rows: Sequence[Mapping[str, Any]]) -> list[Event]:
    """A timeline."""
    return [Event(**row) for row in rows]


def preview(row: Mapping[str, Any] | None) -> Preview | None:
    """A task's preview."""
    return Preview(**{**row, "image": base64.b64decode(row["image"], validate=True)}) if row else None


def logs(lines: Sequence[Mapping[str, Any]]) -> list[LogLine]:
    """Log lines, in their order. Older clients may have written any JSON as metadata."""
    objects = ({**line, "metadata": line["metadata"] if isinstance(line["metadata"], dict) else {}} for line in lines)
    return [LogLine(**line) for line in objects]


def samples(rows: Sequence[Mapping[str, Any]]) -> list[WorkerSample]:
    """Samples of workers, in their order."""
    return [WorkerSample(row["worker_id"], row["at"], row["measured"]) for row in rows]


def queue_depths(rows: Sequence[Mapping[str, Any]]) -> list[QueueDepth]:
    """How many rows are where."""
    return [QueueDepth(OpenState(row["state"]), row["task_type"], row["count"], float(row["oldest_s"])) for row in rows]


def throughput(rows: Sequence[Mapping[str, Any]]) -> list[ThroughputBucket]:
    """What ended, in its order."""
    return [
        ThroughputBucket(row["at"], Status(row["status"]), row["task_type"], row["count"], float(row["seconds"]))
        for row in rows
    ]


def counts(numbers: Mapping[str, int]) -> dict[Status, int]:
    """Rows by status."""
    return {Status(name): number for name, number in numbers.items()}


def texts(ids: Sequence[Any]) -> list[str]:
    """Ids."""
    return [str(each) for each in ids]


def reply(answer: Mapping[str, Any]) -> HeartbeatReply:
    """What a heartbeat hears."""
    return HeartbeatReply(frozenset(answer["lost"]), frozenset(answer["cancel_requested"]))


def circumstances(facts: Mapping[str, Any]) -> Circumstances:
    """What surrounds a row."""
    ahead = facts["ahead"]
    return Circumstances(
        now=facts["now"],
        task=task(facts["task"]),
        passed_over=facts["passed_over"],
        passed_over_since=facts["passed_over_since"],
        needed=tuple(tasks(facts["needed"])),
        missing=tuple(facts["missing"]),
        parent=task(facts["parent"]) if facts["parent"] else None,
        children=tuple(tasks(facts["children"])),
        owner=Owner(**facts["owner"]),
        type_active=facts["type_active"],
        workers=tuple(workers(facts["workers"])),
        running=tuple(tasks(facts["running"])),
        ahead=ahead and Ahead(higher=ahead["higher"], older=ahead["older"], others=tuple(ahead["others"])),
        loaded=facts["loaded"],
    )


def nothing(answer: None) -> None:
    """What is only told has no answer."""


def success(answer: Mapping[str, Any]) -> None:
    """Raises ValueError for an answer that says something else."""
    if answer["success"] is not True:
        raise ValueError(answer["success"])
