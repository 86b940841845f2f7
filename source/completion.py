"""Completion scripts for shells, with the names of task types and models in them. `--print-completion` prints one."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import shtab

from source.settings import load_settings
from source.task_registry import registry


def completion_script(parser: argparse.ArgumentParser, shell: str, also: str = "") -> str:
    """The script of a shell for the command `parser.prog`, and for `also`, another name that it was called
    by. The parser is of no use for anything else afterwards: its flags have got choices."""
    for each in _all_parsers(parser):
        for action in each._actions:
            _say_what_follows(action)
    written = shtab.complete(parser, shell)
    return written + (_registered(parser.prog, shell, also) if also and also != parser.prog else "")


def _all_parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in dict.fromkeys(action.choices.values()):
                yield from _all_parsers(each)


def _say_what_follows(action: argparse.Action) -> None:
    """Names for flags that take one, files and folders for those that take a path."""
    if action.dest in _WORDS and not action.choices and action.nargs != 0:
        action.choices = list(_WORDS[action.dest]())
    elif action.type is Path:
        vars(action)["complete"] = shtab.DIRECTORY if "DIR" in str(action.metavar) else shtab.FILE


def _task_types() -> Sequence[str]:
    return [kind.name for kind in registry()]


def _models() -> Sequence[str]:
    from Wan2GP.definitions import load_definitions

    own = load_settings().finetunes
    return list(load_definitions((own,) if own.is_dir() else ()))


#: where a flag's value goes -> the names that it takes
_WORDS: dict[str, Callable[[], Sequence[str]]] = {
    "task_type": _task_types,
    "schema": _task_types,
    "help": _task_types,
    "models": _models,
    "model": _models,
    "preload_model": _models,
}


def _registered(prog: str, shell: str, also: str) -> str:
    """The line by which the other name is completed as well."""
    function = f"_shtab_{shtab.wordify(prog)}"
    lines = {
        "bash": f"complete -o bashdefault -F {function} {also}",
        "zsh": f"compdef {function} {also}",
        "fish": f"complete -c {also} -w {prog}",
        "tcsh": f"# {also} is not completed by tcsh: call it {prog}",
    }
    return f"\n{lines[shell]}\n"
