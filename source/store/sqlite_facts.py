"""What workers leave beside the tasks of the SQLite store: their rows, samples and log lines; and what ended when.
Writes are inside the caller's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from source.store.encoding import encoded, plain
from source.store.sqlite_claiming import ELIGIBLE
from source.store.sqlite_rows import EARLIER, NOW, OF_WORKER, ids, json_object
from source.store.types import (
    LogFilter,
    LogLine,
    OpenState,
    QueueDepth,
    Retention,
    Status,
    ThroughputBucket,
    WorkerSample,
)

_SEEN = f"""
INSERT INTO workers (id, status, last_heartbeat, current_model, metadata)
VALUES (:id, :status, {NOW}, :current_model, :metadata)
ON CONFLICT (id) DO UPDATE SET status = excluded.status, last_heartbeat = excluded.last_heartbeat,
    current_model = excluded.current_model, metadata = json_patch(metadata, excluded.metadata)
"""
_ADD_SAMPLE = f"INSERT INTO worker_samples (worker_id, at, measured) VALUES (?, {NOW}, ?)"
_ADD_LINE = """
INSERT INTO log_lines (at, level, message, worker_id, task_id, metadata)
VALUES (:timestamp, :level, :message, :worker_id, :task_id, :metadata)
"""

#: rows that one heartbeat removes at most, of each kind: claims wait for it
PRUNED = 1000
# Lines are numbered as they come, so that the oldest are found without counting.
_PRUNE = (
    f"DELETE FROM log_lines WHERE id IN (SELECT id FROM log_lines WHERE at < {EARLIER} ORDER BY at LIMIT {PRUNED})",
    "DELETE FROM log_lines WHERE id IN (SELECT id FROM log_lines WHERE id <= (SELECT max(id) FROM log_lines) - :lines"
    f" ORDER BY id LIMIT {PRUNED})",
    f"DELETE FROM worker_samples WHERE id IN (SELECT id FROM worker_samples WHERE at < {EARLIER}"
    f" ORDER BY at LIMIT {PRUNED})",
)
_PRUNE_WORKERS = f"DELETE FROM workers WHERE last_heartbeat < {EARLIER}"

_LINE_CONDITIONS = {
    "task_id": "task_id = :task_id",
    "worker_id": OF_WORKER,
    "levels": "level IN (SELECT value FROM json_each(:levels))",
    "since_s": f"at >= {EARLIER}",
    "text": "instr(lower(message), lower(:text))",
}

_THROUGHPUT = f"""
SELECT strftime('%Y-%m-%dT%H:%M:%fZ', span * :bucket_s, 'unixepoch') AS at, status, task_type, count(*) AS count,
       coalesce(sum(seconds), 0.0) AS seconds
FROM (SELECT CAST(strftime('%s', generation_processed_at) AS INTEGER) / :bucket_s AS span, status, task_type,
             max(julianday(generation_processed_at) - julianday(generation_started_at), 0) * 86400 AS seconds
      FROM tasks INDEXED BY tasks_ended
      WHERE status IN ('Complete', 'Failed', 'Cancelled') AND generation_processed_at >= {EARLIER})
GROUP BY span, status, task_type ORDER BY span, status, task_type
"""

_DEPTHS = f"""
SELECT CASE WHEN status = 'In Progress' THEN CASE waiting WHEN 1 THEN 'waiting' ELSE 'running' END
            WHEN paused THEN 'paused' WHEN {ELIGIBLE} THEN 'claimable' ELSE 'blocked' END AS state,
       task_type, count(*) AS count, max((julianday('now') - julianday(min(created_at))) * 86400, 0) AS oldest_s
FROM tasks AS task INDEXED BY tasks_by_status WHERE status IN ('Queued', 'In Progress') GROUP BY 1, 2 ORDER BY 1, 2
"""


def seen(
    worker_id: str, status: str, current_model: str | None, metadata: Mapping[str, Any] | None
) -> dict[str, str | None]:
    """A worker's row as `keep` takes it. Raises InvalidInput for metadata that are no JSON."""
    facts = encoded(metadata or {}, "metadata")
    return {"id": worker_id, "status": status, "current_model": current_model, "metadata": facts}


