#!/usr/bin/env python3
"""Look at tasks, stop them, queue them again; look at workers, check an installation.

Exit code: 1 not found, not possible, or the doctor found a failure; 2 the database failed.
"""

from __future__ import annotations

import json
import sys

from rich.console import Console

from source.command_line import CommandParser, database_of, exit_code
from source.diagnostics.commands import add_commands, answer
from source.diagnostics.rendering import printable
from source.errors import WanError
from source.settings import load_settings

#: columns where there is no terminal to ask
WIDTH = 200


def parser() -> CommandParser:
    """The commands and their flags."""
    shared = CommandParser(add_help=False)
    shared.add_database()
    shared.add_argument("--json", action="store_true", help="print JSON")
    flags = CommandParser("debug.py", description=__doc__)
    flags.add_version()
    add_commands(flags, shared)
    return flags


def main() -> int:
    """Parse the command and print its answer."""
    given = parser().parse_args()
    try:
        settings = load_settings(**database_of(given))
        with Console(stderr=True).status("") as working:  # seen on a terminal alone
            said = answer(settings, given, working.update)
    except WanError as error:
        print(f"debug.py: {printable(str(error))}", file=sys.stderr)
        return exit_code(error)
    except OSError as error:
        print(f"debug.py: {error}", file=sys.stderr)
        return 1
    console = Console(width=None if sys.stdout.isatty() else WIDTH)  # it also knows what to do when `head` hangs up
    if given.json:
        console.out(json.dumps(said.view, indent=2, ensure_ascii=False), highlight=False)
    elif isinstance(said.readable, str):  # a line for a program as well: neither wrapped nor read as markup
        console.out(said.readable, highlight=False)
    else:
        console.print(said.readable)
    return said.code


if __name__ == "__main__":
    sys.exit(main())
