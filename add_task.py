#!/usr/bin/env python3
"""Add one task and print its id. Exit code: 1 bad input (nothing was added), 2 the database failed."""

from __future__ import annotations

import json
import sys

from source.command_line import CommandParser, database_of, exit_code
from source.enqueue import enqueue, read_params
from source.errors import WanError
from source.settings import load_settings
from source.task_registry import registry


def parser() -> CommandParser:
    """The flags."""
    flags = CommandParser("add_task.py", description=__doc__, add_help=False)
    flags.add_type_help()
    flags.add_argument("--type", dest="task_type", help="task type; --list-types shows them")
    flags.add_argument("--params", metavar="JSON|@FILE", help="the parameters, or a file that holds them")
    flags.add_argument("--dependant-on", action="append", default=[], metavar="ID", help="run after this; repeatable")
    flags.add_argument("--priority", type=int, default=0, help="larger first (default: 0)")
    flags.add_argument(
        "--project-id", metavar="ID", help="project of the row (on Supabase a UUID; default: your only one)"
    )
    flags.add_database()
    flags.add_argument("--list-types", action="store_true", help="show the task types and leave")
    flags.add_argument("--schema", metavar="TYPE", help="print a task type's parameters as JSON Schema and leave")
    flags.add_version()
    return flags


def main() -> int:
    """Parse the flags, check the task, add it."""
    flags = parser()
    try:
        given = flags.parse_args()
        if given.list_types:
            print("\n".join(f"{kind.name:28} {kind.help}" for kind in registry()))
        elif given.schema:
            print(json.dumps(registry().get(given.schema).schema(), indent=2, ensure_ascii=False))
        elif given.task_type and given.params:
            settings, params = load_settings(**database_of(given)), read_params(given.params)
            print(enqueue(
                settings, given.task_type, params, dependant_on=given.dependant_on, priority=given.priority,
                project_id=given.project_id,
            ))  # fmt: skip
        else:
            flags.error("--type and --params are needed")
    except WanError as error:
        print(f"add_task.py: {error}", file=sys.stderr)
        return exit_code(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
