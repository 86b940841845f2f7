"""How a moment of `debug.py watch` looks, at the size of a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import ROUNDED
from rich.console import Group, RenderableType
from rich.layout import Layout
from rich.panel import Panel
from rich.text import Text

from source.diagnostics.logs import log_text
from source.diagnostics.rendering import STYLES, bar
from source.diagnostics.views import View
from source.diagnostics.words import counted, duration, one_line, percent, printable
from source.diagnostics.workers import STYLES as HEALTH_STYLES
from source.diagnostics.workers import memory_words
from source.reporting import steps_in_words

#: columns from which what ended and the log stand side by side
WIDE = 120
#: lines of the head with its frame, of the foot, and of the smallest panel
HEAD, FOOT, LEAST = 5, 1, 4
_MARKS = {"Complete": ("✔", "green"), "Failed": ("✘", "bold red"), "Cancelled": ("–", "magenta")}
_LEVELS = "▁▂▃▄▅▆▇█"
_FRAME = "grey37"
_PHASE_STYLES = {
    "loading": "yellow", "encoding": "cyan", "denoising": "green", "generating": "green", "decoding": "blue",
    "saving": "blue",
}  # fmt: skip


def draw(frame: View, width: int, height: int | None = None, *, problem: str = "") -> RenderableType:
    """The frame, `height` lines tall, or where that is None as tall as it wants to be. `problem`: why it is old."""
    inner = width - 4
    head = _panel(_head(frame, inner), "queue", subtitle=frame["now"][11:19])
    lanes = list(_lanes(frame["workers"], inner))
    if height is None:
        ended = [_end(each, inner) for each in frame["ended"]]
        lines = [log_text(each) for each in frame["logs"]]
        bottom = [_panel(Group(*part), title) for part, title in ((ended, "ended"), (lines, "log")) if part]
        return Group(head, _panel(Group(*lanes), "workers"), *bottom)
    return _layout(frame, head, lanes, width, height, problem)


def _layout(
    frame: View, head: RenderableType, lanes: list[Text], width: int, height: int, problem: str
) -> Layout:  # fmt: skip
    wide = width >= WIDE
    room = height - HEAD - FOOT
    least = LEAST if wide else 2 * LEAST
    lanes_height = max(min(len(lanes) + 2, room - least), 3)
    rest = max(room - lanes_height, 0)
    top, bottom = Layout(name="lanes", size=lanes_height), Layout(name="rest", size=rest)
    top.update(_panel(Group(*_cropped(lanes, lanes_height - 2)), "workers"))
    ended_height = rest if wide else max(min(len(frame["ended"]) + 2, rest // 2), min(LEAST, rest))
    ended = [_end(each, (width // 2 if wide else width) - 4) for each in frame["ended"][: ended_height - 2]]
    log_height = rest if wide else rest - ended_height
    lines = [log_text(each) for each in frame["logs"][-max(log_height - 2, 1) :]]
    panels = (_panel(Group(*map(_one, ended)), "ended"), _panel(Group(*map(_one, lines)), "log"))
    parts = [Layout(panel) for panel in panels]
    if wide:
        bottom.split_row(*parts)
    else:
        parts[0].size = ended_height
        bottom.split_column(*parts)
    layout = Layout()
    layout.split_column(Layout(head, size=HEAD), top, bottom, Layout(_foot(problem), size=FOOT))
    return layout


def _panel(content: RenderableType, title: str, *, subtitle: str | None = None) -> Panel:
    return Panel(
        content, title=Text(title, style="bold"), title_align="left", border_style=_FRAME, box=ROUNDED,
        subtitle=subtitle and Text(subtitle, style="dim"), subtitle_align="right",
    )  # fmt: skip


def _one(text: Text) -> Text:
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def _cropped(lines: Sequence[Text], most: int) -> Sequence[Text]:
    if len(lines) <= most:
        return lines
    return [*lines[: most - 1], Text(f"… {counted(len(lines) - most + 1, 'more line')}", style="dim")]


# -- the queue ------------------------------------------------------------------------------------------------------


def _head(frame: View, width: int) -> RenderableType:
    counts = frame["tasks"]
    numbers = [
        Text.assemble((str(number), f"bold {STYLES[status]}"), (f" {status}", "dim"))
        for status, number in counts.items()
    ]
    return Group(_shares(counts, width), _one(Text("   ").join(numbers)), _one(_pace(frame)))


def _shares(counts: View, width: int) -> Text:
    """A bar of all rows, in the colours of their statuses."""
    total = sum(counts.values())
    if not total:
        return Text("─" * width, style="dim")
    drawn, at, seen = Text(), 0, 0
    for status in ("Complete", "In Progress", "Queued", "Failed", "Cancelled"):
        seen += counts.get(status, 0)
        end = round(width * seen / total)
        if counts.get(status) and end == at and at < width:
            end += 1  # what there is can be seen
        drawn.append("━" * (end - at), style=STYLES[status].replace("bold ", ""))
        at = end
    return drawn


def _pace(frame: View) -> Text:
    rate = f"{counted(frame['per_hour'], 'task')} completed within the last hour"
    left = f"the queue is empty in about {duration(frame['eta_s'])}" if frame["eta_s"] is not None else ""
    parents = f"{counted(frame['parents'], 'orchestrator')} waiting" if frame["parents"] else ""
    return Text(" · ".join(filter(None, (left, rate, parents))), style="dim")


# -- workers --------------------------------------------------------------------------------------------------------


def _lanes(workers: Sequence[View], width: int) -> list[Text]:
    if not workers:
        return [Text("no worker is alive: start one with `python worker.py`", style="yellow")]
    return [_one(line) for worker in workers for line in _lane(worker, width)]


def _lane(worker: View, width: int) -> list[Text]:
    mark = Text("● ", style=HEALTH_STYLES[worker["health"]])
    right = _meters(worker, width)
    left = Text.assemble(mark, (printable(worker["id"]), "bold"))
    said = printable(worker["current_model"] or "no model") + (
        f"  {worker['health']}" if worker["health"] != "healthy" else ""
    )
    left.append(f"  {said}", style="dim" if worker["health"] == "healthy" else HEALTH_STYLES[worker["health"]])
    left.truncate(max(width - right.cell_len - 2, 12), overflow="ellipsis")
    first = Text.assemble(left, " " * max(width - left.cell_len - right.cell_len, 1), right)
    return [first, *(_task(task, width) for task in worker["running"])] if worker["running"] else [first, _idle()]


def _idle() -> Text:
    return Text("  idle", style="dim")


def _meters(worker: View, width: int) -> Text:
    """The GPU's use and its course, and its memory."""
    parts: list[Text] = []
    if worker["use"] is not None:
        course = _course(worker["course"], 12 if width >= 100 else 6)
        parts.append(Text.assemble(("GPU ", "dim"), (course, "green"), f" {percent(worker['use']):>5}"))
    if words := memory_words(worker):
        share = worker["memory_used"] / worker["memory_total"]
        style = "green" if share < 0.75 else "yellow" if share < 0.92 else "red"
        gauge = bar(share, 8, style) if width >= 100 else Text("")
        parts.append(Text.assemble(("mem ", "dim"), gauge, f" {words}" if width >= 100 else words))
    return Text("   ").join(parts)


