"""The row of an upscaling, and its sizes and lengths."""

from __future__ import annotations

import pytest

from source.errors import InvalidInput
from source.planning.upscale import DEFAULT_PROMPT, covering, enlarged, padded_length, upscale_task
from source.store.types import Status, Task, child_id

ROW = Task(
    id="b6b1d3f0-6ce0-4c8c-9d5c-0f0f5f3f1f11", task_type="travel_orchestrator", params={}, status=Status.IN_PROGRESS,
    created_at="2026-01-01T00:00:00.000Z", project_id="project", priority=3,
)  # fmt: skip
SHARED = {"orchestrator_task_id_ref": ROW.id, "orchestrator_details": {"model_name": "vace"}}


def test_the_row_carries_what_servers_read_and_depends_on_the_video() -> None:
    new = upscale_task(ROW, SHARED, after="stitch", factor=1.5, model="t2v", size=(417, 240), seed=7, frames=33)
    assert (new.id, new.task_type, new.child_key) == (child_id(ROW.id, "upscale:0"), "upscale_video", "upscale:0")
    assert (new.dependant_on, new.parent_id, new.project_id, new.priority) == (("stitch",), ROW.id, "project", 3)
    expected = {
        "video_source_path": None, "resolution": "624x360", "frames": 33, "prompt": DEFAULT_PROMPT, "seed": 7,
        "model_name": "t2v", "upscale_model_name": "t2v", "upscale_factor": 1.5,
    }  # fmt: skip
    assert dict(new.params) == SHARED | expected


@pytest.mark.parametrize(
    ("size", "factor", "result"),
    [((320, 180), 1.2, (384, 216)), ((417, 241), 1.5, (624, 360)), ((64, 48), 2, (128, 96))],
)
def test_sizes_are_floored_to_even(size: tuple[int, int], factor: float, result: tuple[int, int]) -> None:
    assert enlarged(size, factor) == result


def test_a_result_too_large_is_refused_when_it_is_planned() -> None:
    with pytest.raises(InvalidInput, match="upscale_factor"):
        upscale_task(ROW, {}, after="stitch", factor=8, model="lanczos", size=(1280, 720), seed=1)


@pytest.mark.parametrize(
    ("frames", "step", "least", "padded"),
    [
        (1, 4, 5, 5),
        (5, 4, 5, 5),
        (6, 4, 5, 9),
        (81, 4, 5, 81),
        (82, 4, 5, 85),
        (9, 8, 17, 17),
        (18, 8, 17, 25),
    ],
)
def test_lengths_are_padded_to_what_the_model_makes(frames: int, step: int, least: int, padded: int) -> None:
    assert padded_length(frames, step=step, least=least) == padded


def test_a_size_for_the_model_covers_the_one_wanted() -> None:
    assert covering((624, 360), 16) == (624, 368) and covering((64, 64), 32) == (64, 64)
