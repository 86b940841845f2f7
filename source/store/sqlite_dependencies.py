"""Adding rows to the SQLite store, and the check that what they depend on can ever be satisfied."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any

from source.errors import InvalidInput
from source.store.encoding import encoded
from source.store.sqlite_rows import IN_IDS, ids
from source.store.types import MAX_DEPENDENCIES, MAX_PRIORITY, UNSUCCESSFUL, NewTask, model_of

_INSERT = """
INSERT INTO tasks (id, task_type, params, dependant_on, project_id, priority, parent_id, child_key, model)
VALUES (:id, :task_type, :params, :dependant_on, :project_id, :priority, :parent_id, :child_key, :model)
"""

# What open rows wait for, from the rows :ids on: their dependencies, and a parent for its children. (CROSS JOIN keeps
# SQLite from turning a join around and reading the whole table.)
_WAITS = """
WITH RECURSIVE reached (id) AS (
    SELECT id FROM tasks WHERE id IN (SELECT value FROM json_each(:ids)) AND +status IN ('Queued', 'In Progress')
    UNION SELECT needed.id FROM reached CROSS JOIN task_dependencies AS edge ON edge.task_id = reached.id
    JOIN tasks AS needed ON needed.id = edge.depends_on WHERE +needed.status IN ('Queued', 'In Progress')
    UNION SELECT child.id FROM reached CROSS JOIN tasks AS child ON child.parent_id = reached.id
    WHERE child.status IN ('Queued', 'In Progress')
)
SELECT edge.task_id AS waiter, edge.depends_on AS needed
FROM reached CROSS JOIN task_dependencies AS edge ON edge.task_id = reached.id
UNION ALL
SELECT child.parent_id, child.id FROM reached CROSS JOIN tasks AS child ON child.parent_id = reached.id
WHERE child.status IN ('Queued', 'In Progress')
"""

_QUEUED_EDGES = """
SELECT task.id AS waiter, edge.depends_on AS needed
FROM tasks AS task JOIN task_dependencies AS edge ON edge.task_id = task.id
JOIN tasks AS needed ON needed.id = edge.depends_on
WHERE task.status = 'Queued' AND needed.status = 'Queued'
"""


def insert(db: sqlite3.Connection, tasks: Sequence[NewTask]) -> list[str]:
    """Insert the rows that do not exist yet, inside the caller's transaction. Returns all ids in order.

    Raises InvalidInput, as `TaskStore.add_many` says.
    """
    _check_bounds(tasks)
    stored = _status_by_id(db, (task.id for task in tasks))
    fresh = list({task.id: task for task in reversed(tasks) if task.id not in stored}.values())[::-1]
    _check_dependencies(db, fresh)
    _check_cycles(db, fresh)
    for task in fresh:
        try:
            db.execute(_INSERT, _columns(task))
        except sqlite3.IntegrityError as error:
            raise InvalidInput(f"task {task.id} ({task.task_type}) cannot be added: {error}") from error
    return [task.id for task in tasks]


def queued_cycle(db: sqlite3.Connection) -> list[str]:
    """The ids of one cycle among queued rows, or nothing. Only rows written from outside can form one."""
    return _cycle(_graph(db.execute(_QUEUED_EDGES)))


def _columns(task: NewTask) -> dict[str, Any]:
    return {
        "id": task.id,
        "task_type": task.task_type,
        "params": encoded(task.params, "params"),
        "dependant_on": ids(task.dependant_on) if task.dependant_on else None,
        "project_id": task.project_id,
        "priority": task.priority,
        "parent_id": task.parent_id,
        "child_key": task.child_key,
        "model": model_of(task.params),
    }


def _status_by_id(db: sqlite3.Connection, task_ids: Iterable[str]) -> dict[str, str]:
    rows = db.execute(f"SELECT id, status FROM tasks WHERE id {IN_IDS}", {"ids": ids(task_ids)})
    return {row["id"]: row["status"] for row in rows}


def _check_bounds(tasks: Sequence[NewTask]) -> None:
    for task in tasks:
        if abs(task.priority) > MAX_PRIORITY:
            raise InvalidInput(
                f"must be between {-MAX_PRIORITY} and {MAX_PRIORITY}, not {task.priority}", field="priority"
            )
        if len(task.dependant_on) > MAX_DEPENDENCIES:
            raise InvalidInput(f"a task may depend on {MAX_DEPENDENCIES} others at most", field="dependant_on")


def _check_dependencies(db: sqlite3.Connection, tasks: Sequence[NewTask]) -> None:
    new = {task.id for task in tasks}
    wanted = {dependency for task in tasks for dependency in task.dependant_on} - new
    stored = _status_by_id(db, wanted)
    for task in tasks:
        for dependency in task.dependant_on:
            if dependency in new:
                continue
            if dependency not in stored:
                raise InvalidInput(
                    f"there is no task {dependency}; add it first, or in the same call", field="dependant_on"
                )
            if stored[dependency] in UNSUCCESSFUL:
                raise InvalidInput(
                    f"task {dependency} is {stored[dependency]}, so {task.task_type} {task.id} could never run;"
                    " retry that task first, or depend on another",
                    field="dependant_on",
                )


def _check_cycles(db: sqlite3.Connection, tasks: Sequence[NewTask]) -> None:
    """Refuse rows that would wait for themselves. A parent waits for its children, so that counts as an edge too."""
    graph: dict[str, set[str]] = {}
    for task in tasks:
        graph.setdefault(task.id, set()).update(task.dependant_on)
        if task.parent_id:
            graph.setdefault(task.parent_id, set()).add(task.id)
    new = {task.id for task in tasks}
    outside = {dependency for task in tasks for dependency in task.dependant_on} - new
    if outside:
        for waiter, needed in _graph(db.execute(_WAITS, {"ids": ids(outside)})).items():
            graph.setdefault(waiter, set()).update(needed)
    cycle = _cycle(graph)
    if cycle:
        raise InvalidInput(f"the tasks would wait for each other: {' -> '.join(cycle)}", field="dependant_on")


def _graph(edges: Iterable[sqlite3.Row]) -> dict[str, set[str]]:
    graph: dict[str, set[str]] = {}
    for edge in edges:
        graph.setdefault(edge["waiter"], set()).add(edge["needed"])
    return graph


def _cycle(graph: Mapping[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []
