"""A store and a storage that write down what passes through them, and pass the points of a trap. A worker that is not
told to write a history has none of this."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from source.chaos.history import History, Outcome
from source.chaos.points import Trap
from source.errors import StaleClaim
from source.storage import OnSent, OnStop, Staged, Storage, never, unwatched
from source.store.base import TaskStore
from source.store.types import Claim, HeartbeatReply, Task

Answer = TypeVar("Answer")

#: writes of a claim -> what they are called in a history
WRITES = {
    "generation_started": "start",
    "fan_out": "fan_out",
    "complete": "complete",
    "fail": "fail",
    "retry_later": "retry",
    "release": "release",
    "cancelled": "cancelled",
}


class WitnessedStore:
    """What is not written down goes straight to the store. `only`: the task types that are claimed; None: all."""

    def __init__(self, store: TaskStore, history: History, trap: Trap, only: Collection[str] | None = None) -> None:
        self._store = store
        self._history = history
        self._trap = trap
        self._only = only

    def __getattr__(self, name: str) -> Any:
        asked = getattr(self._store, name)
        if name not in WRITES:
            return asked
        return lambda claim, *given, **named: self._written(
            WRITES[name], claim, lambda: asked(claim, *given, **self._trapped(named))
        )

    def claim(self, worker_id: str, *, task_types: Collection[str] | None = None, **given: Any) -> list[Task]:
        """Each row that was handed out is a record."""
        self._trap.passing("before-claim")
        began = time.monotonic()
        tasks = self._store.claim(worker_id, task_types=self._only if task_types is None else task_types, **given)
        if tasks:
            self._trap.passing("after-claim")
        for task in tasks:
            self._history.note("claim", task.id, task.claim_number, worker_id, began=began)
        return tasks

    def progress(self, claim: Claim, progress: Mapping[str, Any], **given: Any) -> bool:
        """Steps are records; the rest of the progress is not."""
        if progress.get("phase") != "denoising":
            return self._store.progress(claim, progress, **given)
        return self._written("step", claim, lambda: self._store.progress(claim, progress, **given), points=False)

    def heartbeat(self, worker_id: str, claims: Sequence[Claim], **given: Any) -> HeartbeatReply:
        """What it says is lost is a record."""
        self._trap.passing("before-heartbeat")
        reply = self._store.heartbeat(worker_id, claims, **given)
        self._trap.passing("after-heartbeat")
        for claim in claims:
            if claim.task_id in reply.lost:
                self._history.note("lost", claim.task_id, claim.claim_number, worker_id)
        return reply

    def rescue(self) -> int:
        """Only points."""
        self._trap.passing("before-rescue")
        rescued = self._store.rescue()
        self._trap.passing("after-rescue")
        return rescued

    def _trapped(self, named: Mapping[str, Any]) -> dict[str, Any]:
        """A completion publishes between two points."""
        publish = named.get("publish")
        if publish is None:
            return dict(named)

        def published() -> None:
            self._trap.passing("before-publish")
            publish()
            self._trap.passing("after-publish")

        return {**named, "publish": published}

    def _written(self, name: str, claim: Claim, ask: Callable[[], Answer], *, points: bool = True) -> Answer:
        began = time.monotonic()
        if name == "complete":
            self._history.note(name, claim.task_id, claim.claim_number, claim.worker_id, outcome=Outcome.ASKED)
        outcome = Outcome.UNKNOWN
        try:
            if points:
                self._trap.passing(f"before-{name}")
            answer = ask()
            if points:
                self._trap.passing(f"after-{name}")
            outcome = Outcome.OK
            return answer
        except StaleClaim:
            outcome = Outcome.STALE
            raise
        finally:
            self._history.note(
                name, claim.task_id, claim.claim_number, claim.worker_id, began=began, outcome=outcome
            )  # fmt: skip


class WitnessedStorage:
    """Each result that was brought to where it will be published is a record, with its digest."""

    def __init__(self, storage: Storage, history: History, trap: Trap) -> None:
        self._storage = storage
        self._history = history
        self._trap = trap

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def stage(self, task: Task, path: Path, *, on_sent: OnSent = unwatched, on_stop: OnStop = never) -> Staged:
        """As the storage does."""
        self._trap.passing("before-upload")
        began = time.monotonic()

        def sent(so_far: int, total: int) -> None:
            self._trap.passing("during-upload")
            on_sent(so_far, total)

        outcome = Outcome.UNKNOWN
        try:
            staged = self._storage.stage(task, path, on_sent=sent, on_stop=on_stop)
            self._trap.passing("after-upload")
            outcome = Outcome.OK
            return staged
        except StaleClaim:
            outcome = Outcome.STALE
            raise
        finally:
            self._note(task, path, began, outcome)

    def _note(self, task: Task, path: Path, began: float, outcome: Outcome) -> None:
        detail = f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}" if path.is_file() else path.name
        worker = task.claim.worker_id
        self._history.note("upload", task.id, task.claim_number, worker, began=began, outcome=outcome, detail=detail)


def witnessed(
    store: TaskStore, storage: Storage, history: History, trap: Trap | None = None,
    only: Collection[str] | None = None,
) -> tuple[TaskStore, Storage]:  # fmt: skip
    """Both, watched. They stand for whole ones: what they do not know they hand on."""
    watched = WitnessedStore(store, history, trap or Trap(), only)
    return cast(TaskStore, watched), cast(Storage, WitnessedStorage(storage, history, trap or Trap()))
