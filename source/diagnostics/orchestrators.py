"""`debug.py orchestrator`: the orchestrators that wait for their children, and whether these get on.

(What scales workers, and is called so elsewhere, is no part of this project and leaves no trace in its database.)
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from source.diagnostics.children import children_view, tally
from source.diagnostics.rendering import line, share_text, status_text
from source.diagnostics.views import View, picked, seconds_between, time_of
from source.diagnostics.words import duration, listed
from source.store.base import TaskStore
from source.store.types import Status, Task, TaskFilter

#: seconds since anything of an orchestrator changed: below the first it gets on, from the second on it does not
HEALTHY_S, STALE_S = 300.0, 900.0
STYLES = {"healthy": "green", "warning": "yellow", "stale": "bold red"}
MOST_SHOWN = 50
_KEYS = ("id", "task_type", "status", "waiting", "created_at", "model")


def orchestrators_view(store: TaskStore, *, hours: float | None = None) -> list[View]:
    """The waiting parents, the newest first: [{id, task_type, status, created_at, share, by_status, total,
    last_activity_s, state, children}].

    last_activity_s   since anything of it changed; state: healthy (below 5 minutes), warning (below 15) or stale
    children          those that are not Complete yet, see `children.children_view`
    hours             those alone that were added since
    """
    chosen = TaskFilter(statuses=(Status.IN_PROGRESS,), newer_than_s=None if hours is None else hours * 3600)
    open_rows = [row for row in store.select(chosen, newest_first=True) if row.waiting][:MOST_SHOWN]
    now = time_of(store.now()) if open_rows else ""
    return [_view(store, row, now) for row in open_rows]


def _view(store: TaskStore, row: Task, now: str) -> View:
    children = store.children(row.id)
    tree = children_view(store, children, now)
    latest = max(each.updated_at or each.created_at for each in [row, *children])
    age = max(seconds_between(latest, now) or 0.0, 0.0)
    return {
        **picked(row, _KEYS),
        **tally(tree),
        "last_activity_s": round(age, 1),
        "state": "healthy" if age < HEALTHY_S else "warning" if age < STALE_S else "stale",
        "children": [child for child in tree if child["status"] != Status.COMPLETE],
    }


def stalled(views: Sequence[View]) -> bool:
    """Whether nothing of one has changed for long."""
    return any(view["state"] == "stale" for view in views)


def rendered_orchestrators(views: Sequence[View]) -> RenderableType:
    """Each with how far it is, and what is open of it."""
    if not views:
        return Text("no orchestrator waits for children")
    lines: list[RenderableType] = []
    for view in views:
        state = Text(view["state"], style=STYLES[view["state"]])
        words = f"  {listed(view['by_status'])}; last change {duration(view['last_activity_s'])} ago"
        lines.append(line(view["id"], status_text(view["status"]), view["task_type"]))
        lines.append(Text.assemble("  ", share_text(view["share"], 20), "  ", state, words))
        for child in view["children"]:
            words = child["child_key"] or child["task_type"]
            lines.append(Text("  ").append_text(line(child["id"], status_text(child["status"]), words)))
    return Group(*lines)
