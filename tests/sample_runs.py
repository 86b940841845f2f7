"""Samples of samples/tasks, run by one worker as a user runs it. Importable by every test."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from box import Box

from source.store.sqlite import SqliteStore
from source.store.types import NewTask, Status, Task
from source.task_registry import registry


class SampleRuns:
    """The box of a worker that has finished some samples, and the row of each."""

    def __init__(
        self,
        root: Path,
        folder: Path,
        samples: Iterable[str],
        *,
        after: Mapping[str, str] = MappingProxyType({}),
        timeout_s: float = 170,
        **environment: str,
    ) -> None:
        """`after` names the sample whose task a sample depends on; `environment` is the worker's."""
        self.root, self.box = root, Box(root, folder)
        store = SqliteStore(self.box.database)
        tasks: dict[str, str] = {}
        for name in sorted(samples, key=lambda name: (name in after, name)):
            before = (tasks[after[name]],) if name in after else ()
            tasks[name] = store.add(self._task(name, before))
        self.box.work(timeout_s=timeout_s, **environment)
        self.rows: Mapping[str, Task] = {name: store.get(task) for name, task in tasks.items()}
        self.children: Mapping[str, list[Task]] = {name: list(store.children(task)) for name, task in tasks.items()}
        store.close()

    def _task(self, sample: str, before: tuple[str, ...]) -> NewTask:
        kind, params = sample.partition(".")[0], self.box.sample(sample)
        registry().get(kind).parse(params, strict=True)
        return NewTask(task_type=kind, params=params, dependant_on=before)

    def output(self, sample: str) -> Path:
        """The file of a sample that must be complete."""
        return self.output_of(self.rows[sample])

    def output_of(self, row: Task) -> Path:
        assert row.status is Status.COMPLETE and row.output_location, row.error_message
        return self.box.folder / "public" / row.output_location

    def result(self, sample: str) -> Mapping[str, Any]:
        return self.rows[sample].result_data or {}
