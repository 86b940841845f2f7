"""A worker on a real SQLite file with the shipped fake engine, and task types of the test's own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from headless.model_management import HeadlessTaskQueue
from headless.options import GenerationOptions
from headless.testing import FakeOrchestrator
from source.daemon import Worker
from source.params.base import TaskParams
from source.settings import Settings, load_settings
from source.store.base import TaskStore
from source.store.opening import open_store
from source.store.types import NewTask, Status, Task
from source.supabase_storage import storage_for
from source.task_registry import Done, Run, TaskContext, TaskRegistry, TaskType

#: short enough that a test which waits for a poll is quick, long enough that hints are what is usually seen
QUICK = {
    "poll_interval_s": 0.5, "rescue_interval_s": 0.5, "retry_delay_s": 0, "progress_interval_s": 0,
    "shutdown_grace_s": 0,
}  # fmt: skip
DEADLINE_S = 30.0


def draw(params: TaskParams, context: TaskContext) -> Done:
    """Generate with the options of the row."""
    return Done(context.generate(params.model or "fake_t2v", params.options).output)


def nothing(params: TaskParams, context: TaskContext) -> Done:
    """Do nothing."""
    return Done(None)


class Floor:
    """What a test's worker stands on."""

    def __init__(
        self, folder: Path, engine: Any = None, *,
        open_it: Callable[[Settings], TaskStore] = open_store, clock: Callable[[], float] = time.monotonic,
        **settings: Any,
    ) -> None:  # fmt: skip
        self.settings: Settings = load_settings(
            db_file=folder / "tasks.db", main_output_dir=folder / "outputs", **(QUICK | settings)
        )
        self.engine = engine or FakeOrchestrator()
        self.store = open_it(self.settings)
        self.queue = HeadlessTaskQueue(self.engine, clock=clock)
        self.queue.start()
        self.registry = TaskRegistry()
        self.register("draw", draw, uses_gpu=True)
        self.register("nothing", nothing)

    def register(self, name: str, run: Run, params: type[TaskParams] = TaskParams, *, uses_gpu: bool = False) -> None:
        self.registry.register(TaskType(name, params, run, "A task type of a test.", "a file", uses_gpu=uses_gpu))

    def add(self, task_type: str = "draw", /, dependant_on: tuple[str, ...] = (), **params: Any) -> str:
        given = {"prompt": "a ball"} if task_type == "draw" else {}
        return self.store.add(NewTask(task_type=task_type, params=given | params, dependant_on=dependant_on))

    def worker(self, **choices: Any) -> Worker:
        choices = {
            "registry": self.registry, "describe": self.engine.describe,
            "storage": storage_for(self.settings, self.store),
        } | choices  # fmt: skip
        return Worker(self.settings, self.store, self.queue, **choices)

    def work(self, options_class: type[GenerationOptions] = GenerationOptions) -> int:
        """Run a worker until nothing is left. Returns its exit code."""
        return self.worker(options_class=options_class).run(until_idle=True)

    @contextmanager
    def working(self, **choices: Any) -> Iterator[Worker]:
        """A worker on a thread, stopped at the end."""
        worker = self.worker(**choices)
        thread = threading.Thread(target=worker.run)
        thread.start()
        try:
            yield worker
        finally:
            worker.stop()
            thread.join(DEADLINE_S)
            assert not thread.is_alive(), "the worker did not stop"

    def wait_until(self, holds: Callable[[], bool]) -> None:
        """Look after each change of the table."""
        deadline = time.monotonic() + DEADLINE_S
        while not holds():
            assert time.monotonic() < deadline, "it did not happen"
            self.store.wait_for_change(0.25)

    def wait_for(self, task_id: str, status: Status) -> Task:
        self.wait_until(lambda: self.store.get(task_id).status is status)
        return self.store.get(task_id)

    def claimed(self) -> list[Task]:
        return self.store.tasks(status=Status.IN_PROGRESS)

    def output(self, task_id: str) -> Path:
        location = self.store.get(task_id).output_location
        assert location is not None
        return self.settings.public_dir / location

    def published(self) -> list[str]:
        return sorted(path.name for path in self.settings.public_dir.rglob("*") if path.is_file())

    def leftovers(self) -> list[Path]:
        return [path for path in self.settings.main_output_dir.rglob("*") if path.is_file()]

    def of_claim(self, task_id: str, number: int = 1) -> str:
        """The name of what a claim keeps on the disk."""
        return f"{task_id}-{number}-{self.settings.database_mark}"

    def parcel(self, task_id: str) -> Path:
        """The undelivered result of a row's first claim."""
        return self.settings.main_output_dir / "outbox" / self.of_claim(task_id)

    def undelivered(self) -> list[str]:
        folder = self.settings.main_output_dir / "outbox"
        return [path.name for path in folder.iterdir()] if folder.is_dir() else []

    def event_names(self, task_id: str) -> list[str]:
        return [event.name for event in self.store.events(task_id)]

    def close(self) -> None:
        self.queue.stop()
        self.store.close()
