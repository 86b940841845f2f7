"""`add_task.py --wait`: tasks are followed to their end, with bars on a terminal, and become an exit code."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from rich.console import Console
from rich.progress import TaskID

from source.diagnostics.words import printable
from source.diagnostics.workers import workers_view
from source.display import bars
from source.errors import RefusedWrite, StoreError, TaskNotFound
from source.interrupt import Interrupt, wait
from source.reporting import steps_in_words
from source.settings import Settings
from source.store.base import TaskStore
from source.store.opening import open_existing
from source.store.types import Status, Task

#: exit codes: what became of what was waited for
FAILED, CANCELLED, LATE, INTERRUPTED = 3, 4, 5, 130
#: seconds between two looks where nobody says that something changed, on a file and on a project
LOOK_S, LOOK_AFAR_S = 1.0, 5.0
#: open tasks of a project that one look asks for
AT_ONCE = 5
#: seconds for which a database may be out of reach
PATIENCE_S = 300.0
#: what a worker's heartbeat is when it is there
_THERE = ("healthy", "late")

#: hears of each look: the tasks, and the children of each that has some
Seen = Callable[[Sequence[Task], Mapping[str, Sequence[Task]]], None]


@dataclass(frozen=True)
class Outcome:
    """What became of the tasks, in their order, when the waiting ended."""

    tasks: tuple[Task, ...]
    #: by Ctrl-C
    interrupted: bool = False

    @property
    def code(self) -> int:
        """0 when all are Complete; else the code of the worst."""
        by_status = {Status.FAILED: FAILED, Status.CANCELLED: CANCELLED, Status.COMPLETE: 0}
        codes = {by_status.get(task.status, LATE) for task in self.tasks}
        worst = next((code for code in (FAILED, CANCELLED, LATE) if code in codes), 0)
        return INTERRUPTED if self.interrupted and worst else worst


def watch(settings: Settings, ids: Sequence[str], timeout_s: float | None = None) -> Outcome:
    """Follow tasks for somebody who waits: with bars on a terminal, until Ctrl-C at most. Raises as `follow`."""
    console = Console(stderr=True)
    with Interrupt() as interrupt, closing(open_existing(settings)) as store, Bars(console) as bars:
        if bars.shown and not anybody_works(store):
            console.print("No worker of this database gives a sign of life: `python worker.py` starts one.")
        seen = bars if bars.shown else None
        return follow(store, ids, timeout_s=timeout_s, seen=seen, stopped=lambda: interrupt.heard)


def follow(
    store: TaskStore, ids: Sequence[str], *, timeout_s: float | None = None, seen: Seen | None = None,
    stopped: Callable[[], bool] = lambda: False, patience_s: float = PATIENCE_S,
) -> Outcome:  # fmt: skip
    """Wait until every task has ended, `timeout_s` at most, or `stopped`. `seen` hears of each look. Short outages are
    waited out.

    Raises TaskNotFound, and StoreError when the database is out of reach for longer than `patience_s`.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    look_s, last_answer = LOOK_S if store.local else LOOK_AFAR_S, time.monotonic()
    tasks: list[Task] = []
    while True:
        before = sum(task.terminal for task in tasks)
        try:
            tasks = _looked_at(store, tasks) if tasks else list(map(store.get, ids))
            if seen is not None:
                seen(tasks, {task.id: store.children(task.id) for task in tasks if task.waiting})
            last_answer = time.monotonic()
        except (TaskNotFound, RefusedWrite):
            raise
        except StoreError:
            if not tasks or time.monotonic() - last_answer > patience_s:
                raise
        left_s = math.inf if deadline is None else deadline - time.monotonic()
        if all(task.terminal for task in tasks) or left_s <= 0 or stopped():
            return Outcome(tuple(tasks), interrupted=stopped())
        if sum(task.terminal for task in tasks) == before:  # else others may have ended as well
            wait(store, min(look_s, left_s), stopped)


def _looked_at(store: TaskStore, tasks: Sequence[Task]) -> list[Task]:
    """The tasks as they are now. Of a project only the first few open ones are asked for: all of them have to end."""
    open_ids = [task.id for task in tasks if not task.terminal]
    asked = set(open_ids if store.local else open_ids[:AT_ONCE])
    return [store.get(task.id) if task.id in asked else task for task in tasks]


def location_of(task: Task, settings: Settings) -> str:
    """Where the output of a finished task is: a path of this machine, or an address; "" for a task without one."""
    if not task.output_location or settings.db_type == "supabase" or "://" in task.output_location:
        return task.output_location or ""
    return str(settings.public_dir / task.output_location)


def said_of(task: Task, settings: Settings) -> str:
    """What people are told of a task that did not end as Complete, and what to do."""
    here = _here(settings)
    match task.status:
        case Status.FAILED:
            kind = f" ({task.error_class})" if task.error_class else ""
            return (
                f"task {task.id} failed{kind}: {printable(task.error_message or 'without a message')}\n"
                f"`python debug.py task {task.id}{here}` shows how it came to that, `python debug.py retry {task.id}"
                f"{here}` queues it again"
            )
        case Status.CANCELLED:
            return f"task {task.id} was cancelled"
        case _:
            return (
                f"task {task.id} is still {task.status} and goes on: `python add_task.py --wait --id {task.id}{here}` "
                f"follows it, `python debug.py why {task.id}{here}` says what it waits for, `python debug.py cancel "
                f"{task.id}{here}` ends it"
            )


def _here(settings: Settings) -> str:
    """The flag that names the database, for a command that people copy."""
    return f" --db-file {settings.db_file}" if settings.db_type == "sqlite" else ""


def anybody_works(store: TaskStore) -> bool:
    """Whether a worker of this database gave a sign of life lately."""
    return any(view["health"] in _THERE for view in workers_view(store.workers(), store.now()))


class Bars:
    """A bar for each task and each of its open children, on a terminal; nothing anywhere else."""

    def __init__(self, console: Console) -> None:
        self.shown = console.is_terminal
        self._ids: dict[str, TaskID] = {}
        self._progress = bars(console)

    def __enter__(self) -> Bars:
        if self.shown:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.shown:
            self._progress.stop()

    def __call__(self, tasks: Sequence[Task], children: Mapping[str, Sequence[Task]]) -> None:
        """Show what a look found."""
        kept = set()
        for task in tasks:
            own = children.get(task.id, ())
            ended = sum(child.terminal for child in own)
            words = f"{ended} of {len(own)} parts" if own else None
            kept.add(self._update(task, "", (ended, len(own)) if own else None, words))
            kept |= {self._update(child, "  ", None, None) for child in own if not child.terminal}
        for gone in set(self._ids) - kept:
            self._progress.remove_task(self._ids.pop(gone))

    def _update(self, task: Task, indent: str, counted: tuple[int, int] | None, words: str | None) -> str:
        progress = {} if task.terminal or task.status is Status.QUEUED else task.progress or {}
        done, total = counted or (int(progress.get("step", 0)), int(progress.get("total", 0)))
        state = str(progress.get("phase") or task.status)
        if task.id not in self._ids:
            self._ids[task.id] = self._progress.add_task("", total=None, words="")
        self._progress.update(
            self._ids[task.id],
            description=printable(f"{indent}{task.task_type} {task.id[:8]}  {state}"),
            completed=1 if task.terminal else done,
            total=1 if task.terminal else total or None,
            words=printable(words if words is not None else steps_in_words(progress)),
        )
        return task.id
