"""The rows of a travel's children."""

from __future__ import annotations

from typing import Any

import pytest

from source.params.base import parse_params
from source.params.travel import SegmentParams, StitchParams, TravelParams
from source.planning.frames import plan_frames
from source.planning.travel import TravelPlan, plan_travel
from source.store.types import Status, Task

PARENT = "5f0c7a52-3a42-4a5e-9d0a-0d5f7f7b6a11"


def plan(**changes: Any) -> TravelPlan:
    details = {
        "run_id": "run",
        "model_name": "draft",
        "segment_frames_expanded": [33, 33],
        "frame_overlap_expanded": [8],
        "input_image_paths_resolved": ["a.png", "b.png", "c.png"],
        "base_prompts_expanded": ["one", ""],
        "base_prompt": "common",
        "parsed_resolution_wh": "384x256",
        "seed_base": 5,
        "guidance_scale": 4.0,
    } | changes
    row = Task(
        id=PARENT, task_type="travel_orchestrator", params={"orchestrator_details": details},
        status=Status.IN_PROGRESS, created_at="2026-01-01T00:00:00.000Z", project_id="p", priority=3,
    )  # fmt: skip
    return planned(row)


def planned(row: Task, step: int = 4) -> TravelPlan:
    return plan_travel(parse_params(TravelParams, row.params).params, row, min_frames=5, step=step)


def row_of(params: dict[str, Any]) -> Task:
    return Task(
        id=PARENT, task_type="travel_orchestrator", params=params, status=Status.IN_PROGRESS,
        created_at="2026-01-01T00:00:00.000Z",
    )  # fmt: skip


def test_a_chained_travel_has_segments_in_a_row_and_a_stitch_that_waits_for_all() -> None:
    first, second, stitch = plan().children
    assert [child.task_type for child in (first, second, stitch)] == [
        "travel_segment",
        "travel_segment",
        "travel_stitch",
    ]
    assert first.dependant_on == ()
    assert second.dependant_on == (first.id,)
    assert stitch.dependant_on == (first.id, second.id)
    assert plan().final_child == stitch.id


def test_ids_are_derived_so_that_a_repeat_adds_nothing() -> None:
    assert [child.id for child in plan().children] == [child.id for child in plan().children]
    assert {child.child_key for child in plan().children} == {"travel_segment:0", "travel_segment:1", "travel_stitch:0"}


def test_children_carry_the_parents_project_and_priority() -> None:
    assert {(child.project_id, child.priority, child.parent_id) for child in plan().children} == {("p", 3, PARENT)}


def test_unchained_segments_do_not_wait_and_the_last_is_final() -> None:
    made = plan(chain_segments=False)
    assert [child.task_type for child in made.children] == ["travel_segment", "travel_segment"]
    assert all(child.dependant_on == () for child in made.children)
    assert made.final_child == made.children[-1].id


def test_unchained_segments_are_stitched_when_asked() -> None:
    assert plan(chain_segments=False, stitch=True).children[-1].task_type == "travel_stitch"


def test_prompts_fall_back_and_are_wrapped() -> None:
    first, second, _ = plan(text_before_prompts="wide shot,", enhanced_prompts_expanded=["", "better"]).children
    assert first.params["base_prompt"] == "wide shot, one"
    assert second.params["base_prompt"] == "wide shot, better"
    assert plan().children[1].params["base_prompt"] == "common"


def test_each_segment_has_its_own_seed_and_minus_one_stays_random() -> None:
    assert [child.params.get("seed_to_use") for child in plan().children[:2]] == [5, 6]
    assert [child.params.get("seed_to_use") for child in plan(seed_base=-1).children[:2]] == [-1, -1]


def test_a_segment_parses_back_to_what_was_planned() -> None:
    second = plan().children[1]
    params = parse_params(SegmentParams, second.params, strict=True).params
    assert params.options.video_length == 33 + 8
    assert (params.frame_overlap_from_previous, params.continues) == (8, True)
    assert (params.options.prompt, params.options.seed, params.options.guidance_scale) == ("common", 6, 4.0)
    assert (params.start_image, params.end_image) == ("b.png", "c.png")


def test_the_stitch_parses_back_to_what_was_planned() -> None:
    params = parse_params(StitchParams, plan().children[2].params, strict=True).params
    assert params.num_total_segments_generated == 2
    assert params.frame_overlap_settings_expanded == [8]
    assert params.segment_frames_expanded == [33, 33]


def test_children_read_what_the_travel_was_planned_with_whichever_level_said_it() -> None:
    raw = {
        "full_orchestrator_payload": {"model_name": "draft", "parent_generation_id": "g", "fps_helpers": 8},
        "orchestrator_details": {
            "segment_frames_expanded": [81, 81],
            "frame_overlap_expanded": [8],
            "input_image_paths_resolved": ["0.png", "1.png", "2.png"],
            "parsed_resolution_wh": "384x256",
            "chain_segments": True,
        },
        "segment_frames_expanded": [33, 33],
        "chain_segments": False,
        "stitch": True,
    }
    _, second, stitch = planned(row_of(raw)).children
    segment = parse_params(SegmentParams, second.params, strict=True).params
    assert not segment.chained
    assert (segment.model, segment.fps_helpers, segment.start_image) == ("draft", 8, "1.png")
    assert second.params["parent_generation_id"] == "g"
    joined = parse_params(StitchParams, stitch.params, strict=True).params
    assert (joined.chained, joined.segment_frames_expanded) == (False, [33, 33])


@pytest.mark.parametrize("chained", [True, False])
@pytest.mark.parametrize("wish", [80, 84, 88])
def test_the_stitch_of_a_model_of_other_lengths_expects_what_was_planned(wish: int, chained: bool) -> None:
    """A model whose lengths are 8k + 1: 84 frames are 81, where 4k + 1 would make them 85."""
    raw = plan().children[0].params["orchestrator_details"] | {
        "segment_frames_expanded": [wish, wish],
        "chain_segments": chained,
        "stitch": True,
    }
    made = planned(row_of(raw), step=8)
    params = parse_params(StitchParams, made.children[-1].params).params
    joined = plan_frames(params.segment_frames_expanded, params.frame_overlap_settings_expanded, chained=params.chained)
    assert joined.total_frames == made.frames.total_frames
    assert [each.output for each in joined.segments] == [each.output for each in made.frames.segments]


def test_the_names_that_servers_read_are_there() -> None:
    for child in plan().children:
        assert child.params["orchestrator_task_id_ref"] == PARENT
        assert child.params["orchestrator_run_id"] == "run"
        assert "orchestrator_details" in child.params
        assert "parent_generation_id" in child.params
