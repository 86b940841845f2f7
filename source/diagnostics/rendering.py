"""What the pages for people share: colours, bars, lines that no terminal breaks."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

from rich.rule import Rule
from rich.text import Text

from source.diagnostics.views import View
from source.diagnostics.words import one_line, percent
from source.reporting import steps_in_words

STYLES = {
    "Queued": "cyan",
    "In Progress": "yellow",
    "Complete": "green",
    "Failed": "bold red",
    "Cancelled": "magenta",
}
#: entries of a timeline that should be seen
EVENT_STYLES = {
    "warning": "yellow", "retry": "yellow", "rescued": "yellow", "hang": "yellow", "out_of_memory": "yellow",
    "failed": "bold red", "complete": "green",
}  # fmt: skip
LEVEL_STYLES = {"DEBUG": "dim", "WARNING": "yellow", "ERROR": "red", "CRITICAL": "bold red"}
STATUS_WIDTH = max(map(len, STYLES))


def status_text(status: str) -> Text:
    """A status in its colour."""
    return Text(status, style=STYLES.get(status, ""))


def heading(title: str) -> Rule:
    """The line above a part of a page."""
    return Rule(Text(title, style="bold"), align="left", style="grey35")


def bar(share: float, width: int, style: str = "green") -> Text:
    """A bar of so many columns, `share` (0 to 1) of it full, to half a column; seen without colours too."""
    halves = round(min(max(share, 0.0), 1.0) * width * 2)
    full, half = divmod(halves, 2)
    return Text.assemble(("━" * full + "╸" * half, style), ("─" * (width - full - half), "grey42"))


def line(task_id: str, status: Text, *cells: str) -> Text:
    """One row of a list: the id whole, whatever the terminal's width; what does not fit goes at the right."""
    widths = (14, 8) if len(cells) > 1 else ()
    padded = [f"  {cell:<{width}}" for cell, width in zip_longest(cells, widths, fillvalue=0)]
    padding = " " * (STATUS_WIDTH - len(status.plain))
    return Text.assemble(f"{task_id:<36}  ", status, padding, *padded, no_wrap=True, overflow="ellipsis")


def result_line(view: View, indent: str = "  ") -> list[Text]:
    """What became of a task, or how far it is; one line, or none."""
    held = "paused" if view.get("paused") and view["status"] == "Queued" else ""
    text = view["error_message"] or view["output_location"] or progress_words(view) or held
    return [Text(indent + one_line(text), style="dim", no_wrap=True, overflow="ellipsis")] if text else []


def progress_words(view: View) -> str:
    """The phase and the steps of a task that runs; "" for any other."""
    progress = view.get("progress")
    if not progress or view["status"] != "In Progress":
        return ""
    return in_words(progress)


def in_words(progress: Mapping[str, Any]) -> str:
    """ "denoising 7/12, 1.4 s a step, 0:42 left" """
    return f"{progress.get('phase', '')} {steps_in_words(progress) or progress.get('text', '')}".strip()


def share_text(share: float, width: int = 10) -> Text:
    """A bar and its number."""
    return Text.assemble(bar(share, width), f" {percent(share):>5}")
