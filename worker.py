#!/usr/bin/env python3
"""Run tasks of the tasks table, until told to stop."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

if __name__ == "__main__" or Path(sys.argv[0]).name == "headless-wan2gp-worker":
    # Until the worker listens by itself nothing is claimed, so it may leave at any moment. At once, for an exception
    # could get lost in what is being imported.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))

from source.command_line import CommandParser, exit_code
from source.errors import WanError
from source.settings import load_settings

EXAMPLES = (
    ("python worker.py", "run what stands in tasks.db, and wait for more; Ctrl-C or SIGTERM ends it, no task is lost"),
    ("python worker.py --until-idle --db-file work/tasks.db", "leave when every task has ended"),
    ("python worker.py --supervise --wgp-profile 4", "on a GPU of little memory, and replaced whenever it dies"),
    (
        "SUPABASE_ACCESS_TOKEN=@token python worker.py --db-type supabase --supabase-url https://abc.supabase.co",
        "run the tasks of a Supabase project",
    ),
    ("python worker.py --migrate-only", "bring the database up to date, and leave"),
)
CODES = {
    0: "stopped, or idle with --until-idle",
    1: "wrong configuration: a flag, a setting, a token",
    2: "no database, or a full disk at the start: later may be better",
    3: "the GPU was lost, or its engine hangs: start another worker",
    4: "an unforeseen failure; the log says which",
}


def parser() -> CommandParser:
    """The flags. One that is not given leaves the setting to the environment, the .env file or its default."""
    flags = CommandParser("worker.py", description=__doc__, examples=EXAMPLES, codes=CODES)
    flags.add_database()
    flags.add_argument("--main-output-dir", type=Path, help="scratch space (default: outputs)")
    flags.add_argument("--poll-interval", dest="poll_interval_s", type=float, help="seconds (default: 10)")
    flags.add_argument("--worker", metavar="NAME", help="name of this worker (default: the host's)")
    flags.add_argument("--ckpts", type=Path, help="folder of model weights (default: ckpts)")
    flags.add_argument("--wan-dir", type=Path, help="an upstream Wan2GP checkout that is the engine")
    flags.add_argument("--wan-python", type=Path, help="its Python (default: that of its own environment)")
    flags.add_argument("--device", help="torch device (default: the GPU when there is one)")
    flags.add_argument("--preload-model", metavar="MODEL", help="model to load at start")
    flags.add_engine()
    flags.add_argument("--mask-active-frames", action=argparse.BooleanOptionalAction, help="give VACE a mask video")
    flags.add_argument(
        "--colour-match-videos", action=argparse.BooleanOptionalAction,
        help="match the colours of each segment of a travel to its images",
    )  # fmt: skip
    flags.add_argument(
        "--previews", action=argparse.BooleanOptionalAction, help="keep pictures of what is generated (default: yes)"
    )
    switch = {"action": "store_true", "default": None}
    flags.add_argument("--debug", help="verbose log, to a file too; keep scratch folders", **switch)
    flags.add_argument("--skip-cleanup", "--skip_cleanup", help="keep scratch folders", **switch)
    flags.add_argument(
        "--save-logging", nargs="?", const=Path("logs/worker.log"), type=Path, metavar="FILE", help="also log to a file"
    )
    flags.add_argument(
        "--metrics-port", type=int, metavar="PORT",
        help="answer Prometheus there, for this machine (docs/monitoring.md)",
    )  # fmt: skip
    flags.add_argument("--until-idle", action="store_true", help="leave when no task is left to do")
    flags.add_argument("--migrate-only", action="store_true", help="bring the database up to date and leave")
    flags.add_argument("--supervise", action="store_true", help="replace the worker by another one whenever it dies")
    flags.add_argument("--supervised", action="store_true", help=argparse.SUPPRESS)  # by a process that holds our stdin
    flags.add_outdated()
    flags.add_version()
    flags.add_completion()
    return flags


def main() -> int:
    """Parse the flags and run."""
    flags = vars(parser().parse_args())
    until_idle, migrate_only = flags.pop("until_idle"), flags.pop("migrate_only")
    supervise, supervised = flags.pop("supervise"), flags.pop("supervised")
    try:
        settings = load_settings(**flags)
        if supervise and not migrate_only:
            from source.supervision import run_supervisor

            return run_supervisor(settings, sys.argv[1:])
        from source.startup import run_worker

        return run_worker(settings, until_idle=until_idle, migrate_only=migrate_only, supervised=supervised)
    except (WanError, OSError) as error:
        print(f"worker.py: {error}", file=sys.stderr)
        return exit_code(error)


if __name__ == "__main__":
    sys.exit(main())
