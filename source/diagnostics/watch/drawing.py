"""How a moment of `debug.py watch` looks, at the size of a terminal: lines, each as wide as it may be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from source.diagnostics.rendering import LEVEL_STYLES, STYLES, bar
from source.diagnostics.views import View
from source.diagnostics.words import counted, duration, one_line, percent, printable
from source.diagnostics.workers import STYLES as HEALTH_STYLES
from source.diagnostics.workers import memory_words
from source.reporting import steps_in_words

#: columns from which what ended and the log stand side by side, and from which there is room for more
WIDE, ROOMY = 110, 100
#: and from which there are meters
LEAST_COLUMNS = 60
#: columns between two that stand side by side, and the left one's share
GUTTER, LEFT_SHARE = 3, 0.42
#: lines of a section that is cut short, its heading included
LEAST = 3
_MARKS = {"Complete": ("✔", "green"), "Failed": ("✘", "bold red"), "Cancelled": ("–", "magenta")}
_LEVELS = "▁▂▃▄▅▆▇█"
_RULE = "grey35"
_PHASE_STYLES = {
    "loading": "yellow", "encoding": "cyan", "denoising": "green", "generating": "green", "decoding": "blue",
    "saving": "blue",
}  # fmt: skip
Lines = list[Text]


def draw(frame: View, width: int, height: int | None = None, *, problem: str = "") -> RenderableType:
    """The frame, `height` lines tall, or where that is None as tall as it wants to be. `problem`: why it is old."""
    head = [_heading("queue", width, frame["now"][11:19]), *_head(frame, width), Text()]
    lanes = [_heading("workers", width), *_lanes(frame["workers"], width), Text()]
    if height is None:
        below = [*_section("ended", _ends(frame), width), Text(), *_section("log", _log(frame), width)]
        return Group(*_fitted([*head, *lanes, *below], width))
    room = height - len(head) - 1
    lanes = _cropped(lanes, max(room - (LEAST if width >= WIDE else 2 * LEAST), LEAST + 1))
    below = _below(frame, width, max(room - len(lanes), 0))
    lines = _fitted([*head, *lanes, *below], width)[: height - 1]
    return Group(*lines, *[Text()] * (height - 1 - len(lines)), *_fitted([_foot(problem)], width))


def _below(frame: View, width: int, room: int) -> Lines:
    """What ended and the log, in so many lines: side by side, or one above the other."""
    if width < WIDE:
        ended = min(len(frame["ended"]) + 2, max(room // 2, LEAST))
        above = [*_section("ended", _ends(frame)[: ended - 2], width), Text()]
        return [*above, *_section("log", _log(frame)[-max(room - ended - 1, 1) :], width)]
    first = round((width - GUTTER) * LEFT_SHARE)
    second = width - GUTTER - first
    left = _section("ended", _ends(frame)[: room - 1], first)
    right = _section("log", _log(frame)[-max(room - 1, 1) :], second)
    return list(_beside(_fitted(left, first), _fitted(right, second), first))


def _beside(left: Lines, right: Lines, width: int) -> Iterator[Text]:
    for place in range(max(len(left), len(right))):
        one, other = (lines[place].copy() if place < len(lines) else Text() for lines in (left, right))
        one.pad_right(width + GUTTER - one.cell_len)
        yield one.append_text(other)


def _section(title: str, lines: Sequence[Text], width: int) -> Lines:
    return [_heading(title, width), *(lines or [Text(" nothing yet", style="dim")])]


def _heading(title: str, width: int, right: str = "") -> Text:
    rule = "─" * (width - len(title) - len(right) - (6 if right else 4))
    end = ((f" {right} ", "dim"), ("─", _RULE)) if right else (("─", _RULE),)
    return Text.assemble(("─", _RULE), (f" {title} ", "bold"), (rule, _RULE), *end)


def _fitted(lines: Iterable[Text], width: int) -> Lines:
    fitted = [line.copy() for line in lines]
    for line in fitted:
        line.no_wrap = True
        line.truncate(width, overflow="ellipsis")
    return fitted


def _cropped(lines: Lines, most: int) -> Lines:
    if len(lines) <= most:
        return lines
    return [*lines[: most - 2], Text(f" … {counted(len(lines) - most + 1, 'more line')}", style="dim"), Text()]


# -- the queue ------------------------------------------------------------------------------------------------------


def _head(frame: View, width: int) -> Lines:
    counts = frame["tasks"]
    numbers = [
        Text.assemble((str(number), f"bold {STYLES[status]}"), (f" {status}", "dim"))
        for status, number in counts.items()
    ]
    return [Text.assemble(" ", Text("   ").join(numbers)), _shares(counts, width - 2), _pace(frame)]


def _shares(counts: View, width: int) -> Text:
    """A bar of all rows, in the colours of their statuses."""
    total = sum(counts.values())
    if not total:
        return Text(" " + "━" * width, style="grey30")
    drawn, at, seen = Text(" "), 0, 0
    for status in ("Complete", "In Progress", "Queued", "Failed", "Cancelled"):
        seen += counts.get(status, 0)
        end = round(width * seen / total)
        if counts.get(status) and end == at and at < width:
            end += 1  # what there is can be seen
        drawn.append("━" * (end - at), style=STYLES[status].replace("bold ", ""))
        at = end
    return drawn


def _pace(frame: View) -> Text:
    left = f"empty in about {duration(frame['eta_s'])}" if frame["eta_s"] is not None else ""
    rate = f"{frame['per_hour']} completed within the hour"
    parents = f"{counted(frame['parents'], 'parent')} waiting" if frame["parents"] else ""
    return Text(f" {' · '.join(filter(None, (left, rate, parents)))}", style="dim")


# -- workers --------------------------------------------------------------------------------------------------------


def _lanes(workers: Sequence[View], width: int) -> Lines:
    if not workers:
        return [Text(" no worker is alive: start one with `python worker.py`", style="yellow")]
    return [line for worker in workers for line in _lane(worker, width)]


def _lane(worker: View, width: int) -> Lines:
    healthy = worker["health"] == "healthy"
    style = HEALTH_STYLES[worker["health"]]
    right = _meters(worker, width)
    left = Text.assemble((" ● ", style), (printable(worker["id"]), "bold"))
    if not healthy:
        left.append(f"  {worker['health']}", style=style)
    left.append(f"  {printable(worker['current_model'] or 'no model')}", style="dim")
    left.truncate(max(width - right.cell_len - 3, 12), overflow="ellipsis")
    first = Text.assemble(left, " " * max(width - left.cell_len - right.cell_len - 1, 1), right)
    tasks = [_task(task, width) for task in worker["running"]]
    return [first, *(tasks or [Text("   idle", style="dim")])]


def _meters(worker: View, width: int) -> Text:
    """The GPU's use and its course, and its memory."""
    if width < LEAST_COLUMNS:
        return Text("" if worker["use"] is None else f"GPU {percent(worker['use'])}")
    parts: list[Text] = []
    if worker["use"] is not None:
        course = _course(worker["course"], 12 if width >= ROOMY else 6)
        parts.append(Text.assemble(("GPU ", "dim"), (course, "green"), f" {percent(worker['use']):>5}"))
    if words := memory_words(worker):
        share = worker["memory_used"] / worker["memory_total"]
        style = "green" if share < 0.75 else "yellow" if share < 0.92 else "red"
        gauge = Text.assemble(bar(share, 8, style), " ") if width >= ROOMY else ""
        parts.append(Text.assemble(("mem ", "dim"), gauge, words))
    return Text("   ").join(parts)


