"""Where running generations keep their state, so that the next claim of a task goes on where the last one died.

    <main output dir>/checkpoints/<task>-<database>/<number of the generation>/…   and, beside them, the task's id

It outlives a claim, unlike the task's scratch folder, and goes when the task is at its end.
"""

from __future__ import annotations

import logging
import shutil
import time
from pathlib import Path

from source.errors import TaskNotFound
from source.settings import Settings
from source.storage import task_name
from source.store.base import TaskStore
from source.store.types import Task

log = logging.getLogger(__name__)

DAY_S = 86400.0
_OWNER = "task.txt"


class Checkpoints:
    """The folders of all tasks of this machine."""

    def __init__(self, settings: Settings) -> None:
        self._root = settings.main_output_dir.resolve() / "checkpoints"
        self._days = settings.checkpoint_days
        self._mark = settings.database_mark

    def folder(self, task: Task, generation: int) -> Path:
        """For one of the task's generations, counted in the order in which the task runs them."""
        own = self._own(task)
        try:
            own.mkdir(parents=True, exist_ok=True)
            (own / _OWNER).write_text(task.id, encoding="utf-8")
        except OSError as error:
            log.warning("no state can be kept for task %s: %s", task.id, error)
        return own / str(generation)

    def settle(self, task: Task, store: TaskStore) -> None:
        """A run of the task is over: forget what it kept, unless the task goes on and something was kept.

        Raises StoreError.
        """
        own = self._own(task)
        if own.is_dir() and (not _holds_state(own) or _at_its_end(task.id, store)):
            shutil.rmtree(own, ignore_errors=True)

    def sweep(self, store: TaskStore) -> None:
        """Forget what is `useless`. Raises StoreError."""
        for own in self.useless(store):
            log.info("what an interrupted task kept in %s is removed", own)
            shutil.rmtree(own, ignore_errors=True)

    def useless(self, store: TaskStore) -> list[Path]:
        """What belongs to tasks that ended elsewhere, and what is older than `checkpoint_days`. Of another database's
        only the age counts, and of a task that this one does not know. Raises StoreError."""
        kept = list(self._root.iterdir()) if self._root.is_dir() else []
        return [own for own in kept if self._outdated(own) or self._ended(own, store)]

    def _own(self, task: Task) -> Path:
        return self._root / f"{task_name(task)}-{self._mark}"

    def _outdated(self, own: Path) -> bool:
        """What changes while it is looked at is at work."""
        try:
            latest = max(path.stat().st_mtime for path in (own, *own.rglob("*")))
        except OSError:
            return False
        return time.time() - latest > self._days * DAY_S

    def _ended(self, own: Path, store: TaskStore) -> bool:
        if not own.name.endswith(f"-{self._mark}"):
            return False
        try:
            return _at_its_end((own / _OWNER).read_text(encoding="utf-8"), store)
        except OSError:
            return False


def _holds_state(own: Path) -> bool:
    return any(path.is_file() and path.name != _OWNER for path in own.rglob("*"))


def _at_its_end(task_id: str, store: TaskStore) -> bool:
    try:
        return store.get(task_id).terminal
    except TaskNotFound:
        return False
