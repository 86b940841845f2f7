"""What the three commands share: a parser, and the flags that say which database."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from source.errors import RefusedWrite, StoreError, TaskNotFound, WanError, disk_full
from Wan2GP.command_line import Command

SHELLS = ("bash", "zsh", "fish", "tcsh")
_SEE = "see docs/settings.md"


class CommandParser(Command):
    """A command of this half, with the flags that several have."""

    def add_type_help(self) -> None:
        """`--help` alone shows the flags, `--help TYPE` the parameters of a task type."""
        self.add_argument("-h", "--help", action=HelpAction)

    def add_database(self) -> None:
        """The flags that say which database."""
        self.add_argument("--db-type", choices=("sqlite", "supabase"), help="database backend (default: sqlite)")
        self.add_argument("--db-file", type=Path, help="SQLite file (default: tasks.db)")
        self.add_argument("--supabase-url", metavar="URL", help="address of the Supabase project")
        self.add_argument(
            "--supabase-anon-key", metavar="KEY", help="its publishable key, where a gateway asks for one"
        )
        self.add_argument(
            "--supabase-access-token", "--reigh-access-token", metavar="@FILE", action=TokenAction,
            help="its service key, a personal access token or a user JWT; better by SUPABASE_ACCESS_TOKEN",
        )  # fmt: skip

    def add_engine(self) -> None:
        """The flags that say how the engine uses the machine (docs/memory.md); what each takes is in
        docs/settings.md."""
        self.add_argument("--wgp-profile", type=int, metavar="1-5", help="memory profile (default: what fits)")
        self.add_argument("--gpu-budget-gb", type=float, metavar="GB", help="GPU memory for weights of all models")
        self.add_argument("--ram-budget-gb", type=float, metavar="GB", help="RAM for weights of all models")
        self.add_argument("--wgp-preload-policy", metavar="P,S,U", help="U: free the models when no task waits")
        for name in ("vae-config", "boost", "preload", "vae-precision", "mixed-precision"):
            self.add_argument(f"--wgp-{name}", type=int, metavar="N", help=_SEE)
        self.add_argument(
            "--vae-channels-last",
            action="store_true",
            default=None,
            help="convolutions of Wan's VAE keep channels last",
        )
        for name in ("attention-mode", "compile"):
            self.add_argument(f"--wgp-{name}", metavar="WORD", help=_SEE)
        for name in ("transformer-quantization", "transformer-dtype-policy", "text-encoder-quantization"):
            self.add_argument(f"--wgp-{name}", metavar="TYPE", help=_SEE)

    def add_completion(self) -> None:
        """`--print-completion SHELL`."""
        self.add_argument("--print-completion", action=CompletionAction)

    def add_outdated(self) -> None:
        """Flags of older workers that have no counterpart. One is taken where leaving it out makes no other result,
        and refused where it does: nobody shall believe that it acts."""
        for flag, outdated in _OUTDATED.items():
            self.add_argument(
                flag, nargs=outdated.values, action=OutdatedAction, default=argparse.SUPPRESS, help=argparse.SUPPRESS
            )


@dataclass(frozen=True)
class Outdated:
    """A flag of older workers."""

    #: how many values it took
    values: int | str
    #: what stands in its place
    instead: str
    refused: bool


#: of `worker.py`
_OUTDATED = {
    "--queue-workers": Outdated(
        1, "one generation has the GPU at a time; MAX_IN_FLIGHT says how many tasks there are beside it", False
    ),
    "--delete-db": Outdated(0, "a worker never deletes tasks; remove the file of --db-file yourself", True),
    "--apply-reward-lora": Outdated(
        0, "rows name the LoRAs that they want, in activated_loras and loras_multipliers", True
    ),
}  # fmt: skip


def database_of(given: argparse.Namespace) -> dict[str, Any]:
    """What the flags say of the database, as settings."""
    names = ("db_type", "db_file", "supabase_url", "supabase_access_token", "supabase_anon_key")
    return {name: getattr(given, name) for name in names}


def exit_code(error: WanError | OSError) -> int:
    """2 when the database failed, or a disk has no room: the same may succeed later. 1 when what was asked is at fault,
    or the token."""
    from source.edge_functions import TokenRefused

    at_fault = isinstance(error, TaskNotFound | RefusedWrite | TokenRefused)
    return 2 if (isinstance(error, StoreError) and not at_fault) or disk_full(error) else 1


class HelpAction(argparse.Action):
    """`--help [TYPE]`: print the flags or a type's parameters, and leave. Raises InvalidInput for an unknown type."""

    def __init__(self, option_strings: Sequence[str], dest: str, **settings: Any) -> None:
        text = "show this message, or the parameters of a task type, and leave"
        super().__init__(option_strings, dest, nargs="?", metavar="TYPE", help=text)

    def __call__(self, parser: argparse.ArgumentParser, _: object, value: object, __: str | None = None) -> NoReturn:
        if value is None:
            parser.print_help()
        else:
            from source.parameter_help import print_help

            print_help(str(value))
        parser.exit(0)


class CompletionAction(argparse.Action):
    """`--print-completion SHELL`: print the script and leave. What makes it is imported only when asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str, **settings: Any) -> None:
        text = f"print what completes this command in a shell, and leave: {', '.join(SHELLS)} (docs/commands.md)"
        super().__init__(option_strings, dest, metavar="SHELL", choices=SHELLS, help=text)

    def __call__(self, parser: argparse.ArgumentParser, _: object, value: object, __: str | None = None) -> NoReturn:
        from source.completion import completion_script

        sys.stdout.write(completion_script(parser, str(value), Path(sys.argv[0]).name))
        parser.exit(0)


class OutdatedAction(argparse.Action):
    """A flag that has no meaning any more: says what stands in its place, and leaves where it is refused."""

    def __call__(
        self, parser: argparse.ArgumentParser, given: argparse.Namespace, values: Any, name: str | None = None
    ) -> None:
        outdated = _OUTDATED[str(name)]
        if outdated.refused:
            parser.error(f"{name} is no longer there: {outdated.instead}")
        sys.stderr.write(f"{parser.prog}: {name} is ignored: {outdated.instead}\n")


class TokenAction(argparse.Action):
    """A token by `@FILE`. One that is written out is taken too, with a warning."""

    def __call__(
        self, parser: argparse.ArgumentParser, given: argparse.Namespace, value: Any, _: object = None
    ) -> None:
        if not str(value).startswith("@"):
            sys.stderr.write(
                f"{parser.prog}: every user of this machine sees a token on a command line (ps shows it); set "
                f"{self.dest.upper()}, or name a file that holds it: {self.option_strings[0]} @FILE\n"
            )
        setattr(given, self.dest, value)
