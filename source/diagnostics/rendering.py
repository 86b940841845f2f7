"""Views for people: tables and panels of rich."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import zip_longest

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from source.diagnostics.views import View, seconds_between
from source.reporting import steps_in_words

STYLES = {
    "Queued": "cyan",
    "In Progress": "yellow",
    "Complete": "green",
    "Failed": "bold red",
    "Cancelled": "magenta",
}
#: entries of a timeline that should be seen
EVENT_STYLES = {"warning": "yellow", "retry": "yellow", "failed": "bold red", "complete": "green"}
STATUS_WIDTH = max(map(len, STYLES))
MAX_PARAMS_LINES = 40


def printable(text: str) -> str:
    """A text that came from anywhere, without what steers a terminal or cannot be written to it. Lines stay."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "\ufffd" for letter in text)


def rendered_task(view: View, outputs: Sequence[str] = ()) -> RenderableType:
    """Overview, failure, timeline, children and parameters of one task; `outputs`: its files where it has several."""
    return Group(*_parts(view, outputs))


def rendered_tasks(views: Sequence[View]) -> RenderableType:
    """Each task with its result on a line of its own, and how many there are of each status."""
    lines = [_line("id", Text("status"), "created", "seconds", "type")] if views else []
    for view in views:
        seconds = _seconds(view["generation_started_at"], view["generation_processed_at"])
        lines.append(
            _line(
                view["id"],
                _status(view["status"]),
                view["created_at"][5:19].replace("T", " "),
                seconds,
                view["task_type"],
            )
        )
        lines += _result(view)
    counts = Counter(view["status"] for view in views)
    return Group(*lines, Text(", ".join(f"{count} {status}" for status, count in counts.items()) or "no tasks"))


def _parts(view: View, outputs: Sequence[str]) -> Iterator[RenderableType]:
    yield _overview(view, outputs or [view["output_location"] or ""])
    if view["error_message"]:
        yield Panel(Text(view["error_message"]), title="why", border_style="red", title_align="left")
    yield _timeline(view)
    if view["claims"]:
        yield _claims(view)
    if view["children"]:
        yield _children(view)
    lines = json.dumps(view["params"], indent=2, ensure_ascii=False).splitlines()
    shown = lines[:MAX_PARAMS_LINES] + (["…  (all of it with --json)"] if len(lines) > MAX_PARAMS_LINES else [])
    yield Panel(Text("\n".join(shown)), title="params", title_align="left")


def _overview(view: View, outputs: Sequence[str]) -> Table:
    table = Table.grid(padding=(0, 2))
    created, started, ended = view["created_at"], view["generation_started_at"], view["generation_processed_at"]
    facts: dict[str, RenderableType] = {
        "task": Text(view["id"], style="bold"),
        "type": Text(view["task_type"]),
        "status": _status(view["status"]).append(" (paused)" if view["paused"] else ""),
        "progress": Text(_progress(view)),
        "output": Text("\n".join(outputs)),
        "attempts": Text(str(view["attempts"])),
        "worker": Text(view["worker_id"] or ""),
        "created": Text(created),
        "seconds": Text(f"{_seconds(created, started) or '-'} queued, {_seconds(started, ended) or '-'} at work"),
    }
    for name, value in facts.items():
        if not isinstance(value, Text) or value.plain:
            table.add_row(Text(name, style="dim"), value)
    return table


def _timeline(view: View) -> Table:
    table = Table("at", "event", "claim", "worker", "detail", title="timeline", title_justify="left", box=None)
    for event in view["timeline"]:
        cells = (event["at"], event["name"], str(event["claim_number"] or ""), event["worker_id"], event["detail"])
        table.add_row(*(Text(cell or "") for cell in cells), style=EVENT_STYLES.get(event["name"]))
    return table


def _claims(view: View) -> Table:
    table = Table("claim", "worker", "from", "to", "ended", "GPU s", title="claims", title_justify="left", box=None)
    for line in view["claims"]:
        spent = line["gpu_seconds"]
        cells = (str(line["number"]), line["worker_id"], line["claimed_at"], line["ended_at"], line["end"])
        table.add_row(*(Text(cell or "") for cell in cells), "" if spent is None else f"{spent:.1f}")
    return table


def _children(view: View) -> Group:
    lines = [Text("children", style="italic")]
    for child in view["children"]:
        lines.append(_line(child["id"], _status(child["status"]), child["child_key"] or child["task_type"]))
        lines += _result(child)
    return Group(*lines)


def _line(task_id: str, status: Text, *cells: str) -> Text:
    """One row of a list: the id whole, whatever the terminal's width; what does not fit goes at the right."""
    widths = (14, 8) if len(cells) > 1 else ()
    padded = [f"  {cell:<{width}}" for cell, width in zip_longest(cells, widths, fillvalue=0)]
    padding = " " * (STATUS_WIDTH - len(status.plain))
    return Text.assemble(f"{task_id:<36}  ", status, padding, *padded, no_wrap=True, overflow="ellipsis")


def _result(view: View) -> list[Text]:
    """What became of a task, or how far it is; one line, or none."""
    held = "paused" if view.get("paused") and view["status"] == "Queued" else ""
    text = view["error_message"] or view["output_location"] or _progress(view) or held
    return [Text(f"  {' '.join(text.split())}", style="dim", no_wrap=True, overflow="ellipsis")] if text else []


def _status(status: str) -> Text:
    return Text(status, style=STYLES.get(status, ""))


def _progress(view: View) -> str:
    progress = view.get("progress")
    if not progress or view["status"] != "In Progress":
        return ""
    return f"{progress.get('phase', '')} {steps_in_words(progress)}".strip()


def _seconds(start: str | None, end: str | None) -> str:
    seconds = seconds_between(start, end)
    return "" if seconds is None else f"{seconds:.1f}"
