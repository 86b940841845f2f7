"""Cancel, retry, pause, resume, requeue: one task, a run, or all that a choice means."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from source.command_line import CommandParser
from source.diagnostics.ids import task_id_of
from source.diagnostics.words import printable
from source.errors import InvalidInput, RefusedWrite, StoreError, TaskNotFound
from source.store.base import TaskStore
from source.store.types import Status, Task, TaskFilter

#: at most so many at once; the same command goes on with the rest
MOST = 1000
QUEUED, RUNNING = Status.QUEUED, Status.IN_PROGRESS
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

#: shown what would change; False when nothing is to be done
Confirm = Callable[[RenderableType, str], bool]


@dataclass(frozen=True)
class Intervention:
    """A command that changes tasks."""

    help: str
    act: Callable[[TaskStore, str], Status]
    #: of the tasks that it is for
    statuses: tuple[Status, ...]
    #: likewise; None where that makes no difference
    paused: bool | None = None
    #: (what follows its name, what that does)
    examples: tuple[tuple[str, str], ...] = (
        ("5e1fa", "the task whose id begins so"), ("--run ID --dry-run", "show what of a travel it would change"),
    )  # fmt: skip


INTERVENTIONS = {
    "cancel": Intervention("stop tasks and their children", lambda store, each: store.cancel(each), (QUEUED, RUNNING)),
    "retry": Intervention("queue failed tasks again", lambda store, each: store.retry(each), (Status.FAILED,)),
    "pause": Intervention(
        "keep tasks and their children from being claimed; what runs goes on",
        lambda store, each: store.pause(each), (QUEUED, RUNNING), paused=False,
    ),
    "resume": Intervention(
        "let paused tasks and their children be claimed again",
        lambda store, each: store.resume(each), (QUEUED, RUNNING), paused=True,
    ),
    "requeue": Intervention(
        "take tasks that run from their workers and queue them again; no attempt is burned",
        lambda store, each: store.requeue(each), (RUNNING,),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Change:
    """What became of one task."""

    task: Task
    #: None when it was refused
    status: Status | None
    note: str

    def view(self) -> dict[str, Any]:
        """As JSON values."""
        facts = {"id": self.task.id, "task_type": self.task.task_type, "before": self.task.status}
        return facts | {"status": self.status, "note": self.note}

    def line(self) -> str:
        """For people."""
        now = "refused" if self.status is None else str(self.status)
        became = now if self.status is self.task.status else f"{self.task.status} -> {now}"
        return f"{_named(self.task)}  {became}" + (f"  {self.note}" if self.note else "")


def add_interventions(commands: Any, shared: CommandParser) -> None:
    """Declare the commands and their choices."""
    for name, intervention in INTERVENTIONS.items():
        examples = [(f"python debug.py {name} {words}", meaning) for words, meaning in intervention.examples]
        flags = commands.add_parser(
            name, parents=[shared], help=intervention.help, examples=examples,
            description=f"{intervention.help[0].upper()}{intervention.help[1:]}.",
        )  # fmt: skip
        flags.add_argument(
            "ids", nargs="*", metavar="ID",
            help="tasks, by their ids or the first letters of them; or choose them by the flags below",
        )  # fmt: skip
        flags.add_argument(
            "--run", metavar="ID", help="an orchestrator, or a travel's run_id, with all that came of it"
        )
        flags.add_argument(
            "--status", action="append", choices=[status.value for status in Status], metavar="S",
            help=f"of {', '.join(intervention.statuses)}; repeatable",
        )  # fmt: skip
        flags.add_argument("--type", dest="task_type", metavar="T", help="tasks of this type")
        flags.add_argument("--worker", metavar="W", help="claimed by this worker: its id, or the name it was given")
        flags.add_argument("--older-than", type=_seconds, metavar="2h", help="added that long ago: s, m, h or d")
        flags.add_argument("--error-class", metavar="C", help="failed like this: transient, bad_input, poison …")
        flags.add_argument("--dry-run", action="store_true", help="change nothing; show what would be changed")
        flags.add_argument("--yes", action="store_true", help="do not ask")


def intervene(store: TaskStore, given: argparse.Namespace, confirm: Confirm) -> tuple[Any, RenderableType, int]:
    """Do to the tasks what the command says: JSON values, for people, and the exit code (1: one was refused).

    A single task that is named needs no question and raises what the store raises.
    Raises InvalidInput when nothing matches or nobody can be asked, TaskNotFound and StoreError.
    """
    command = INTERVENTIONS[given.command]
    if len(given.ids) == 1 and not given.dry_run and not _choice(given):
        return _one(store, command, given)
    tasks = _chosen(store, command, given)
    if given.dry_run:
        views = [{"id": task.id, "task_type": task.task_type, "status": task.status} for task in tasks]
        return views, _listed(tasks, f"{given.command} would change {_counted(tasks)}"), 0
    question = f"{given.command} {_counted(tasks)}?"
    if not (given.ids or given.yes or confirm(_listed(tasks, ""), question)):
        return [], "nothing was changed", 1
    changes = list(_changes(store, command, given.command, tasks))
    text = Text("\n".join([*(change.line() for change in changes), *_rest(tasks)]))
    return [change.view() for change in changes], text, 1 if any(change.status is None for change in changes) else 0


def _one(store: TaskStore, command: Intervention, given: argparse.Namespace) -> tuple[Any, RenderableType, int]:
    [task_id] = [task_id_of(store, each) for each in given.ids]
    task = store.get(task_id)
    status = command.act(store, task_id)
    note = _note(given.command, task, status)
    return {"id": task_id, "status": status}, f"{task_id} {status}" + (f": {note}" if note else ""), 0


# -- which tasks ----------------------------------------------------------------------------------------------------


def _choice(given: argparse.Namespace) -> dict[str, Any]:
    """The flags that choose tasks, those that were given."""
    flags = {
        "run": given.run, "statuses": given.status, "task_type": given.task_type, "worker_id": given.worker,
        "older_than_s": given.older_than, "error_class": given.error_class,
    }  # fmt: skip
    return {name: value for name, value in flags.items() if value is not None}


def _chosen(store: TaskStore, command: Intervention, given: argparse.Namespace) -> list[Task]:
    """Raises InvalidInput when there is none."""
    choice = _choice(given)
    if given.ids:
        if choice:
            raise InvalidInput("name tasks, or choose them by flags; not both")
        return [store.get(task_id) for task_id in dict.fromkeys(task_id_of(store, each) for each in given.ids)]
    if not choice:
        raise InvalidInput("which tasks? Name them, or choose them by --run, --status, --type, --worker …")
    statuses = tuple(map(Status, choice.get("statuses", command.statuses)))
    if not set(statuses) <= set(command.statuses):
        raise InvalidInput(f"{given.command} is for tasks that are {' or '.join(command.statuses)}", field="status")
    if "run" in choice:
        with suppress(TaskNotFound, InvalidInput):  # it may be the run_id of a travel
            choice["run"] = task_id_of(store, choice["run"])
    found = store.select(TaskFilter(**choice | {"statuses": statuses}, paused=command.paused), limit=MOST)
    if given.command == "requeue":  # a waiting parent holds no claim
        found = [task for task in found if not task.waiting]
    if not found:
        raise InvalidInput(f"no task matches that {given.command} could change ({' or '.join(statuses)})")
    return found


def _seconds(text: str) -> float:
    """`90`, `90s`, `15m`, `2h`, `1.5d`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip())
    value = float(match[1]) * _UNITS[match[2] or "s"] if match else math.inf
    if value > 3650 * _UNITS["d"]:
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 90s, 15m, 2h or 1d")
    return value


