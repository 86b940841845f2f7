"""The commands of debug.py: what each answers, as JSON values and for people.

What needs media or task types is imported by its own command: half of the start of the others would be that.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from source.chaos.flags import add_chaos
from source.command_line import CommandParser, TokenAction
from source.diagnostics.interventions import INTERVENTIONS, Confirm, add_interventions, intervene
from source.diagnostics.replays import rendered_replay, replay
from source.diagnostics.task import task_view
from source.diagnostics.task_page import rendered_task
from source.diagnostics.tasks import rendered_tasks, tasks_view
from source.diagnostics.why import rendered_why, why_view
from source.diagnostics.workers import rendered_workers, workers_view
from source.errors import InvalidInput
from source.planning.timeline import LAYOUTS
from source.settings import Settings
from source.store.base import TaskStore
from source.store.opening import open_existing
from source.store.types import AffinityBound, Status

MAX_LIMIT = 1_000_000


@dataclass(frozen=True)
class Answer:
    """What a command has to say: JSON values, the readable form, and the exit code."""

    view: Any
    readable: RenderableType
    code: int = 0


def add_commands(flags: CommandParser, shared: CommandParser) -> None:
    """Declare the commands; each takes the flags of `shared` as well."""
    commands = flags.add_subparsers(dest="command", required=True, metavar="COMMAND")
    task = commands.add_parser(
        "task", parents=[shared], help="one task: what happened when, why it failed, its children"
    )
    task.add_argument("id")
    why = commands.add_parser("why", parents=[shared], help="why a task waits, what it waits for, how it ended")
    why.add_argument("id")
    add_interventions(commands, shared)
    tasks = commands.add_parser("tasks", parents=[shared], help="the newest tasks")
    tasks.add_argument(
        "--status", choices=[status.value for status in Status], metavar="S", help=f"{', '.join(Status)}"
    )
    tasks.add_argument("--type", dest="task_type", metavar="T", help="tasks of this type alone")
    tasks.add_argument("--limit", type=int, default=50, metavar="N", help="at most this many (default: 50)")
    commands.add_parser("workers", parents=[shared], help="the workers, and which of them are alive")
    disk = commands.add_parser("disk", parents=[shared], help="what lies on this machine's disks, and whose it is")
    disk.add_argument("--clean", action="store_true", help="remove what nobody needs any more")
    disk.add_argument(
        "--main-output-dir", type=Path, metavar="DIR", help="the worker's scratch space (default: MAIN_OUTPUT_DIR)"
    )
    doctor = commands.add_parser(
        "doctor", parents=[shared], help="check this installation (exit code 1: something failed)"
    )
    doctor.add_argument(
        "--model", action="append", default=[], dest="models", metavar="M",
        help="look whether this model's weights are whole; repeatable",
    )  # fmt: skip
    add_chaos(commands, shared)
    page = commands.add_parser("serve", parents=[shared], help="all of this as a page for a browser (docs/page.md)")
    page.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; others than this machine's need a token"
    )
    page.add_argument("--port", type=int, default=8700, help="0 takes a free one (default: 8700)")
    page.add_argument(
        "--token", dest="page_token", metavar="@FILE", action=TokenAction,
        help="lets people change tasks; better by PAGE_TOKEN",
    )  # fmt: skip
    show = commands.add_parser("visualize", parents=[shared], help="draw a finished travel with its timeline")
    show.add_argument("id")
    show.add_argument("-o", "--output", type=Path, metavar="FILE", help="an mp4 (default: ID_visualization.mp4)")
    show.add_argument("--layout", choices=LAYOUTS, default=LAYOUTS[0], help=f"default: {LAYOUTS[0]}")
    again = commands.add_parser("replay", parents=[shared], help="queue again what made a picture or video")
    again.add_argument("file", help="an output, or its URL; its metadata say how it was made")
    again.add_argument(
        "--input", action="append", default=[], metavar="NAME=PATH", help="where a file lies now; repeatable"
    )
    again.add_argument(
        "--search", action="append", default=[], type=Path, metavar="DIR",
        help="look for files here, by name and by content; repeatable",
    )  # fmt: skip
    again.add_argument("--project-id", metavar="ID", help="project of the row (a UUID on Supabase)")
    again.add_argument("--dry-run", action="store_true", help="queue nothing; show what would be queued")


def answer(settings: Settings, given: argparse.Namespace, beginning: Callable[[str], None], confirm: Confirm) -> Answer:
    """What the command has to say; `beginning` hears what it is about to look at, where that takes a while; `confirm`
    is asked before many tasks are changed.

    Raises TaskNotFound, InvalidInput, InvalidMedia and StoreError.
    """
    if given.command == "doctor":
        from source.doctor.examination import examined
        from source.doctor.report import rendered_report

        report = examined(settings, models=given.models, beginning=beginning)
        return Answer(report, rendered_report(report), 0 if report["healthy"] else 1)
    if given.command == "chaos":
        from source.chaos.command import chaos

        return Answer(*chaos(settings, given, beginning))
    if given.command == "serve":
        from source.page.serving import serve

        return Answer(*serve(settings, given, beginning))
    with closing(open_existing(settings)) as store:
        if given.command in INTERVENTIONS:
            return Answer(*intervene(store, given, confirm))
        return Answer(*_of_store(store, settings, given))


def _of_store(store: TaskStore, settings: Settings, given: argparse.Namespace) -> tuple[Any, RenderableType]:
    match given.command:
        case "task":
            view = task_view(store, given.id, _bound(settings))
            return view, rendered_task(view)
        case "why":
            why = why_view(store, given.id, _bound(settings))
            return why, rendered_why(why)
        case "tasks":
            if not 1 <= given.limit <= MAX_LIMIT:
                raise InvalidInput(f"must lie between 1 and {MAX_LIMIT}", field="limit")
            status = Status(given.status) if given.status else None
            views = tasks_view(store, status=status, task_type=given.task_type, limit=given.limit)
            return views, rendered_tasks(views)
        case "workers":
            workers = workers_view(store.workers(), store.now())
            return workers, rendered_workers(workers)
        case "disk":
            from source.diagnostics.disk_use import disk_view, rendered_disk

            used = disk_view(store, _with_scratch(settings, given.main_output_dir), clean=given.clean)
            return used, rendered_disk(used)
        case "visualize":
            from source.diagnostics.travels import visualize_travel

            made = visualize_travel(store, settings, given.id, given.output, given.layout)
            return made, f"{made['output']}  {made['num_frames']} frames"
        case _:
            queued = replay(
                store, settings, given.file, given=given.input, search=given.search, project_id=given.project_id,
                dry_run=given.dry_run,
            )  # fmt: skip
            return queued, rendered_replay(queued)


def _bound(settings: Settings) -> AffinityBound:
    return AffinityBound(settings.affinity_tasks, settings.affinity_wait_s)


def _with_scratch(settings: Settings, folder: Path | None) -> Settings:
    return settings if folder is None else settings.model_copy(update={"main_output_dir": folder})
