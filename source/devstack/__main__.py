"""Supabase on this machine: database, Edge Functions, storage."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from pathlib import Path

from rich.console import Console

from source.command_line import CommandParser
from source.devstack.stack import Stack, edited_since, exports
from Wan2GP.errors import WanError

#: seconds between two looks whether all parts still run
_LOOK_S = 2.0

EXAMPLES = (
    ("python -m source.devstack up", "start it, and print what to export"),
    ('eval "$(python -m source.devstack env)"', "use it from this shell"),
    ("python -m source.devstack run", "the same in a container: stay until SIGTERM"),
    ("python -m source.devstack down", "stop it; its data stays"),
)
CODES = {0: "done", 1: "something is missing or wrong, or (status) a part does not answer"}


def parser() -> CommandParser:
    """The commands and their flags."""
    flags = CommandParser("python -m source.devstack", description=__doc__, examples=EXAMPLES, codes=CODES)
    flags.add_version()
    flags.add_argument("--folder", type=Path, default=Path(".devstack"), help="data, keys, logs (default: .devstack)")
    commands = flags.add_subparsers(dest="command", required=True, metavar="up|run|down|status|env")
    up = commands.add_parser("up", help="start what does not run; apply new migrations")
    run = commands.add_parser(
        "run", help="the same, and stay until SIGTERM or Ctrl-C, then stop everything: for containers"
    )
    for command in (up, run):
        command.add_argument(
            "--port", type=_port, help="of the gateway (default: 54321, or a free one; then the same again)"
        )
    down = commands.add_parser("down", help="stop everything; data stays")
    down.add_argument("--erase", action="store_true", help="remove the folder too, with database, objects and keys")
    commands.add_parser("status", help="which parts answer")
    commands.add_parser("env", help='print export lines, for: eval "$(python -m source.devstack env)"')
    return flags


def main() -> int:
    """Run one command."""
    given = parser().parse_args()
    commands = {"up": _up, "run": _run, "down": _down, "status": _status, "env": _env}
    try:
        return commands[given.command](Stack(given.folder), given)
    except BrokenPipeError:  # `… | head` has what it wanted; what Python flushes as it leaves must not fail as well
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (WanError, OSError) as error:
        print(f"devstack: {error}", file=sys.stderr)
        return 1


def _port(text: str) -> int:
    port = int(text)
    if not 0 < port < 65536:
        raise ValueError(text)
    return port


def _up(stack: Stack, given: argparse.Namespace) -> int:
    begun = time.monotonic()
    with Console(stderr=True).status("starting the database, storage and functions"):  # seen on a terminal alone
        started = stack.up(gateway_port=given.port)
    for name in started.migrations:
        print(f"applied {name}")
    if started.edited:
        print(f"warning: {edited_since(started.edited)}", file=sys.stderr)
    if started.parts:
        print(f"started {', '.join(started.parts)} in {time.monotonic() - begun:.1f} s: {stack.url}")
    else:
        print(f"it runs already: {stack.url}")
    print(f"the environment to use, also in {stack.folder / 'environment'}:\n")
    return _env(stack, given)


def _run(stack: Stack, given: argparse.Namespace) -> int:
    """1 when a part ended by itself: whoever started this may start all of it again."""
    told = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told.set())
    started = stack.up(gateway_port=given.port)
    print(f"{stack.url} answers; {len(started.migrations)} migrations applied", flush=True)
    ended = None
    while ended is None and not told.wait(_LOOK_S):
        ended = next((part.name for part in stack.parts() if part.process() is None), None)
    stack.down()
    if ended:
        print(f"devstack: {ended} ended by itself; its log is in {stack.folder / 'logs'}", file=sys.stderr)
    return 1 if ended else 0


def _down(stack: Stack, given: argparse.Namespace) -> int:
    stopped = stack.down(erase=given.erase)
    print(f"stopped {', '.join(stopped)}" if stopped else "nothing ran")
    return 0


def _status(stack: Stack, _: argparse.Namespace) -> int:
    well = True
    for part in stack.parts():
        process = part.process()
        answers = process is not None and part.answers()
        state = "answers" if answers else "runs, but does not answer" if process else "does not run"
        print(f"{part.name:9} port {part.port:5} {state}" + ("" if answers else f"; its log: {part.log}"))
        well = well and answers
    return 0 if well else 1


def _env(stack: Stack, _: argparse.Namespace) -> int:
    print("\n".join(exports(stack.environment())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
