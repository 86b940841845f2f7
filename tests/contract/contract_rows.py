"""What the store contract needs: rows to add, claims, and a front end that writes beside the store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from source.store import Claim, NewTask, Status, Task, TaskStore, child_id

MakeStore = Callable[..., TaskStore]
LONG_S = 3600.0
EXPIRED_S = -1.0


class FrontEnd(Protocol):
    """Writes rows with plain SQL, knowing nothing of the store."""

    def insert(self, **columns: Any) -> None: ...

    def update(self, task_id: str, **columns: Any) -> None: ...


def a_task(**values: Any) -> NewTask:
    return NewTask(**{"task_type": "t2v", "params": {"prompt": "a lake at dawn"}} | values)


def a_child(parent_id: str, key: str, **values: Any) -> NewTask:
    return a_task(id=child_id(parent_id, key), parent_id=parent_id, child_key=key, **values)


def claim(store: TaskStore, worker_id: str = "worker-1", **values: Any) -> Task:
    """Claim one row, which must be there."""
    [task] = store.claim(worker_id, **{"lease_s": LONG_S} | values)
    return task


def claim_that(store: TaskStore, task_id: str) -> Claim:
    """Claim until `task_id` is ours; the rows claimed on the way go back."""
    taken = store.claim("worker-1", lease_s=LONG_S, limit=100)
    [wanted] = [task for task in taken if task.id == task_id]
    for task in taken:
        if task is not wanted:
            store.release(task.claim)
    return wanted.claim


def statuses(store: TaskStore, *task_ids: str) -> list[Status]:
    return [store.get(task_id).status for task_id in task_ids]


def event_names(store: TaskStore, task_id: str) -> list[str]:
    return [event.name for event in store.events(task_id)]


def fan_out(store: TaskStore, *keys: str, chain: bool = False, **values: Any) -> tuple[str, list[str]]:
    """A waiting parent with a child for each key; the last one is the final child, and depends on the others unless
    they form a `chain`. Returns the ids."""
    parent = store.add(a_task(task_type="travel_orchestrator", **values))
    claimed = claim_that(store, parent)
    children: list[NewTask] = []
    for key in keys:
        needed = [child.id for child in children]
        last = key == keys[-1]
        dependant_on = needed[-1:] if chain else needed if last else []
        children.append(a_child(parent, key, dependant_on=tuple(dependant_on)))
    store.fan_out(claimed, children, final_child=children[-1].id)
    return parent, [child.id for child in children]
