"""debug.py watch: what it asks, how often, and how it looks at the sizes of people's terminals."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from source.diagnostics.views import View
from source.diagnostics.watch.drawing import draw
from source.diagnostics.watch.scene import Looker
from source.store.sqlite import SqliteStore
from source.store.types import NewTask

ASKED = ("select", "counts", "workers", "now", "throughput", "samples", "logs")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Counted(SqliteStore):
    """A file whose questions cost something, and are counted."""

    local = False

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.asked: Counter[str] = Counter()

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        return partial(self._count, name, found) if name in ASKED else found

    def _count(self, name: str, ask: Any, *values: Any, **named: Any) -> Any:
        self.asked[name] += 1
        return ask(*values, **named)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Counted]:
    store = Counted(tmp_path / "tasks.db")
    yield store
    store.close()


@pytest.fixture(scope="module")
def frame(root: Path) -> View:
    """That of the documentation's picture."""
    sys.path.insert(0, str(root / "scripts"))
    try:
        import watch_picture
    finally:
        sys.path.remove(str(root / "scripts"))
    return watch_picture.frame()


def lines_of(frame: View, width: int, height: int | None = None, **more: Any) -> list[str]:
    console = Console(width=width, height=height or 25, color_system=None)
    with console.capture() as captured:
        console.print(draw(frame, width, height, **more))
    return captured.get().splitlines()


def test_a_minute_of_watching_costs_47_questions_where_each_is_a_request(store: Counted) -> None:
    clock = Clock()
    looker = Looker(store, clock)
    for second in range(60):
        clock.now = float(second)
        looker.look()
    assert store.asked == {
        "select": 24, "logs": 12, "counts": 4, "workers": 4, "now": 1, "throughput": 1, "samples": 1,
    }  # fmt: skip


def test_the_clock_goes_on_between_questions(store: Counted) -> None:
    clock = Clock()
    looker = Looker(store, clock)
    first = looker.look()["now"]
    clock.now = 30.0
    later = looker.look()["now"]
    assert store.asked["now"] == 1 and first < later


def test_what_the_gpu_was_at_is_told_by_its_seconds_where_nobody_measures_it(store: Counted) -> None:
    for denoise, idle in ((0.0, 10.0), (6.0, 14.0), (16.0, 14.0)):
        seconds = {"denoise": denoise, "idle_no_task": idle}
        store.heartbeat("w", [], lease_s=60, metadata={"gpu_seconds": seconds}, sample={"gpu_seconds": seconds})
    [worker] = Looker(store).look()["workers"]
    assert (worker["course"], worker["use"]) == ([0.6, 1.0], 1.0)


def test_a_worker_that_stopped_is_not_shown(store: Counted) -> None:
    store.heartbeat("gone", [], lease_s=60, status="stopped")
    store.heartbeat("here", [], lease_s=60)
    assert [(each["id"], each["health"]) for each in Looker(store).look()["workers"]] == [("here", "healthy")]


def test_the_latest_endings_are_shown_whatever_was_added_last(store: Counted) -> None:
    ids = store.add_many([NewTask(task_type="t2v", params={}) for _ in range(30)])
    for task_id in reversed(ids):
        store.cancel(task_id)
    shown = [each["id"] for each in Looker(store).look()["ended"]]
    assert len(shown) == 20 and set(shown) <= set(ids)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (100, 30), (124, 26), (200, 60), (60, 16), (40, 12)])
def test_a_frame_fills_a_terminal_and_no_more(frame: View, width: int, height: int) -> None:
    lines = lines_of(frame, width, height)
    assert len(lines) == height and max(map(len, lines)) <= width
    assert lines[0].startswith("─ queue ─") and lines[-1].strip() == "q quits"
    assert any("gpu-1-4be02d91" in line for line in lines)


def test_a_small_terminal_shows_what_matters(frame: View) -> None:
    text = "\n".join(lines_of(frame, 80, 24))
    for part in ("23 Queued", "empty in about 36:19 min", "57 %  denoising  17/30, 2:38 left", "mem 21 of 24 GB",
                 "100 %", "WARNING the guidance video", "image_inpaint"):  # fmt: skip
        assert part in text, part
    wide = "\n".join(lines_of(frame, 124, 26))
    assert "17/30, window 2 of 3, 2.4 s a step, 2:38 left" in wide and "LoRA sketch" in wide


def test_many_workers_leave_room_for_the_log(frame: View) -> None:
    many = frame | {"workers": frame["workers"] * 6}
    lines = lines_of(many, 80, 24)
    assert len(lines) == 24 and any("more lines" in line for line in lines)
    assert any(line.startswith("─ log ─") for line in lines)


def test_a_pipe_gets_all_of_it(frame: View) -> None:
    text = "\n".join(lines_of(frame, 200))
    for part in (*(each["id"] for each in frame["ended"]), *(each["message"] for each in frame["logs"])):
        assert part in text


def test_nothing_at_all_is_said_in_words(frame: View) -> None:
    empty: View = frame | {"tasks": dict.fromkeys(frame["tasks"], 0), "workers": [], "ended": [], "logs": [],
                           "eta_s": None, "parents": 0}  # fmt: skip
    lines = lines_of(empty, 80, 24)
    assert len(lines) == 24 and any("no worker is alive" in line for line in lines)


def test_a_database_out_of_reach_is_said_below(frame: View) -> None:
    assert "out of reach" in lines_of(frame, 80, 24, problem="the database is out of reach: refused")[-1]


def test_the_picture_needs_no_other_server(root: Path) -> None:
    drawn = (root / "docs/images/watch.svg").read_text(encoding="utf-8")
    assert re.findall(r"https?://[^\"\s)]+", drawn) == ["http://www.w3.org/2000/svg"]
    assert "travel_segment" in drawn.replace("&#160;", " ")