def keep(
    db: sqlite3.Connection, worker: dict[str, str | None], sample: Mapping[str, Any] | None,
    lines: Sequence[Mapping[str, Any]], retention: Retention,
) -> None:  # fmt: skip
    """What a heartbeat brings; and remove a little of what is older than `retention`. Rows of workers are looked
    through when a new one comes: there are few."""
    new = db.execute("SELECT 1 FROM workers WHERE id = ?", (worker["id"],)).fetchone() is None
    db.execute(_SEEN, worker)
    if sample is not None:
        db.execute(_ADD_SAMPLE, (worker["id"], encoded(sample, "sample")))
    db.executemany(_ADD_LINE, [_line(entry, worker["id"]) for entry in lines])
    for statement, kept_s in zip(
        _PRUNE, (retention.log_days * 86_400, None, retention.sample_hours * 3600), strict=True
    ):
        db.execute(statement, {"since_s": kept_s, "lines": retention.log_lines})
    if new:
        db.execute(_PRUNE_WORKERS, {"since_s": retention.worker_days * 86_400})


def _line(entry: Mapping[str, Any], worker_id: str | None) -> dict[str, str | None]:
    return {
        "timestamp": entry["timestamp"],
        "level": entry["level"],
        "message": plain(entry["message"]),
        "worker_id": worker_id,
        "task_id": entry.get("task_id"),
        "metadata": encoded(entry.get("metadata", {}), "metadata"),
    }


def logs(db: sqlite3.Connection, chosen: LogFilter, limit: int) -> list[LogLine]:
    """The newest lines that `chosen` means, oldest first."""
    levels = chosen.levels
    values = {"task_id": chosen.task_id, "worker_id": chosen.worker_id, "since_s": chosen.since_s, "text": chosen.text}
    values |= {"levels": None if levels is None else ids(levels)}
    given = {name: value for name, value in values.items() if value is not None}
    where = " AND ".join(_LINE_CONDITIONS[name] for name in given) or "TRUE"
    query = f"SELECT * FROM log_lines WHERE {where} ORDER BY at DESC, id DESC LIMIT :limit"
    return [
        LogLine(
            row["at"], row["level"], row["message"], row["worker_id"], row["task_id"],
            json_object(row["metadata"]) or {},
        )
        for row in reversed(db.execute(query, {**given, "limit": max(limit, 0)}).fetchall())
    ]  # fmt: skip


def samples(db: sqlite3.Connection, worker_id: str | None, since_s: float, limit: int) -> list[WorkerSample]:
    """The newest ones, oldest first."""
    of_worker = f"AND {OF_WORKER}" if worker_id is not None else ""
    rows = db.execute(
        f"SELECT worker_id, at, measured FROM worker_samples WHERE at >= {EARLIER} {of_worker}"
        " ORDER BY at DESC, id DESC LIMIT :limit",
        {"since_s": since_s, "worker_id": worker_id, "limit": max(limit, 0)},
    ).fetchall()
    return [WorkerSample(row["worker_id"], row["at"], json_object(row["measured"]) or {}) for row in reversed(rows)]


def queue_depths(db: sqlite3.Connection) -> list[QueueDepth]:
    """The rows that have not ended, by state and type."""
    return [
        QueueDepth(OpenState(row["state"]), row["task_type"], row["count"], round(row["oldest_s"], 3))
        for row in db.execute(_DEPTHS)
    ]


def throughput(db: sqlite3.Connection, since_s: float, bucket_s: int) -> list[ThroughputBucket]:
    """What ended, by span, status and type."""
    rows = db.execute(_THROUGHPUT, {"since_s": since_s, "bucket_s": bucket_s})
    return [
        ThroughputBucket(row["at"], Status(row["status"]), row["task_type"], row["count"], round(row["seconds"], 3))
        for row in rows
    ]
