"""What every command of the project shares: help with examples and exit codes, a version, and wrong arguments that
end with exit code 1."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from Wan2GP.errors import did_you_mean

DISTRIBUTION = "headless-wan2gp"
#: exit code of a wrong argument
BAD_INPUT = 1


class Command(argparse.ArgumentParser):
    """A parser whose `--help` ends with examples and exit codes.

    `examples` are (command line, what it does); `codes` say what an exit code means.
    """

    def __init__(
        self, prog: str | None = None, *, description: str | None = None, examples: Sequence[tuple[str, str]] = (),
        codes: Mapping[int, str] | None = None, **more: Any,
    ) -> None:  # fmt: skip
        more.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(prog, description=(description or "").strip(), **more)
        self.register("action", "parsers", _Subcommands)
        self.examples = tuple(examples)
        self.codes = dict(codes or {})
        self.epilog = self._ending()

    def error(self, message: str) -> NoReturn:
        """Leave with exit code 1: in some commands 2 says that the database is at fault."""
        self.print_usage(sys.stderr)
        self.exit(BAD_INPUT, f"{self.prog}: {message}{_near(message) or ';'} `{self.prog} --help` shows examples\n")

    def add_version(self) -> None:
        """`--version`."""
        self.add_argument("--version", action=VersionAction)

    def _ending(self) -> str:
        lines = ["examples:"] if self.examples else []
        for command, meaning in self.examples:
            lines += [f"  {command}", f"      {meaning}"]
        if self.codes:
            lines += [*([""] if lines else []), "exit codes:"]
            lines += [f"  {code:<4}{meaning}" for code, meaning in self.codes.items()]
        return "\n".join(lines)


def _near(message: str) -> str:
    """What a wrong choice may have been meant for: argparse tells the choices in its message alone."""
    found = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
    if not found:
        return ""
    hint = did_you_mean(found[1], (each.strip(" '") for each in found[2].split(",")))
    return f".{hint}" if hint else ""


class _Subcommands(argparse._SubParsersAction):  # type: ignore[type-arg]
    """What the list says of a command, its own help says too."""

    def add_parser(self, name: str, **settings: Any) -> Any:
        settings.setdefault("description", settings.get("help"))
        return super().add_parser(name, **settings)


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
