"""`debug.py tasks`: a list of tasks, and what they come to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from source.diagnostics.rendering import line, result_line, status_text
from source.diagnostics.views import LIST_KEYS, View, picked, seconds_between
from source.diagnostics.words import clock, duration, listed
from source.store.base import TaskStore
from source.store.types import Status, TaskFilter


def tasks_view(store: TaskStore, chosen: TaskFilter | None = None, *, limit: int = 50) -> list[View]:
    """The newest tasks first, of those that are meant."""
    rows = store.select(chosen or TaskFilter(), limit=limit, newest_first=True)
    return [picked(task, LIST_KEYS) for task in rows]


def summary(views: Sequence[View]) -> View:
    """What the listed tasks come to: by_status, by_type, failures (by class), and the average seconds that they were
    queued (to the start of the work) and at work (to the end), None where none of them tells."""
    queued = [seconds_between(each["created_at"], _began(each)) for each in views]
    at_work = [seconds_between(_began(each), each["generation_processed_at"]) for each in views]
    failed = [each["error_class"] or "unknown" for each in views if each["status"] == Status.FAILED]
    return {
        "count": len(views),
        "by_status": dict(Counter(str(each["status"]) for each in views)),
        "by_type": dict(Counter(each["task_type"] for each in views).most_common()),
        "failures": dict(Counter(failed).most_common()),
        "average_queued_s": _average(queued),
        "average_at_work_s": _average(at_work),
    }


def rendered_tasks(views: Sequence[View]) -> RenderableType:
    """Each task with its result on a line of its own, and what they come to."""
    lines = [line("id", Text("status"), "created", "seconds", "type")] if views else []
    for view in views:
        seconds = seconds_between(view["generation_started_at"], view["generation_processed_at"])
        cells = (clock(view["created_at"]), "" if seconds is None else f"{seconds:.1f}", view["task_type"])
        lines += [line(view["id"], status_text(view["status"]), *cells), *result_line(view)]
    return Group(*lines, *_summary_lines(summary(views)))


def rendered_summary(found: View) -> RenderableType:
    """What they come to, alone."""
    return Group(Text(f"{found['count']} tasks"), *_summary_lines(found))


def _summary_lines(found: View) -> list[Text]:
    lines = [listed(found["by_status"]) or "no tasks"]
    if len(found["by_type"]) > 1:
        lines.append(f"types: {listed(found['by_type'])}")
    if found["failures"]:
        lines.append(f"failures: {listed(found['failures'])}")
    spans = {"queued": found["average_queued_s"], "at work": found["average_at_work_s"]}
    told = [f"{duration(seconds)} {what}" for what, seconds in spans.items() if seconds is not None]
    return [*map(Text, lines), *([Text(f"on average {', '.join(told)}")] if told else [])]


def _began(view: View) -> str | None:
    began: str | None = view["generation_started_at"] or view["claimed_at"]
    return began


def _average(seconds: Sequence[float | None]) -> float | None:
    known = [each for each in seconds if each is not None]
    return round(sum(known) / len(known), 3) if known else None
