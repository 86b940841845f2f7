"""What the row's progress holds of a long video, and how people read it."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from headless.generation import Progress
from source.display import ProgressDisplay
from source.reporting import as_json, steps_in_words
from source.store.types import Status, Task

LONG = Progress("denoising", 7, 12, "", 2, 3, seconds_per_step=1.4321, eta_s=41.96)


def test_the_row_holds_window_pace_and_end() -> None:
    assert as_json(LONG) == {
        "phase": "denoising", "step": 7, "total": 12, "fraction": 0.5833, "text": "", "window": 2, "windows": 3,
        "seconds_per_step": 1.432, "eta_s": 42.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("progress", "words"),
    [
        (as_json(LONG), "7/12, window 2 of 3, 1.4 s a step, 0:42 left"),
        (as_json(Progress("denoising", 0, 12, "", 1, 1)), "0/12"),
        (as_json(Progress("loading")), ""),
        ({"total": 30, "step": 2, "seconds_per_step": 123.4, "eta_s": 3723}, "2/30, 123 s a step, 1:02:03 left"),
        ({"total": 30, "step": 2, "seconds_per_step": 0.0341, "eta_s": 0.2}, "2/30, 0.034 s a step, 0:00 left"),
    ],
)
def test_in_words(progress: dict[str, Any], words: str) -> None:
    assert steps_in_words(progress) == words


def test_the_bar_says_so() -> None:
    stream = io.StringIO()
    task = Task(id="aaaaaaaa-1", task_type="t2v", params={}, status=Status.IN_PROGRESS, created_at="")
    with ProgressDisplay(Console(file=stream, force_terminal=True, color_system=None, width=160)) as display:
        display(task, LONG)
    assert "7/12, window 2 of 3, 1.4 s a step, 0:42 left" in stream.getvalue()
