"""`debug.py logs`: what workers logged, of a task, a worker or all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from source.diagnostics.rendering import LEVEL_STYLES
from source.diagnostics.views import View, picked
from source.diagnostics.words import clock, one_line
from source.errors import InvalidInput
from source.interrupt import wait
from source.logs import redact
from source.store.base import TaskStore
from source.store.types import LEVELS, LogFilter

_KEYS = ("at", "level", "message", "worker_id", "task_id", "metadata")
#: lines of one look of `follow`, and seconds between two: on a file, where each is a request, and however much changes
MOST_FOLLOWED, LOOK_S, LOOK_AFAR_S, LEAST_S = 500, 1.0, 5.0, 0.1


def logs_view(store: TaskStore, chosen: LogFilter, *, limit: int = 200) -> list[View]:
    """The newest lines that are meant, oldest first: [{at, level, message, worker_id, task_id, metadata}], redacted."""
    return [picked(line, _KEYS) | {"message": redact(line.message)} for line in store.logs(chosen, limit=limit)]


def log_filter(
    *, task_id: str | None = None, worker_id: str | None = None, level: str | None = None, hours: float | None = None,
    text: str | None = None,
) -> LogFilter:  # fmt: skip
    """Which lines. Raises InvalidInput for a level or a span that is none."""
    if level is not None and level.upper() not in LEVELS:
        raise InvalidInput(f"{level!r} is no level; use one of {', '.join(LEVELS)}", field="level")
    since_s = None if hours is None else checked_hours(hours) * 3600
    return LogFilter(task_id=task_id, worker_id=worker_id, level=level, since_s=since_s, text=text)


def checked_hours(hours: float) -> float:
    """Raises InvalidInput for a span that is none, or longer than anybody keeps anything."""
    if not 0 < hours <= 24 * 3650:
        raise InvalidInput("must be more than 0", field="hours")
    return hours


def rendered_logs(lines: Sequence[View]) -> RenderableType:
    """A line each."""
    return Group(*map(log_text, lines)) if lines else Text("no log lines", style="dim")


def log_text(line: View) -> Text:
    """Time, level, task and message."""
    task = f"[{line['task_id'][:8]}] " if line["task_id"] else ""
    level = Text(f"{line['level']:<8}", style=LEVEL_STYLES.get(line["level"], ""))
    return Text.assemble((f"{clock(line['at'])} ", "dim"), level, (task, "cyan"), one_line(line["message"]))


def follow(
    store: TaskStore, chosen: LogFilter, show: Callable[[Sequence[View]], None], *, limit: int = 50,
    stopped: Callable[[], bool] = lambda: False,
) -> None:  # fmt: skip
    """`show` the newest lines, and then each that comes, until `stopped`. Lines come with heartbeats, so they
    are up to HEARTBEAT_S old. Raises what the store raises."""
    look_s = LOOK_S if store.local else LOOK_AFAR_S
    found = logs_view(store, chosen, limit=MOST_FOLLOWED)
    show(found[-limit:])
    while not stopped():
        # by what was there, not by time: a line of another worker may come late and be older
        seen = {_key(line) for line in found}
        wait(store, look_s, stopped)
        time.sleep(LEAST_S)
        found = logs_view(store, chosen, limit=MOST_FOLLOWED)
        show([line for line in found if _key(line) not in seen])


def _key(line: View) -> tuple[str, ...]:
    return tuple(str(line[name]) for name in ("at", "worker_id", "task_id", "message"))