# -- what becomes of them -------------------------------------------------------------------------------------------


def _changes(store: TaskStore, command: Intervention, name: str, tasks: Sequence[Task]) -> Iterator[Change]:
    for done, task in enumerate(tasks):
        try:
            status = command.act(store, task.id)
        except (InvalidInput, TaskNotFound, RefusedWrite) as error:
            yield _refused(store, task, str(error))
        except StoreError as error:
            raise StoreError(
                f"{error} ({done} of {len(tasks)} tasks were done; the same again does the rest)"
            ) from error
        else:
            yield Change(task, status, _note(name, task, status))


def _refused(store: TaskStore, task: Task, why: str) -> Change:
    """What was done to one of the others may have done it to this one too: its parent, say."""
    try:
        now = store.get(task.id).status
    except TaskNotFound:
        return Change(task, None, why)
    together = now is QUEUED and task.status in (Status.FAILED, RUNNING)
    return Change(task, now if together else None, "together with another" if together else why)


def _note(name: str, task: Task, status: Status) -> str:
    """What else there is to know of the task that is `status` now and was `task` before."""
    running = status is RUNNING
    notes = {
        "cancel": "its children stop first" if task.waiting else "asked to stop; it ends when its worker has stopped",
        "pause": "its queued children are held" if task.waiting else "goes on; held if it comes back to the queue",
        "resume": "its children are claimed again" if task.waiting else "claimed again if it comes back to the queue",
    }
    if name in notes:
        return notes[name] if running else {"pause": "paused", "resume": "resumed"}.get(name, "")
    if name == "requeue":
        return "its children that ran are queued again" if running else "its worker stops as soon as it hears of it"
    return "it is paused: resume it" if name == "retry" and task.paused else ""


# -- for people -----------------------------------------------------------------------------------------------------


def _named(task: Task) -> str:
    return f"{printable(task.id):<36}  {printable(task.task_type):<24}"


def _listed(tasks: Sequence[Task], last: str) -> RenderableType:
    lines = [f"{_named(task)}  {task.status}{' (paused)' if task.paused else ''}" for task in tasks]
    return Text("\n".join([*lines, *_rest(tasks), *filter(None, [last])]))


def _counted(tasks: Sequence[Task]) -> str:
    return "1 task" if len(tasks) == 1 else f"{len(tasks)} tasks"


def _rest(tasks: Sequence[Task]) -> list[str]:
    return [f"more may match: at most {MOST} are done at once, the same again does the rest"] * (len(tasks) >= MOST)
