"""What a person sees of running tasks on a terminal."""

from __future__ import annotations

import io

from rich.console import Console

from headless.generation import Progress
from source.display import ProgressDisplay
from source.store.types import Status, Task


def row(task_id: str) -> Task:
    return Task(id=task_id, task_type="travel_segment", params={}, status=Status.IN_PROGRESS, created_at="")


def shown(*, terminal: bool) -> str:
    """What is written while two tasks run and one of them ends."""
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, color_system=None, width=120)
    with ProgressDisplay(console) as display:
        display(row("aaaaaaaa-1"), Progress("denoising", 3, 20))
        display(row("bbbbbbbb-2"), Progress("loading", text="draft"))
        display(row("bbbbbbbb-2"), None)
    return stream.getvalue()


def test_a_terminal_shows_a_bar_for_each_running_task() -> None:
    text = shown(terminal=True)
    assert "travel_segment aaaaaaaa  denoising" in text
    assert "3/20" in text
    assert "bbbbbbbb" not in text.rsplit("aaaaaaaa", 1)[1]


def test_elsewhere_nothing_is_drawn() -> None:
    assert shown(terminal=False) == ""


def test_square_brackets_are_text() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, color_system=None, width=120)
    with ProgressDisplay(console) as display:
        display(row("[/b]1234"), Progress("loading", text="[/red]"))
    assert "travel_segment [/b]1234  loading" in stream.getvalue()
    assert "[/red]" in stream.getvalue()
