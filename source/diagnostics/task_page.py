"""A task's view for people."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from source.abbreviation import abbreviated
from source.diagnostics.logs import rendered_logs
from source.diagnostics.rendering import EVENT_STYLES, bar, heading, in_words, result_line, share_text, status_text
from source.diagnostics.views import View, seconds_between
from source.diagnostics.words import counted, duration, listed, one_line, printable

MAX_PARAMS_LINES = 40
#: letters of an error that are shown
MOST_ERROR_LETTERS = 500
_TIMINGS = {
    "queued_s": "queued", "lost_s": "lost attempts", "waited_s": "waited for the GPU", "loading_s": "loading",
    "generating_s": "generating", "preparing_s": "preparing", "delivering_s": "delivering", "children_s": "children",
    "total_s": "total",
}  # fmt: skip


def rendered_task(view: View, *, whole: bool = False) -> RenderableType:
    """Overview, explanation, timing, timeline, attempts, children, frames and parameters of one task. `whole`: nothing
    is cut short."""
    return Group(*_parts(view, whole))


def _parts(view: View, whole: bool) -> Iterator[RenderableType]:
    yield _overview(view)
    if view["error_message"]:
        message = printable(view["error_message"])
        cut = message if whole or len(message) <= MOST_ERROR_LETTERS else f"{message[:MOST_ERROR_LETTERS]}…"
        yield Panel(Text(cut), title="why", border_style="red", title_align="left")
    yield from _sentences(view)
    yield from _timing(view["timing"])
    yield from _timeline(view)
    if view["claims"]:
        yield from _claims(view)
    if view["children"]:
        yield from _children(view)
    if view["frames"]:
        yield from _frames(view["frames"])
    yield from _values("parameters", view["params"], whole)
    if view["result"]:
        yield from _values("result", view["result"], whole)
    if view.get("logs"):
        yield heading("log")
        yield rendered_logs(view["logs"])


def _overview(view: View) -> Table:
    table = Table.grid(padding=(0, 2))
    facts: dict[str, RenderableType] = {
        "task": Text(view["id"], style="bold"),
        "type": Text(printable(view["task_type"])),
        "status": status_text(view["status"]).append(_flags(view)),
        "progress": _progress(view),
        "output": Text("\n".join(map(printable, view["outputs"] or [view["output_location"] or ""]))),
        "model": Text(printable(view["model"] or "")),
        "parent": Text(view["parent_id"] or ""),
        "depends on": Text("\n".join(view["dependant_on"])),
        "priority": Text(str(view["priority"] or "")),
        "attempts": Text(str(view["attempts"])),
        "worker": Text(printable(view["worker_id"] or "")),
        "created": Text(view["created_at"][:19].replace("T", " ")),
        "LoRAs": Text("\n".join(_lora(each) for each in view["loras"])),
    }
    for name, value in facts.items():
        if not isinstance(value, Text) or value.plain:
            table.add_row(Text(name, style="dim"), value)
    return table


def _flags(view: View) -> str:
    flags = {"paused": "paused", "waiting": "waits for its children", "cancel_requested": "is to be cancelled"}
    told = [words for name, words in flags.items() if view.get(name) and view["status"] in ("Queued", "In Progress")]
    return f" ({', '.join(told)})" if told else ""


def _progress(view: View) -> Text:
    if view["status"] != "In Progress":
        return Text("")
    words = in_words(view["progress"] or {})
    return Text.assemble(share_text(view["share"], 20), f"  {printable(words)}")


def _lora(lora: View) -> str:
    multiplier = "" if lora["multiplier"] is None else f"  × {lora['multiplier']}"
    return printable(f"{lora['reference']}{multiplier}")


def _sentences(view: View) -> Iterator[RenderableType]:
    cause = view["cause"]
    if cause:
        what = f"{cause['task_type']} {cause['id']} {cause['status']}"
        why = f": {one_line(cause['error_message'])}" if cause["error_message"] else ""
        yield Text.assemble(("it began with ", "dim"), f"{printable(what)}{why}")
    if view["status"] in ("Queued", "In Progress"):
        yield from (Text(printable(each)) for each in view["reasons"])
    yield from (Text.assemble(("hint  ", "bold cyan"), printable(each)) for each in view["hints"])


def _timing(timing: View) -> Iterator[RenderableType]:
    told = [
        f"{words} {duration(timing[name])}" for name, words in _TIMINGS.items() if timing.get(name) not in (None, 0.0)
    ]
    yield heading("timing")
    yield Text(f" {', '.join(told)}")
    if timing["stages"]:
        yield _stages(timing)
    if timing["gpu_seconds"]:
        spent = (f"{name} {each:.1f} s" for name, each in timing["gpu_seconds"].items() if each >= 0.05)
        yield Text.assemble((" of the GPU's time: ", "dim"), ", ".join(spent) or "none")


def _stages(timing: View) -> Table:
    """A bar each, of the claim's time; steps beside those that make some."""
    table = Table.grid(padding=(0, 2, 0, 1), pad_edge=True)
    whole = sum(stage["seconds"] for stage in timing["stages"]) or 1.0
    for stage in timing["stages"]:
        steps = ""
        if stage["name"] == "denoising" and timing["steps"]:
            steps = f"{counted(timing['steps'], 'step')}, {duration(timing['seconds_per_step'])} each"
        table.add_row(
            Text(printable(stage["name"]), "dim"), Text(duration(stage["seconds"]), justify="right"),
            bar(stage["seconds"] / whole, 30), Text(steps, "dim"),
        )  # fmt: skip
    return table


