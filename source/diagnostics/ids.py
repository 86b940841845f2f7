"""Ids as people give them: a few letters that no other id begins with do."""

from __future__ import annotations

import re
from collections.abc import Sequence

from source.errors import InvalidInput, TaskNotFound
from source.store.base import TaskStore
from source.store.types import WorkerRow
from Wan2GP.errors import did_you_mean

#: letters of an id that stand for it, at least
LEAST = 4
#: ids that are offered
MOST_OFFERED = 5


def task_id_of(store: TaskStore, given: str) -> str:
    """The id of the task that is meant: the id itself, or its beginning (4 letters at least) where no other begins so.

    Where questions cost something, what is a whole UUID, or can begin none, is not asked for: it may be nobody's.
    Raises TaskNotFound, which offers the nearest, and InvalidInput where several begin so.
    """
    if not store.local and not re.fullmatch(r"[0-9a-fA-F-]{1,35}", given):
        return given
    found = store.ids_like(given, limit=MOST_OFFERED + 1)
    if given in found:
        return given
    if len(given) < LEAST or not found:
        raise TaskNotFound(f"there is no task {given}{_offer(store, given)}")
    if len(found) > 1:
        raise InvalidInput(f"{given} is the beginning of several tasks: {_named(found)}", field="id")
    return found[0]


def worker_of(workers: Sequence[WorkerRow], given: str) -> WorkerRow:
    """The worker that is meant: by its id, the beginning of it, or the name that it was given (its latest start).

    `workers`: the latest seen first. Raises InvalidInput, which offers the nearest.
    """
    by_id = {worker.id: worker for worker in workers}
    if given in by_id:
        return by_id[given]
    named = [worker for worker in workers if re.fullmatch(rf"{re.escape(given)}-[0-9a-f]{{8}}", worker.id)]
    if named:
        return named[0]
    found = [worker for worker in workers if len(given) >= LEAST and worker.id.startswith(given)]
    if len(found) == 1:
        return found[0]
    if found:
        raise InvalidInput(
            f"{given} is the beginning of several workers: {_named([each.id for each in found])}", field="id"
        )
    raise InvalidInput(f"there is no worker {given}.{did_you_mean(given, by_id)}".rstrip("."), field="id")


def _offer(store: TaskStore, given: str) -> str:
    """Ids that begin alike."""
    near = store.ids_like(given[:LEAST], limit=MOST_OFFERED) if len(given) > LEAST else []
    return f"; {_named(near)} {'begins' if len(near) == 1 else 'begin'} like it" if near else ""


def _named(ids: Sequence[str]) -> str:
    return ", ".join(ids[:MOST_OFFERED]) + (" …" if len(ids) > MOST_OFFERED else "")
