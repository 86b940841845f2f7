"""What debug.py shows people, at the widths of their terminals."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType

from source.diagnostics.task import task_view
from source.diagnostics.task_page import rendered_task
from source.diagnostics.tasks import rendered_tasks, tasks_view
from source.store.sqlite import SqliteStore
from source.store.types import NewTask

LONG = "the picture cannot be read; " * 40


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "tasks.db")
    yield store
    store.close()


def shown(renderable: RenderableType, width: int) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as captured:
        console.print(renderable)
    return captured.get()


def failed(**changes: Any) -> dict[str, Any]:
    return {
        "id": "8f1f2f3e-0c5e-4b57-9a39-0f6a3c7f4a11", "task_type": "individual_travel_segment", "status": "Failed",
        "attempts": 1, "worker_id": "w", "model": None, "output_location": None, "error_message": LONG,
        "error_class": "bad_input", "claimed_at": None, "progress": None, "parent_id": None,
        "created_at": "2026-01-02T03:04:05.678Z",
        "generation_started_at": "2026-01-02T03:04:06.000Z", "generation_processed_at": "2026-01-02T03:05:07.500Z",
    } | changes  # fmt: skip


@pytest.mark.parametrize("width", [80, 100, 200])
def test_a_long_failure_leaves_the_other_columns_readable(width: int) -> None:
    lines = shown(rendered_tasks([failed()]), width).splitlines()
    assert max(map(len, lines)) <= width
    assert lines[1].startswith("8f1f2f3e-0c5e-4b57-9a39-0f6a3c7f4a11  Failed       01-02 03:04:05  61.5")
    assert lines[2].strip().startswith("the picture cannot be read")
    assert lines[3:] == ["1 Failed", "failures: 1 bad_input", "on average 0.32 s queued, 1:02 min at work"]


def test_lines_of_a_message_and_markup_stay_one_plain_line() -> None:
    lines = shown(rendered_tasks([failed(error_message="[red]first[/red]\nsecond")]), 100).splitlines()
    assert lines[2].strip() == "[red]first[/red] second"


def test_a_running_task_shows_how_far_it_is() -> None:
    running = failed(status="In Progress", error_message=None, progress={"phase": "generating", "step": 3, "total": 9})
    assert "generating 3/9" in shown(rendered_tasks([running]), 100)


def test_an_empty_table_says_so() -> None:
    assert shown(rendered_tasks([]), 100).strip() == "no tasks"


@pytest.mark.parametrize("width", [80, 100, 200])
def test_a_task_is_shown_with_its_children_and_without_secrets(store: SqliteStore, width: int) -> None:
    parent = store.add(
        NewTask(
            task_type="travel_orchestrator",
            params={
                "prompt": "[bold]x",
                "api_key": "swordfish",
                "nested": [{"url": "https://u:hunter2@h/?sig=zyxwvut"}],
            },
        )
    )
    text = shown(rendered_task(task_view(store, parent)), width)
    assert parent in text
    assert "[bold]x" in text
    for secret in ("swordfish", "hunter2", "zyxwvut"):
        assert secret not in text


def test_a_childs_failure_is_told_below_its_parent(store: SqliteStore) -> None:
    parent = store.add(NewTask(task_type="travel_orchestrator", params={}))
    [claimed] = store.claim("w", lease_s=60)
    child = NewTask.child(claimed, "travel_segment:0", "travel_segment", {})
    store.fan_out(claimed.claim, [child], final_child=child.id)
    [segment] = store.claim("w", lease_s=60)
    store.fail(segment.claim, LONG, error_class="bad_input")
    lines = shown(rendered_task(task_view(store, parent)), 100).splitlines()
    position = next(index for index, line in enumerate(lines) if line.startswith(child.id))
    assert "travel_segment:0" in lines[position]
    assert "the picture cannot be read" in lines[position + 1]


def test_warnings_of_the_timeline_stand_out(store: SqliteStore) -> None:
    task = store.add(NewTask(task_type="t2v", params={}))
    (claimed,) = store.claim("worker", lease_s=60)
    store.note(claimed.claim, "warning", "STITCH: joined (expected 34, actual 33) from https://h/a?token=swordfish")
    console = Console(width=160, color_system="standard", force_terminal=True, legacy_windows=False)
    with console.capture() as captured:
        console.print(rendered_task(task_view(store, task)))
    (line,) = (line for line in captured.get().splitlines() if "expected 34, actual 33" in line)
    assert "\x1b[33m" in line
    assert "swordfish" not in line


def test_the_newest_tasks_come_first(store: SqliteStore) -> None:
    ids = [store.add(NewTask(task_type="t2v", params={"prompt": "x"})) for _ in range(3)]
    assert [view["id"] for view in tasks_view(store)] == ids[::-1]


def test_every_file_of_a_task_is_shown(store: SqliteStore) -> None:
    files = ["files/a_1.png", "files/a_2.png", "files/a_3.png"]
    added = store.add(NewTask(task_type="flux", params={"prompt": "a ball"}))
    assert task_view(store, added)["outputs"] == []
    [task] = store.claim("w", lease_s=60)
    store.complete(task.claim, files[0], result_data={"model": "flux", "outputs": files})
    text = shown(rendered_task(task_view(store, added)), 100)
    assert all(file in text for file in files)