def _timeline(view: View) -> Iterator[RenderableType]:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 1))
    yield heading(f"timeline of {view['created_at'][:10]}")
    for event in view["timeline"]:
        claim = "" if event["claim_number"] is None else f"claim {event['claim_number']}"
        since = seconds_between(view["created_at"], event["at"])
        cells = (event["at"][11:23], f"+{duration(since)}", event["name"], claim, event["worker_id"], event["detail"])
        table.add_row(*(Text(printable(cell or "")) for cell in cells), style=EVENT_STYLES.get(event["name"]))
    yield table


def _claims(view: View) -> Iterator[RenderableType]:
    yield heading("attempts")
    heads = ("claim", "worker", "from", "to", "ended", "GPU")
    table = Table(*heads, box=None, header_style="dim", padding=(0, 2, 0, 1))
    for each in view["claims"]:
        spent = each["gpu_seconds"]
        times = ((each[name] or "")[11:23] for name in ("claimed_at", "ended_at"))
        cells = (str(each["number"]), each["worker_id"], *times, each["end"])
        table.add_row(*(Text(printable(cell or "")) for cell in cells), "" if spent is None else duration(spent))
    yield table
    for each in view["claims"]:
        if each["phases"]:
            yield Text(f" claim {each['number']}: {printable(each['phases'])}", style="dim")


def _children(view: View) -> Iterator[RenderableType]:
    of_all = view["progress_of_children"]
    yield heading("children")
    yield Text.assemble(" ", share_text(of_all["share"], 20), f"  {listed(of_all['by_status'])}")
    yield from (_branch(child) for child in view["children"])


def _branch(child: View) -> Tree:
    tree = Tree(_child(child), guide_style="dim")
    for each in child["children"]:
        tree.add(_branch(each))
    return tree


def _child(child: View) -> RenderableType:
    words = child["child_key"] or child["task_type"]
    spent = "" if child["seconds"] is None else f"  {duration(child['seconds'])}"
    status = status_text(child["status"])
    status.pad_right(11 - len(status.plain))
    first = Text.assemble(
        f"{child['id']}  ", status, "  ", share_text(child["share"], 8), f"  {words}{spent}", no_wrap=True,
        overflow="ellipsis",
    )  # fmt: skip
    return Group(first, *result_line(child))


def _frames(checks: Sequence[View]) -> Iterator[RenderableType]:
    yield heading("frames")
    table = Table("of", "planned", "made", "", box=None, header_style="dim", padding=(0, 2, 0, 1))
    for check in checks:
        said = {True: Text("as planned", "green"), False: Text("NOT as planned", "bold red"), None: Text("")}
        numbers = ("-" if check[name] is None else str(check[name]) for name in ("planned", "made"))
        table.add_row(Text(printable(check["what"])), *numbers, said[check["agrees"]])
    yield table


def _values(title: str, values: Mapping[str, Any], whole: bool) -> Iterator[RenderableType]:
    """A line for each value; what is nested below its name."""
    lines = list(_value_lines(values if whole else abbreviated(values)))
    most = len(lines) if whole else MAX_PARAMS_LINES
    yield heading(title)
    yield from lines[:most]
    if len(lines) > most:
        yield Text(f" … {counted(len(lines) - most, 'more line')}: all of it with --debug or --json", style="dim")


def _value_lines(values: Mapping[str, Any], indent: str = " ") -> Iterator[Text]:
    for name, value in values.items():
        label = (f"{indent}{printable(str(name))}  ", "dim")
        if isinstance(value, Mapping) and value:
            yield Text.assemble(label)
            yield from _value_lines(value, f"{indent}  ")
        else:
            shown = value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
            yield Text.assemble(label, printable(shown))
