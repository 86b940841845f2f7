"""Which tasks of the SQLite store a choice means, and how many children a parent has."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from source.store.sqlite_rows import IN_IDS, OF_WORKER, ids, task_of
from source.store.types import Status, Task, TaskFilter

# An orchestrator by its id, or those of a travel by its run_id, with all that came of them.
_RUN = """
WITH RECURSIVE run (id) AS (
    SELECT id FROM tasks WHERE id = :run OR (
        task_type GLOB '*_orchestrator' AND json_valid(params)
        AND json_extract(params, '$.orchestrator_details.run_id') = :run)
    UNION SELECT child.id FROM run CROSS JOIN tasks AS child ON child.parent_id = run.id)
"""

#: where a text is looked for: not in all parameters, for secrets could be guessed from what is found
_SEARCHED = (
    "id", "task_type", "coalesce(model, '')", "coalesce(error_message, '')",
    *(f"CASE WHEN json_valid(params) THEN coalesce(json_extract(params, '$.{name}'), '') ELSE '' END"
      for name in ("prompt", "base_prompt")),
)  # fmt: skip

_CONDITIONS = {
    "statuses": "status IN (SELECT value FROM json_each(:statuses))",
    "task_type": "task_type = :task_type",
    "worker_id": OF_WORKER,
    "error_class": "error_class = :error_class",
    "older_than_s": "created_at <= strftime('%Y-%m-%dT%H:%M:%fZ', 'now', -:older_than_s || ' seconds')",
    "newer_than_s": "created_at >= strftime('%Y-%m-%dT%H:%M:%fZ', 'now', -:newer_than_s || ' seconds')",
    "ended_within_s": "status IN ('Complete', 'Failed', 'Cancelled') AND generation_processed_at >= "
    "strftime('%Y-%m-%dT%H:%M:%fZ', 'now', -:ended_within_s || ' seconds')",
    "run": "id IN run",
    "paused": "paused = :paused",
    "text": f"instr(lower({' || char(10) || '.join(_SEARCHED)}), lower(:text)) > 0",
    "top": "(parent_id IS NULL) = :top",
}


def select(
    db: sqlite3.Connection, chosen: TaskFilter, limit: int, *, newest_first: bool, after: sqlite3.Row | None
) -> list[Task]:
    """The rows for which everything that is given holds, the oldest or the newest first, from behind `after` on."""
    values: dict[str, Any] = {name: value for name, value in chosen.given().items() if value is not None}
    if "statuses" in values:
        values["statuses"] = ids(values["statuses"])
    conditions = [_CONDITIONS[name] for name in values]
    if after is not None:
        conditions.append(
            f"(created_at, rowid) {'<' if newest_first else '>'} "
            "(:after_at, (SELECT rowid FROM tasks WHERE id = :after_id))"
        )
        values |= {"after_at": after["created_at"], "after_id": after["id"]}
    direction = "DESC" if newest_first else "ASC"
    # what ended lately is few rows of a long history, which SQLite does not know
    by = "INDEXED BY tasks_ended" if "ended_within_s" in values else ""
    query = (
        f"{_RUN if chosen.run else ''} SELECT * FROM tasks {by} WHERE {' AND '.join(conditions) or 'TRUE'} "
        f"ORDER BY created_at {direction}, rowid {direction} LIMIT :limit"
    )
    return [task_of(row) for row in db.execute(query, {**values, "limit": max(limit, 0)})]


def ids_like(db: sqlite3.Connection, prefix: str, limit: int) -> list[str]:
    """The ids that begin so, in their order; read from the index. Nothing begins with nothing."""
    if not prefix:
        return []
    query = "SELECT id FROM tasks WHERE id >= ? AND id < ? ORDER BY id LIMIT ?"
    return [found for (found,) in db.execute(query, (prefix, f"{prefix}\U0010ffff", max(limit, 0)))]


def child_counts(db: sqlite3.Connection, parent_ids: Sequence[str]) -> dict[str, dict[Status, int]]:
    """The children of each parent by status."""
    query = f"SELECT parent_id, status, count(*) FROM tasks WHERE parent_id {IN_IDS} GROUP BY parent_id, status"
    found: dict[str, dict[Status, int]] = {}
    for parent_id, status, count in db.execute(query, {"ids": ids(parent_ids)}):
        found.setdefault(parent_id, {})[Status(status)] = count
    return found