def _course(values: Sequence[float], columns: int) -> str:
    """The latest values (0 to 1) as a row of blocks."""
    shown = [min(max(value, 0.0), 1.0) for value in values[-columns:]]
    return "".join(_LEVELS[min(int(value * len(_LEVELS)), len(_LEVELS) - 1)] for value in shown)


def _task(task: View, width: int) -> Text:
    """Its bar, and how far it is."""
    progress = task["progress"] or {}
    style = _PHASE_STYLES.get(task["phase"], "magenta")
    words = _steps(progress, width) or str(progress.get("text") or "") or _at_work(task)
    columns = 20 if width >= ROOMY else 16
    kind = f"   {printable(task['task_type']):<{columns}.{columns}} "
    return Text.assemble(
        kind, (f"{task['id'][:8]}  ", "dim"), bar(task["share"], 24 if width >= ROOMY else 12, style),
        f" {percent(task['share']):>5}  ", (f"{printable(task['phase']):<10}", style), f" {one_line(words)}",
    )  # fmt: skip


def _steps(progress: View, width: int) -> str:
    """What is counted; in a narrow terminal the step and the time that is left."""
    words = steps_in_words(progress)
    if width >= ROOMY:
        return words
    return ", ".join(part for part in words.split(", ") if "window" not in part and "a step" not in part)


def _at_work(task: View) -> str:
    return "" if task["seconds"] is None else f"for {duration(task['seconds'])}"


# -- below ----------------------------------------------------------------------------------------------------------


def _ends(frame: View) -> Lines:
    return [_end(view) for view in frame["ended"]]


def _end(view: View) -> Text:
    mark, style = _MARKS[view["status"]]
    at = (view["generation_processed_at"] or "")[11:19]
    took = "" if view["seconds"] is None else f"{duration(view['seconds']):>9}"
    why = (one_line(view["error_message"] or ""), "red" if view["status"] == "Failed" else "dim")
    return Text.assemble(
        (f" {at} ", "dim"), (mark, style), f" {printable(view['task_type']):<16.16} ", (f"{view['id'][:8]} ", "dim"),
        why if view["error_message"] else took,
    )  # fmt: skip


def _log(frame: View) -> Lines:
    return [_line(view) for view in frame["logs"]]


def _line(view: View) -> Text:
    """Time, task and message, in the colour of its level."""
    task = f"{view['task_id'][:8]} " if view["task_id"] else ""
    level = "" if view["level"] in ("INFO", "DEBUG") else f"{view['level']} "
    words = (f"{level}{one_line(view['message'])}", LEVEL_STYLES.get(view["level"], ""))
    return Text.assemble((f" {view['at'][11:19]} ", "dim"), (task, "cyan"), words)


def _foot(problem: str) -> Text:
    if problem:
        return Text(f" {one_line(problem)}", style="bold red")
    return Text.assemble((" q", "bold"), (" quits", "dim"))
