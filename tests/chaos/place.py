"""A database and the worker processes of a test, with the fake engine."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from source.chaos.crew import Crew
from source.chaos.grounds import Ground
from source.chaos.run import LEASE_S, MAX_ATTEMPTS, QUICK
from source.chaos.tasks import CLIP
from source.store.types import NewTask, Status, Task

DEADLINE_S = 180.0


class Place:
    """A database and its workers."""

    def __init__(self, ground: Ground, folder: Path, opened: ExitStack) -> None:
        self.ground, self.store = ground, ground.store
        self._folder, self._opened = folder, opened
        self._never = threading.Event()

    def crew(self, name: str, size: int = 1, trap: Callable[[int, int], str] = lambda *_: "", **given: str) -> Crew:
        """Workers of an own folder."""
        folder = self._folder / name
        folder.mkdir()
        environment = QUICK | dict(self.ground.environment) | {"CHAOS_STEPS": "4"} | given
        crew = Crew(folder, size, environment, trap, LEASE_S * 1.5)
        self._opened.callback(crew.end)
        return crew

    def add(self, number: int) -> list[str]:
        return [self.add_one() for _ in range(number)]

    def add_one(self, kind: str = CLIP, priority: int = 0, **params: Any) -> str:
        return self.store.add(NewTask(task_type=kind, params=params, priority=priority))

    def fill(self, tasks: list[str], ahead: int) -> None:
        """Add to `tasks` until so many are queued."""
        tasks.extend(self.add(ahead - min(ahead, self.store.counts()[Status.QUEUED])))

    def until(self, holds: Callable[[], object], what: str, seconds: float = DEADLINE_S) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, f"it did not happen: {what}"
            self._never.wait(0.05)

    def rows(self, tasks: list[str]) -> list[Task]:
        return [self.store.get(task) for task in tasks]

    def until_complete(self, tasks: list[str]) -> list[Task]:
        self.until(lambda: all(row.status is Status.COMPLETE for row in self.rows(tasks)), "all tasks are complete")
        return self.rows(tasks)

    def until_runs(self, task: str) -> None:
        self.until(lambda: "started" in [event.name for event in self.store.events(task)], "it generates")

    def second_claim_at(self, task: str) -> datetime:
        claims = [event for event in self.store.events(task) if event.name == "claimed"]
        return datetime.fromisoformat(claims[1].at)


@contextmanager
def place(kind: Callable[[Path, int], Ground], folder: Path, max_attempts: int = MAX_ATTEMPTS) -> Iterator[Place]:
    with ExitStack() as opened:
        ground = kind(folder, max_attempts)
        opened.callback(ground.close)
        yield Place(ground, folder, opened)
