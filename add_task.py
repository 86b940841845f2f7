#!/usr/bin/env python3
"""Add one task and print its id; with --wait follow it to its end and print where its output is."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from source.command_line import CommandParser, database_of, exit_code
from source.enqueue import enqueue, read_params
from source.errors import WanError
from source.settings import Settings, load_settings
from source.task_registry import registry

EXAMPLES = (
    ("""python add_task.py --type t2v --params '{"prompt": "a red ball rolls"}'""", "queue a video, print its id"),
    (
        "python add_task.py --type travel_orchestrator --params @samples/tasks/travel_orchestrator.json --wait",
        "queue a travel from a file, follow it, and print the path of the video",
    ),
    ("python add_task.py --wait --id ID --timeout 3600", "follow a task that is there already, an hour at most"),
    ("python add_task.py --list-types", "the task types; --help TYPE shows the parameters of one"),
    ("python add_task.py --from-wangp queue.zip --dry-run", "what a queue saved in Wan2GP would become"),
)
CODES = {
    0: "the task was added; with --wait: it is Complete",
    1: "bad input, nothing was added",
    2: "the database failed",
    3: "with --wait: the task failed; standard error says why",
    4: "with --wait: it was cancelled",
    5: "with --wait: it had not ended after --timeout seconds, and goes on",
    130: "with --wait: Ctrl-C; the task goes on",
}


def parser() -> CommandParser:
    """The flags."""
    flags = CommandParser("add_task.py", description=__doc__, examples=EXAMPLES, codes=CODES, add_help=False)
    flags.add_type_help()
    flags.add_argument("--type", dest="task_type", metavar="TYPE", help="task type; --list-types shows them")
    flags.add_argument("--params", metavar="JSON|@FILE", help="the parameters, or a file that holds them")
    flags.add_argument(
        "--from-wangp", type=Path, metavar="FILE",
        help="add what Wan2GP saved: settings (.json), a queue (.zip), or an output that holds its settings; a row for "
        "each run",
    )  # fmt: skip
    flags.add_argument(
        "--media", action="append", default=[], metavar="SETTING=PATH",
        help="with --from-wangp: a file that the settings do not hold, as image_start=first.png; repeatable",
    )  # fmt: skip
    flags.add_argument("--dry-run", action="store_true", help="with --from-wangp: print the rows, add none")
    flags.add_argument("--dependant-on", action="append", default=[], metavar="ID", help="run after this; repeatable")
    flags.add_argument("--priority", type=int, default=0, help="larger first (default: 0)")
    flags.add_argument(
        "--project-id", metavar="ID", help="project of the row (on Supabase a UUID; default: your only one)"
    )
    flags.add_argument("--wait", action="store_true", help="follow the task to its end, print where its output is")
    flags.add_argument(
        "--id", action="append", default=[], dest="ids", metavar="ID",
        help="with --wait: follow this task, and add none; repeatable",
    )  # fmt: skip
    flags.add_argument("--timeout", type=_seconds, metavar="S", help="with --wait: for at most S seconds")
    flags.add_database()
    flags.add_argument("--list-types", action="store_true", help="show the task types and leave")
    flags.add_argument("--json", action="store_true", help="with --list-types: as JSON")
    flags.add_argument("--schema", metavar="TYPE", help="print a task type's parameters as JSON Schema and leave")
    flags.add_version()
    flags.add_completion()
    return flags


def main() -> int:
    """Parse the flags, check the task, add it, and follow it where that is asked."""
    flags = parser()
    try:
        given = flags.parse_args()
        if given.list_types:
            list_types(given.json)
            return 0
        if given.schema:
            print(json.dumps(registry().get(given.schema).schema(), indent=2, ensure_ascii=False))
            return 0
        check(flags, given)
        settings = load_settings(**database_of(given))
        if given.dry_run:
            print(json.dumps(planned(settings, given), indent=2, ensure_ascii=False))
            return 0
        ids = given.ids or (added_from_wangp if given.from_wangp else added)(settings, given)
        if given.wait:
            return followed(settings, ids, given.timeout)
    except (WanError, OSError) as error:
        print(f"add_task.py: {error}", file=sys.stderr)
        return exit_code(error)
    print("\n".join(ids))
    return 0


def list_types(as_json: bool) -> None:
    """Print the task types."""
    from source.parameter_help import print_types, type_list

    if as_json:
        print(json.dumps(type_list(), indent=2, ensure_ascii=False))
    else:
        print_types()


def check(flags: CommandParser, given: argparse.Namespace) -> None:
    """Leave with a message when flags are missing that others need."""
    if given.ids and not given.wait:
        flags.error("--id names a task to follow: give --wait too")
    ways = [bool(given.ids), bool(given.from_wangp), bool(given.task_type or given.params)]
    if sum(ways) > 1:
        flags.error("--type and --params, --from-wangp, and --id are three ways; take one")
    if (given.dry_run or given.media) and not given.from_wangp:
        flags.error("--dry-run and --media belong to --from-wangp")
    if given.timeout is not None and not given.wait:
        flags.error("--timeout says how long to follow a task: give --wait too")
    if not given.ids and not given.from_wangp and not (given.task_type and given.params):
        flags.error("--type and --params are needed")


def added(settings: Settings, given: argparse.Namespace) -> list[str]:
    """Add what the flags say; the ids. Raises InvalidInput and StoreError."""
    params = read_params(given.params)
    return [
        enqueue(
            settings, given.task_type, params, dependant_on=given.dependant_on, priority=given.priority,
            project_id=given.project_id,
        )
    ]  # fmt: skip


def planned(settings: Settings, given: argparse.Namespace) -> list[dict[str, Any]]:
    """What a file of Wan2GP would become. Raises InvalidInput."""
    from source.wangp.queueing import as_json, named_files, rows_of

    return as_json(rows_of(given.from_wangp, settings, named_files(given.media)))


def added_from_wangp(settings: Settings, given: argparse.Namespace) -> list[str]:
    """Add what a file of Wan2GP holds; the ids. Notes go to standard error. Raises InvalidInput and StoreError."""
    from source.wangp.queueing import enqueue_saved, named_files

    rows = enqueue_saved(
        given.from_wangp, settings, named_files(given.media), dependant_on=given.dependant_on, priority=given.priority,
        project_id=given.project_id,
    )  # fmt: skip
    notes = (f"{row.entry.partition(',')[0]}: {note}" for row in rows.values() for note in row.notes)
    for line in dict.fromkeys(notes):
        print(f"add_task.py: {line}", file=sys.stderr)
    return list(rows)


def followed(settings: Settings, ids: Sequence[str], timeout_s: float | None) -> int:
    """Follow the tasks, print their outputs, and return the exit code. Raises TaskNotFound and StoreError."""
    from source.following import location_of, said_of, watch

    outcome = watch(settings, ids, timeout_s)
    for task in outcome.tasks:
        if task.status == "Complete":
            print(location_of(task, settings))
        else:
            print(f"add_task.py: {said_of(task, settings)}", file=sys.stderr)
    return outcome.code


def _seconds(text: str) -> float:
    if not (seconds := float(text)) > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
