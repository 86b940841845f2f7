#!/usr/bin/env python3
"""Look at tasks, stop them, queue them again; look at workers, check an installation."""

from __future__ import annotations

import json
import sys
from functools import partial

from rich.console import Console, RenderableType
from rich.prompt import Confirm
from rich.status import Status

from source.command_line import CommandParser, database_of, exit_code
from source.diagnostics.answers import Terminal, answer
from source.diagnostics.commands import CODES, EXAMPLES, add_commands
from source.diagnostics.words import printable
from source.errors import InvalidInput, WanError
from source.settings import load_settings

#: columns where there is no terminal to ask
WIDTH = 200


def parser() -> CommandParser:
    """The commands and their flags."""
    shared = CommandParser(add_help=False)
    shared.add_database()
    shared.add_argument("--json", action="store_true", help="print JSON")
    flags = CommandParser("debug.py", description=__doc__, examples=EXAMPLES, codes=CODES)
    flags.add_version()
    flags.add_completion()
    add_commands(flags, shared)
    return flags


def confirmed(working: Status, changes: RenderableType, question: str) -> bool:
    """Ask whether the changes are to be made. Raises InvalidInput where nobody can be asked."""
    if not sys.stdin.isatty():
        raise InvalidInput("this is no terminal to ask on: --yes does it, --dry-run shows what it would change")
    working.stop()
    console = Console(stderr=True)
    console.print(changes)
    return Confirm.ask(question, console=console, default=False)


def main() -> int:
    """Parse the command and print its answer."""
    given = parser().parse_args()
    console = Console(width=None if sys.stdout.isatty() else WIDTH)  # it also knows what to do when `head` hangs up
    try:
        settings = load_settings(**database_of(given))
        with Console(stderr=True).status("") as working:  # seen on a terminal alone
            said = answer(settings, given, Terminal(console, working, partial(confirmed, working)))
    except (WanError, OSError) as error:
        print(f"debug.py: {printable(str(error))}", file=sys.stderr)
        return exit_code(error) if isinstance(error, WanError) else 1
    if given.json:
        console.out(json.dumps(said.view, indent=2, ensure_ascii=False), highlight=False)
    elif isinstance(said.readable, str):  # a line for a program as well: neither wrapped nor read as markup
        console.out(said.readable, highlight=False)
    else:
        console.print(said.readable)
    return said.code


if __name__ == "__main__":
    sys.exit(main())
