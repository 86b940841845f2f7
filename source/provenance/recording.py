"""The record of a run: its ingredients, the rows that it belongs to, and what the outputs it used say of themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from source.errors import InvalidInput, TaskNotFound
from source.params.base import CONTAINERS
from source.provenance.ingredients import Ingredients
from source.provenance.portable import PINNED_SEEDS, portable
from source.provenance.record import OutputNote, Provenance, RootNote, TaskNote, read_provenance, versions
from source.store.base import TaskStore
from source.store.types import Task

MAX_SEED = 2**32 - 1

Note = TypeVar("Note")
#: the output of a row as a local file; None where there is none
Located = Callable[[Task], Path | None]


@dataclass(frozen=True)
class Lineage:
    """A claimed row and what it hangs on.

    ancestors      its parent, that one's parent …; the last is the root
    dependencies   the rows that it depends on
    of_root        those that the root depends on
    """

    task: Task
    ancestors: Sequence[Task]
    dependencies: Sequence[Task]
    of_root: Sequence[Task]

    @property
    def root(self) -> Task:
        return self.ancestors[-1] if self.ancestors else self.task

    @property
    def key(self) -> str:
        """See `TaskNote.key`."""
        return place_below_root(self.task, self.ancestors)


def place_below_root(task: Task, ancestors: Sequence[Task]) -> str:
    """The keys of the rows from the root down to the task, "/" between them; "" is the root itself."""
    rows = [task, *ancestors][:-1] if ancestors else []
    return "/".join(row.child_key or row.id for row in reversed(rows))


def lineage_of(task: Task, store: TaskStore) -> Lineage:
    """A row's lineage; an ancestor that is gone, or that leads round in a circle, ends it. Raises StoreError."""
    ancestors: list[Task] = []
    seen, parent = {task.id}, task.parent_id
    while parent is not None and parent not in seen:
        seen.add(parent)
        try:
            ancestors.append(store.get(parent))
        except TaskNotFound:
            break
        parent = ancestors[-1].parent_id
    root = ancestors[-1] if ancestors else task
    own = _dependencies(task, store)
    return Lineage(task, ancestors, own, _dependencies(root, store) if ancestors else own)


def _dependencies(task: Task, store: TaskStore) -> list[Task]:
    """Most rows have none, which their own column says."""
    return store.dependencies(task.id) if task.dependant_on else []


def pinned_seed(lineage: Lineage, generation: int) -> int | None:
    """The seed that a replay pins for the task's run number `generation`, counted from 1; None without one."""
    pinned = lineage.root.params.get(PINNED_SEEDS)
    seeds = pinned.get(lineage.key) if isinstance(pinned, Mapping) else None
    if not isinstance(seeds, list) or len(seeds) < generation:
        return None
    seed = seeds[generation - 1]
    return seed if isinstance(seed, int) and 0 <= seed <= MAX_SEED else None


def record(lineage: Lineage, made_of: Ingredients, located: Located) -> Provenance:
    """How the output of a run was made. Waits for digests of weights."""
    task, root = lineage.task, lineage.root
    earlier = [found for row in lineage.dependencies if (found := _record_of(row, located)) is not None]
    earlier = [found for found in earlier if found.root.id == root.id and found.task.id != task.id]
    for found in earlier:
        made_of.learn(found.inputs)
    parts = {part.id: _briefly(part) for found in earlier for part in found.tasks}
    return Provenance(
        task=TaskNote(
            id=task.id, type=task.task_type, claim=task.claim_number, key=lineage.key,
            generations=made_of.generations(),
        ),
        params=_own_params(task, made_of) if lineage.ancestors else None,
        root=RootNote(
            id=root.id, type=root.task_type, params=portable(root.params, made_of.meaning),
            dependant_on=[_output_note(row, made_of, located) for row in lineage.of_root],
        ),
        parts=list(parts.values()),
        inputs=made_of.inputs(),
        loras=_once([*made_of.loras(), *(lora for found in earlier for lora in found.loras)]),
        weights=_once([*made_of.weight_notes(), *(weight for found in earlier for weight in found.weights)]),
        versions=versions(),
    )  # fmt: skip


def _once(notes: Sequence[Note]) -> list[Note]:
    return list(dict.fromkeys(notes))


def _own_params(task: Task, made_of: Ingredients) -> dict[str, object]:
    """Without what is the root's."""
    own = {name: value for name, value in task.params.items() if name not in CONTAINERS}
    return portable(own, made_of.meaning)


def _briefly(part: TaskNote) -> TaskNote:
    """Without settings: those stand in the part's own file."""
    return replace(part, generations=[replace(run, settings={}) for run in part.generations])


def _record_of(row: Task, located: Located) -> Provenance | None:
    path = located(row)
    try:
        return read_provenance(path) if path is not None else None
    except (InvalidInput, OSError):
        return None


def _output_note(row: Task, made_of: Ingredients, located: Located) -> OutputNote:
    path = located(row)
    note = made_of.note_of(path) if path is not None else None
    return OutputNote(task=row.id, name=note.name if note else "", sha256=note.sha256 if note else None)