def _course(values: Sequence[float], columns: int) -> str:
    """The latest values (0 to 1) as a row of blocks."""
    shown = [min(max(value, 0.0), 1.0) for value in values[-columns:]]
    return "".join(_LEVELS[min(int(value * len(_LEVELS)), len(_LEVELS) - 1)] for value in shown)


def _task(task: View, width: int) -> Text:
    """Its bar, and how far it is."""
    progress = task["progress"] or {}
    style = _PHASE_STYLES.get(task["phase"], "magenta")
    words = steps_in_words(progress) or str(progress.get("text") or "") or _at_work(task)
    name = f"  {task['task_type']:<18.18} {task['id'][:8]} "
    columns = 24 if width >= 100 else 12
    return Text.assemble(
        printable(name), bar(task["share"], columns, style), f" {percent(task['share']):>5} ",
        (f" {printable(task['phase'])}", style), f" {one_line(words)}",
    )  # fmt: skip


def _at_work(task: View) -> str:
    return "" if task["seconds"] is None else f"for {duration(task['seconds'])}"


# -- below ----------------------------------------------------------------------------------------------------------


def _end(view: View, width: int) -> Text:
    mark, style = _MARKS[view["status"]]
    at = (view["generation_processed_at"] or "")[11:19]
    why = f"  {one_line(view['error_message'])}" if view["error_message"] else ""
    took = "" if view["seconds"] is None else duration(view["seconds"])
    text = Text.assemble(
        (f"{at} ", "dim"), (mark, style), f" {printable(view['task_type']):<18.18} {view['id'][:8]} {took:>10}",
        (why, style if view["status"] == "Failed" else "dim"),
    )  # fmt: skip
    text.truncate(width, overflow="ellipsis")
    return text


def _foot(problem: str) -> Text:
    if problem:
        return _one(Text(f" {printable(problem)}", style="bold red"))
    return Text.assemble((" q", "bold"), (" quits", "dim"))
