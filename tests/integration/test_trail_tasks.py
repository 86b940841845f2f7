"""What a running task leaves for whoever looks into it: warnings in its timeline, files where they are wanted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from worker_floor import Floor

from source.diagnostics.task import task_view
from source.params.base import TaskParams
from source.store.types import Status
from source.task_registry import Done, TaskContext
from source.trail import Category


class Free(TaskParams):
    """A row may hold anything."""

    model_config = TaskParams.model_config | {"extra": "ignore"}


def counted(params: TaskParams, context: TaskContext) -> Done:
    """Find one frame too few."""
    context.trail.frames(Category.CHAIN, "context", expected=8, actual=8)
    context.trail.frames(Category.STITCH_FINAL_ANALYSIS, "joined", expected=34, actual=33, segments=2)
    return Done(None)


def laboured(params: TaskParams, context: TaskContext) -> Done:
    """Leave something on the way."""
    (context.scratch / "guide.txt").write_text(f"kept: {context.keeps_intermediates}")
    return Done(None)


@pytest.fixture
def floor(tmp_path: Path) -> Iterator[Floor]:
    floor = Floor(tmp_path)
    yield floor
    floor.close()


def test_a_mismatch_is_a_warning_in_the_timeline_and_nothing_else_is(floor: Floor) -> None:
    floor.register("counted", counted)
    task = floor.add("counted")
    floor.work()
    assert floor.store.get(task).status is Status.COMPLETE
    said = [event["detail"] for event in task_view(floor.store, task)["timeline"] if event["name"] == "warning"]
    assert said == ["STITCH_FINAL_ANALYSIS: joined (expected 34, actual 33, segments 2)"]


FLAGS = ("debug_mode_enabled", "skip_cleanup_enabled", "debug")


@pytest.mark.parametrize(
    ("settings", "params", "kept"),
    [
        pytest.param({}, {}, False, id="nobody asks"),
        pytest.param({"debug": True}, {}, True, id="worker: debug"),
        pytest.param({"skip_cleanup": True}, {}, True, id="worker: skip_cleanup"),
        *(pytest.param({}, {flag: True}, True, id=f"row: {flag}") for flag in FLAGS),
        *(pytest.param({}, {flag: False}, False, id=f"row: no {flag}") for flag in FLAGS),
        pytest.param({}, {"orchestrator_details": {"debug_mode_enabled": True}}, True, id="row: in the details"),
        pytest.param({}, {"orchestrator_details": {"debug_mode_enabled": False}}, False, id="row: not in the details"),
    ],
)
def test_intermediate_files_stay_only_when_worker_or_row_ask(
    tmp_path: Path, settings: dict[str, Any], params: dict[str, Any], kept: bool
) -> None:
    floor = Floor(tmp_path, **settings)
    floor.register("laboured", laboured, Free)
    task = floor.add("laboured", **params)
    floor.work()
    assert floor.store.get(task).status is Status.COMPLETE
    left = floor.leftovers()
    floor.close()
    assert [path.name for path in left] == ["guide.txt"] * kept
    assert all(path.read_text() == "kept: True" for path in left)
