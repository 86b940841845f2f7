"""Progress bars of tasks: a worker has one for each that it runs, on a terminal. Elsewhere the log says enough."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from headless import generation
from source.reporting import as_json, steps_in_words
from source.store.types import Task


def bars(console: Console) -> Progress:
    """Bars of tasks, gone when they are over; each has a description and `words`, which may hold anything."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[words]}", markup=False),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )


class ProgressDisplay:
    """Call it with each progress of a task, and with None at its end. Any thread may."""

    def __init__(self, console: Console) -> None:
        self._shown = console.is_terminal
        self._bars: dict[str, TaskID] = {}
        self._lock = threading.Lock()
        self._progress = bars(console)

    def __enter__(self) -> Self:
        if self._shown:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown:
            self._progress.stop()

    def __call__(self, task: Task, progress: generation.Progress | None) -> None:
        if not self._shown:
            return
        with self._lock:
            if progress is None:
                self._remove(task)
            else:
                self._update(task, progress)

    def _update(self, task: Task, progress: generation.Progress) -> None:
        if task.id not in self._bars:
            self._bars[task.id] = self._progress.add_task("", words="", total=None)
        self._progress.update(
            self._bars[task.id],
            description=f"{task.task_type} {task.id[:8]}  {progress.phase}",
            completed=progress.step,
            total=progress.total or None,
            words=steps_in_words(as_json(progress)) if progress.total else progress.text,
        )

    def _remove(self, task: Task) -> None:
        bar = self._bars.pop(task.id, None)
        if bar is not None:
            self._progress.remove_task(bar)
