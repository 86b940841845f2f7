"""Task types and their parameters for people: what `add_task.py --list-types` and `--help TYPE` show."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from source.params.base import TaskParams
from source.params.generating import GeneratingParams
from source.params.schema import ParameterRow, parameter_rows
from source.task_registry import TaskType, registry

#: columns where there is no terminal to ask
WIDTH = 160
#: what all types that generate have: it stands behind what a type has for itself
_SHARED = frozenset(GeneratingParams.model_fields) - frozenset(TaskParams.model_fields)


def print_help(task_type: str) -> None:
    """To standard output, as wide as the terminal. Raises InvalidInput for an unknown type."""
    console = Console()
    (console if console.is_terminal else Console(width=WIDTH)).print(rendered_help(registry().get(task_type)))


def print_types() -> None:
    """The task types to standard output: a table on a terminal, elsewhere a line for each."""
    console = Console()
    if not console.is_terminal:
        for kind in registry():
            console.out(f"{kind.name:36} {kind.help}", highlight=False)
        return
    table = Table("task type", "what it does", "output", "model", box=None, pad_edge=False)
    table.columns[0].no_wrap = True
    for kind in registry():
        table.add_row(Text(kind.name, style="bold"), Text(kind.help), Text(kind.output), Text(kind.default_model or ""))
    console.print(table)


def type_list() -> list[dict[str, Any]]:
    """The task types for programs."""
    return [
        {
            "name": kind.name,
            "help": kind.help,
            "output": kind.output,
            "default_model": kind.default_model,
            "forces_model": kind.forces_model,
            "uses_gpu": kind.uses_gpu,
            "defaults": dict(kind.defaults),
        }
        for kind in registry()
    ]


def rendered_help(kind: TaskType) -> RenderableType:
    """What the type does, its own parameters, then the engine's."""
    rows = list(parameter_rows(kind.schema()))
    own = own_rows(kind, rows)
    engine = [row for row in rows if row not in own]
    model = Text(_model(kind) + _usual(kind))
    levels = Text("The same names may stand in orchestrator_details (weaker) or individual_segment_params (stronger).")
    return Group(
        Text(f"{kind.name}: {kind.help}"), model, levels, _table("Its own", own), _table("The engine's", engine)
    )


def _usual(kind: TaskType) -> str:
    named = ", ".join(f"{name} {value}" for name, value in kind.defaults.items())
    return f". Where the row says nothing: {named}" if named else ""


def own_rows(kind: TaskType, rows: Iterable[ParameterRow]) -> list[ParameterRow]:
    """Those that are not the engine's, and among them last what it shares with all types that generate."""
    own = [row for row in rows if row.field in kind.params.model_fields]
    return sorted(own, key=lambda row: row.field in _SHARED)


def _model(kind: TaskType) -> str:
    if not kind.default_model:
        return "No default model: the row names one where one is needed."
    return f"Model: {kind.default_model}, always" if kind.forces_model else f"Default model: {kind.default_model}"


def _table(title: str, rows: list[ParameterRow]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("parameter", no_wrap=True, overflow="fold")
    for column in ("type", "default", "meaning"):
        table.add_column(column, overflow="fold")
    for row in rows:
        also = f" (also: {', '.join(row.also)})" if row.also else ""
        name = Text(row.name, style="bold" if row.required else "")
        table.add_row(name, Text(row.type), Text(row.default), Text(_meaning(row) + also))
    return table


def _meaning(row: ParameterRow) -> str:
    return f"needed; {row.meaning}" if row.required else row.meaning
