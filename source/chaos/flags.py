"""The flags of `debug.py chaos`, apart from what they start: that takes a moment to import."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from source.command_line import CommandParser

GROUNDS = ("sqlite", "stack", "project")


def add_chaos(commands: Any, shared: CommandParser) -> None:
    """Declare the command."""
    chaos = commands.add_parser(
        "chaos", parents=[shared],
        help="kill, stop and cut off workers that run a fake engine, on a database of its own, and check what they did",
    )  # fmt: skip
    chaos.add_argument("--seed", type=int, metavar="N", help="repeat this plan of faults (default: a new one)")
    chaos.add_argument("--faults", type=int, default=100, metavar="N", help="default: 100")
    chaos.add_argument("--workers", type=int, default=3, metavar="N", help="worker processes (default: 3)")
    chaos.add_argument(
        "--on", action="append", choices=GROUNDS, metavar="DATABASE",
        help="sqlite: a new file; stack: a new local stack (Postgres); project: the Supabase project, as a person who "
        "has no other tasks there; repeatable (default: sqlite, or project where the database is Supabase)",
    )  # fmt: skip
    chaos.add_argument("--folder", type=Path, metavar="DIR", help="where new databases lie (default: a temporary one)")
    chaos.add_argument("--report", type=Path, metavar="FILE", help="also write a page (Markdown)")
