"""What the three commands share: a parser."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

DISTRIBUTION = "headless-wan2gp"


class CommandParser(argparse.ArgumentParser):
    """Leaves with exit code 1 when an argument is wrong: 2 says that the database is."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(1, f"{self.prog}: {message}\n")

    def add_version(self) -> None:
        self.add_argument("--version", action=VersionAction)


class VersionAction(argparse.Action):
    """`--version`: print the installed version and leave. It is looked up only when asked for: that takes a while."""

    def __init__(self, option_strings: Sequence[str], dest: str, **settings: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, help="show the version and leave")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib import metadata

        try:
            installed = metadata.version(DISTRIBUTION)
        except metadata.PackageNotFoundError:
            installed = "unknown: run from a folder that was never installed"
        parser.exit(0, f"{parser.prog} {installed}\n")
