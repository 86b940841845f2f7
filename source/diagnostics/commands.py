"""The commands of debug.py and their flags; `answers.py` is what they answer."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from source.chaos.flags import add_chaos
from source.command_line import CommandParser, TokenAction
from source.diagnostics.interventions import add_interventions
from source.planning.timeline import LAYOUTS
from source.store.types import LEVELS, Status

EXAMPLES = (
    ("python debug.py health", "whether tasks are worked off, and what is wrong where they are not"),
    ("python debug.py watch", "live: the queue, each worker's GPU, what ended, the log"),
    ("python debug.py tasks --status Failed --hours 24", "the newest tasks that failed"),
    ("python debug.py task ID", "one task: what happened when, why it failed, its children"),
    ("python debug.py why ID", "why a task waits"),
    ("python debug.py logs ID --level WARNING", "what workers logged of a task"),
    ("python debug.py retry ID", "queue a failed task again"),
    ("python debug.py doctor", "check this installation"),
)
CODES = {
    0: "done, and all is well",
    1: "not found, not possible, a wrong argument, or something is wrong (health, doctor, orchestrator)",
    2: "the database failed, or is not there",
}


def add_commands(flags: CommandParser, shared: CommandParser) -> None:
    """Declare the commands; each takes the flags of `shared` as well."""
    commands = flags.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_tasks(commands, shared)
    add_interventions(commands, shared)
    _add_workers(commands, shared)
    _add_installation(commands, shared)
    add_chaos(commands, shared)
    _add_outputs(commands, shared)


def _add(
    commands: Any, shared: CommandParser, name: str, text: str, *examples: tuple[str, str]
) -> argparse.ArgumentParser:  # fmt: skip
    """One command; `examples`: (what follows its name, what that does)."""
    lines = [(f"python debug.py {name} {words}".rstrip(), meaning) for words, meaning in examples]
    added: argparse.ArgumentParser = commands.add_parser(
        name, parents=[shared], help=text, description=f"{text[0].upper()}{text[1:]}.", examples=lines
    )
    return added


def _add_id(flags: argparse.ArgumentParser) -> None:
    flags.add_argument("id", metavar="ID", help="its id, or the first letters of it (4 at least)")


def _add_tasks(commands: Any, shared: CommandParser) -> None:
    task = _add(
        commands, shared, "task", "one task: what happened when, why it failed, its children",
        ("5e1fa", "all that is known of the task whose id begins so"),
        ("5e1fa --logs-only", "what workers logged of it, alone"),
        ("5e1fa --debug", "nothing is cut short"),
    )  # fmt: skip
    _add_id(task)
    task.add_argument("--logs-only", action="store_true", help="its log lines alone")
    task.add_argument("--debug", action="store_true", help="all parameters, messages and log lines, in full")
    why = _add(commands, shared, "why", "why a task waits, what it waits for, how it ended", ("5e1fa", "one task"))
    _add_id(why)
    tasks = _add(
        commands, shared, "tasks", "the newest tasks",
        ("--status Failed --hours 24", "what failed of what was added since yesterday"),
        ("--worker gpu-1 --summary", "what the tasks of a worker come to"),
        ("--text harbour", "tasks whose prompt, id, type, model or message holds a word"),
    )  # fmt: skip
    tasks.add_argument(
        "--status", choices=[status.value for status in Status], metavar="S", help=f"{', '.join(Status)}"
    )
    tasks.add_argument("--type", dest="task_type", metavar="T", help="tasks of this type alone")
    tasks.add_argument("--worker", metavar="W", help="claimed by this worker: its id, or the name it was given")
    tasks.add_argument("--hours", type=float, metavar="H", help="added within the last H hours")
    tasks.add_argument("--text", metavar="T", help="a part of the id, type, model, error message or prompt")
    tasks.add_argument("--limit", type=int, default=50, metavar="N", help="at most this many (default: 50)")
    tasks.add_argument("--summary", action="store_true", help="what they come to, alone")
    waiting = _add(
        commands, shared, "orchestrator",
        "the orchestrators that wait for their children, and whether these get on (exit code 1: one does not)",
        ("", "all of them"),
    )  # fmt: skip
    waiting.add_argument("--hours", type=float, metavar="H", help="those added within the last H hours")


def _add_workers(commands: Any, shared: CommandParser) -> None:
    worker = _add(
        commands, shared, "worker", "one worker: its state, its GPU's time, its tasks, its log",
        ("gpu-1", "the worker of that name that started last"),
        ("gpu-1 --startup --logs-only", "what it logged when it started"),
    )  # fmt: skip
    worker.add_argument("id", metavar="ID", help="its id, its name, or the first letters of its id")
    worker.add_argument("--hours", type=float, default=24, metavar="H", help="look back so far (default: 24)")
    worker.add_argument("--logs-only", action="store_true", help="its log lines alone")
    worker.add_argument("--startup", action="store_true", help="the first log lines since it started, not the latest")
    worker.add_argument("--check-disk", action="store_true", help="whether it has the room that it needs")
    worker.add_argument("--check-logging", action="store_true", help="whether its log lines arrive")
    workers = _add(
        commands, shared, "workers", "the workers, and which of them are alive",
        ("--detailed", "with what each ended within the last 2 hours, and how"),
    )  # fmt: skip
    workers.add_argument("--detailed", action="store_true", help="what each ended, how much failed, and of what")
    workers.add_argument("--hours", type=float, metavar="H", help="the same, within the last H hours (default: 2)")
    logs = _add(
        commands, shared, "logs", "what workers logged",
        ("--level WARNING --hours 1", "warnings and errors of the last hour"),
        ("5e1fa", "of one task"),
        ("--worker gpu-1 --follow", "of one worker, and go on as more comes"),
    )  # fmt: skip
    logs.add_argument("id", nargs="?", metavar="TASK", help="of this task: its id, or the first letters of it")
    logs.add_argument("--worker", metavar="W", help="of this worker: its id, or the name it was given")
    logs.add_argument("--level", metavar="L", type=str.upper, choices=LEVELS, help=f"at least: {', '.join(LEVELS)}")
    logs.add_argument("--hours", type=float, metavar="H", help="of the last H hours")
    logs.add_argument("--text", metavar="T", help="that hold this text")
    logs.add_argument("--limit", type=int, default=200, metavar="N", help="at most this many (default: 200)")
    logs.add_argument("--follow", action="store_true", help="go on as more comes; Ctrl-C ends it")
    watch = _add(
        commands, shared, "watch", "live: the queue, each worker's GPU, what ended, the log (q quits)",
        ("", "until q or Ctrl-C"),
        ("--once", "one look, for a pipe or a report"),
    )  # fmt: skip
    watch.add_argument("--once", action="store_true", help="one look; so too where there is no terminal")


def _add_installation(commands: Any, shared: CommandParser) -> None:
    _add(
        commands, shared, "health", "whether tasks are worked off (exit code 1: something is wrong)",
        ("|| mail -s 'queue' me@example.org", "for a cron job"),
    )  # fmt: skip
    config = _add(
        commands, shared, "config", "every setting, its value here, and where that comes from",
        ("--explain", "and what each means"),
    )  # fmt: skip
    config.add_argument("--explain", action="store_true", help="what each setting means")
    disk = _add(
        commands, shared, "disk", "what lies on this machine's disks, and whose it is",
        ("--clean", "remove what nobody needs any more"),
    )  # fmt: skip
    disk.add_argument("--clean", action="store_true", help="remove what nobody needs any more")
    disk.add_argument(
        "--main-output-dir", type=Path, metavar="DIR", help="the worker's scratch space (default: MAIN_OUTPUT_DIR)"
    )
    doctor = _add(
        commands, shared, "doctor", "check this installation (exit code 1: something failed)",
        ("--model vace_14B", "also whether the weights of a model are whole"),
    )  # fmt: skip
    doctor.add_argument(
        "--model", action="append", default=[], dest="models", metavar="M",
        help="look whether this model's weights are whole; repeatable",
    )  # fmt: skip
    page = _add(
        commands, shared, "serve", "all of this as a page for a browser (docs/page.md)",
        ("--port 0", "on a port that is free"),
    )  # fmt: skip
    page.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; others than this machine's need a token"
    )
    page.add_argument("--port", type=int, default=8700, help="0 takes a free one (default: 8700)")
    page.add_argument(
        "--token", dest="page_token", metavar="@FILE", action=TokenAction,
        help="lets people change tasks; better by PAGE_TOKEN",
    )  # fmt: skip


def _add_outputs(commands: Any, shared: CommandParser) -> None:
    show = _add(
        commands, shared, "visualize", "draw a finished travel with its timeline",
        ("5e1fa -o travel.mp4", "as a video"),
    )  # fmt: skip
    _add_id(show)
    show.add_argument("-o", "--output", type=Path, metavar="FILE", help="an mp4 (default: ID_visualization.mp4)")
    show.add_argument("--layout", choices=LAYOUTS, default=LAYOUTS[0], help=f"default: {LAYOUTS[0]}")
    again = _add(
        commands, shared, "replay", "queue again what made a picture or video",
        ("travel.mp4 --dry-run", "show what would be queued"),
    )  # fmt: skip
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
