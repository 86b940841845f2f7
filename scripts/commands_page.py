"""The commands and their flags as Markdown, from the parsers themselves: docs/commands.md."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator

import demo
import document
import generate_test_tasks
import inpaint_frames_example
import join_clips_example
import licences
import processors
from tables import table

import add_task
import debug
import worker
from source.devstack import __main__ as devstack
from Wan2GP import models
from Wan2GP.command_line import Command


def parsers() -> list[Command]:
    """Every command that takes flags, those of daily use first."""
    daily = (worker, add_task, debug, models, devstack)
    scripts = (demo, generate_test_tasks, join_clips_example, inpaint_frames_example, processors)
    return [each.parser() for each in (*daily, *scripts, document, licences)]


def commands() -> str:
    return "\n\n".join(_section(each) for each in parsers())


def _section(parser: Command) -> str:
    parts = [f"## {parser.prog}", parser.description or "", _flags(parser._actions)]
    subs = dict(_subcommands(parser))
    shared = [each for each in _flag_list(subs.values()) if all(each in sub._actions for sub in subs.values())]
    for name, sub in subs.items():
        own = [action for action in sub._actions if action not in shared]
        parts += [f"### {parser.prog} {name}", sub.description or "", _flags(own)]
    if shared:
        parts += [f"### Flags of every `{parser.prog}` command", _flags(shared)]
    if parser.examples:
        parts.append(table(("example", "what it does"), ((f"`{line}`", what) for line, what in parser.examples)))
    if parser.codes:
        parts.append(table(("exit code", "meaning"), ((str(code), what) for code, what in parser.codes.items())))
    return "\n\n".join(filter(None, parts))


def _flag_list(parsers: Iterable[argparse.ArgumentParser]) -> list[argparse.Action]:
    return list(dict.fromkeys(action for parser in parsers for action in parser._actions))


def _flags(actions: Iterable[argparse.Action]) -> str:
    """A table of flags and arguments, without the help that every command has."""
    rows = [
        (_called(each), _meaning(each))
        for each in actions
        if each.help != argparse.SUPPRESS
        and not isinstance(each, argparse._SubParsersAction)
        and (each.option_strings != ["-h", "--help"] or each.metavar)
    ]
    return table(("flag", "meaning"), rows) if rows else ""


def _subcommands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for choice in action._choices_actions:
                yield choice.dest, action.choices[choice.dest]


def _called(action: argparse.Action) -> str:
    """`--flag VALUE`, all names of it."""
    value = _value(action)
    names = [f"`{name}{f' {value}' if value else ''}`" for name in action.option_strings] or [f"`{value}`"]
    return ", ".join(names)


def _value(action: argparse.Action) -> str:
    if action.nargs == 0:
        return ""
    word = action.metavar or ("|".join(map(str, action.choices)) if action.choices else "")
    word = str(word or (action.dest.upper() if action.option_strings else action.dest))
    return f"[{word}]" if action.nargs == "?" else word


def _meaning(action: argparse.Action) -> str:
    return (action.help or "") % {"default": action.default}
