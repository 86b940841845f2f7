"""`debug.py why`: why a task waits, runs, or ended as it did."""

from __future__ import annotations

from dataclasses import asdict

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from source.diagnostics.reasons import reasons
from source.diagnostics.rendering import STYLES
from source.diagnostics.views import View
from source.diagnostics.words import printable
from source.logs import redact_values
from source.store.base import TaskStore
from source.store.types import AffinityBound


def why_view(store: TaskStore, task_id: str, bound: AffinityBound) -> View:
    """Sentences, and the facts that they were made of. Raises TaskNotFound."""
    facts = store.circumstances(task_id)
    view = {name: getattr(facts.task, name) for name in ("id", "task_type", "status")}
    return {**view, "reasons": redact_values(reasons(facts, bound)), "facts": redact_values(asdict(facts))}


def rendered_why(view: View) -> RenderableType:
    """The task, and a sentence a line."""
    head = Text.assemble(
        (view["id"], "bold"), f"  {printable(view['task_type'])}  ", (view["status"], STYLES[view["status"]])
    )
    return Group(head, *(Padding(Text(printable(reason)), (0, 0, 0, 2)) for reason in view["reasons"]))
