"""A task's view for people."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from source.diagnostics.logs import rendered_logs
from source.diagnostics.parameters import abbreviated
from source.diagnostics.rendering import EVENT_STYLES, in_words, result_line, share_text, status_text
from source.diagnostics.views import View
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
    yield _timing(view["timing"])
    yield _timeline(view)
    if view["claims"]:
        yield _claims(view)
    if view["children"]:
        yield _children(view)
    if view["frames"]:
        yield _frames(view["frames"])
    yield from _params(view, whole)
    if view.get("logs"):
        yield Group(Text("log", style="italic"), rendered_logs(view["logs"]))


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
        "created": Text(view["created_at"]),
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


def _timing(timing: View) -> RenderableType:
    told = [
        f"{words} {duration(timing[name])}" for name, words in _TIMINGS.items() if timing.get(name) not in (None, 0.0)
    ]
    lines = [Text("timing", style="italic"), Text(", ".join(told))]
    if timing["stages"]:
        lines.append(Text("stages: " + ", ".join(f"{s['name']} {duration(s['seconds'])}" for s in timing["stages"])))
    if timing["steps"]:
        lines.append(Text(f"{counted(timing['steps'], 'step')}, {duration(timing['seconds_per_step'])} each"))
    if timing["gpu_seconds"]:
        lines.append(Text("GPU: " + ", ".join(f"{name} {each:.1f} s" for name, each in timing["gpu_seconds"].items())))
    return Group(*lines)


def _timeline(view: View) -> Table:
    table = Table("at", "event", "claim", "worker", "detail", title="timeline", title_justify="left", box=None)
    for event in view["timeline"]:
        cells = (event["at"], event["name"], str(event["claim_number"] or ""), event["worker_id"], event["detail"])
        table.add_row(*(Text(printable(cell or "")) for cell in cells), style=EVENT_STYLES.get(event["name"]))
    return table


def _claims(view: View) -> Group:
    table = Table("claim", "worker", "from", "to", "ended", "GPU s", title="attempts", title_justify="left", box=None)
    for each in view["claims"]:
        spent = each["gpu_seconds"]
        cells = (str(each["number"]), each["worker_id"], each["claimed_at"], each["ended_at"], each["end"])
        table.add_row(*(Text(printable(cell or "")) for cell in cells), "" if spent is None else f"{spent:.1f}")
    phases = [f" claim {each['number']}: {printable(each['phases'])}" for each in view["claims"] if each["phases"]]
    return Group(table, *(Text(line, style="dim") for line in phases))


def _children(view: View) -> RenderableType:
    of_all = view["progress_of_children"]
    head = Text.assemble(("children  ", "italic"), share_text(of_all["share"]), f"  {listed(of_all['by_status'])}")
    return Group(head, *(_branch(child) for child in view["children"]))


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


def _frames(checks: Sequence[View]) -> Table:
    table = Table("frames of", "planned", "made", "", title="frames", title_justify="left", box=None)
    for check in checks:
        said = {True: Text("as planned", "green"), False: Text("NOT as planned", "bold red"), None: Text("")}
        numbers = ("-" if check[name] is None else str(check[name]) for name in ("planned", "made"))
        table.add_row(Text(check["what"]), *numbers, said[check["agrees"]])
    return table


def _params(view: View, whole: bool) -> Iterator[RenderableType]:
    for title, values in (("params", view["params"]), ("result", view["result"])):
        if values or title == "params":
            shown = values if whole else abbreviated(values)
            lines = json.dumps(shown, indent=2, ensure_ascii=False).splitlines()
            yield Panel(Text("\n".join(_cut(lines, whole))), title=title, title_align="left")


def _cut(lines: Sequence[str], whole: bool) -> Iterable[str]:
    if whole or len(lines) <= MAX_PARAMS_LINES:
        return map(printable, lines)
    return [*map(printable, lines[:MAX_PARAMS_LINES]), "…  (all of it with --debug or --json)"]
