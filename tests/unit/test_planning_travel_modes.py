"""The rows of a travel's children in each of its modes, and how a segment reads them back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from source.errors import InvalidInput, Unsupported
from source.params.base import parse_params
from source.params.travel import IndividualSegmentParams, SegmentParams, StitchParams, TravelParams
from source.planning.travel import TravelPlan, plan_travel, stitch_plan
from source.store.types import NewTask, Status, Task

IMAGES = ["a.png", "b.png", "c.png", "d.png"]


def plan(continued: int = 0, **changes: Any) -> TravelPlan:
    details = {
        "run_id": "run",
        "model_name": "draft",
        "segment_frames_expanded": [17, 17, 17],
        "frame_overlap_expanded": 6,
        "input_image_paths_resolved": IMAGES,
        "base_prompt": "common",
        "parsed_resolution_wh": "384x256",
        "seed_base": 5,
    } | changes
    row = Task(
        id="5f0c7a52-3a42-4a5e-9d0a-0d5f7f7b6a11", task_type="travel_orchestrator",
        params={"orchestrator_details": details}, status=Status.IN_PROGRESS, created_at="2026-01-01T00:00:00.000Z",
    )  # fmt: skip
    params = parse_params(TravelParams, row.params, strict=True).params
    return plan_travel(params, row, min_frames=5, step=4, continued=continued)


def segments(made: TravelPlan) -> list[SegmentParams]:
    rows = [each for each in made.children if each.task_type == "travel_segment"]
    return [parse_params(SegmentParams, each.params, strict=True).params for each in rows]


def child(made: TravelPlan, task_type: str) -> NewTask:
    (found,) = (each for each in made.children if each.task_type == task_type)
    return found


def pictures(made: TravelPlan) -> list[tuple[str | None, str | None]]:
    return [(each.start_image, each.end_image) for each in segments(made)]


def test_an_svi_segment_waits_for_its_predecessor_and_shares_four_frames_with_it() -> None:
    made = plan(use_svi=True, model_type="i2v", frame_overlap_expanded=12)
    first, second, third = segments(made)
    assert [each.use_svi for each in (first, second, third)] == [False, True, True]
    assert [each.options.video_length for each in (first, second, third)] == [17, 17, 17]
    assert [(each.frame_overlap_from_previous, each.frame_overlap_with_next) for each in (first, second, third)] == [
        (0, 4), (4, 4), (4, 0),
    ]  # fmt: skip
    assert made.children[2].dependant_on == (made.children[1].id,)
    assert child(made, "travel_stitch").params["frame_overlap_settings_expanded"] == [4, 4]
    assert made.frames.total_frames == 51
    assert pictures(made) == [("a.png", "b.png"), ("b.png", "c.png"), ("c.png", "d.png")]


def test_an_svi_travel_after_a_video_of_another_begins_with_the_frames_that_they_share() -> None:
    made = plan(use_svi=True, svi_predecessor_video_url="before.mp4")
    assert [each.continues for each in segments(made)] == [True, True, True]
    assert made.frames.total_frames == 51 + 4
    stitch = child(made, "travel_stitch").params
    assert (stitch["continued_frames"], stitch["initial_continued_video_path"]) == (4, None)


def test_after_a_continued_video_each_image_ends_a_segment() -> None:
    made = plan(continued=40, continue_from_video_resolved_path="before.mp4", input_image_paths_resolved=IMAGES[:3])
    assert pictures(made) == [(None, "a.png"), ("a.png", "b.png"), ("b.png", "c.png")]
    assert [each.continued_video for each in segments(made)] == ["before.mp4", None, None]
    assert [each.options.video_length for each in segments(made)] == [25, 25, 25]
    assert made.frames.total_frames == 40 + 51
    stitch = child(made, "travel_stitch").params
    assert (stitch["continued_frames"], stitch["initial_continued_video_path"]) == (40, "before.mp4")


def test_seeds_of_their_own_win_and_zero_is_one() -> None:
    """Weakness: a seed of 0 was taken for none, and all segments had the same."""
    made = plan(seeds_expanded=[0, None, -1])
    assert [each.options.seed for each in segments(made)] == [0, 6, -1]
    row = dict(made.children[1].params) | {"individual_segment_params": {"seed_to_use": 0}}
    assert parse_params(SegmentParams, row).params.options.seed == 0


def two_phases(steps: int, lora: str) -> dict[str, Any]:
    phases = [{"phase": 1, "guidance_scale": 3, "loras": [{"url": lora, "multiplier": 1}]}, {"phase": 2}]
    return {"num_phases": 2, "steps_per_phase": [steps, steps], "phases": phases}


def test_a_phase_config_of_one_segment_is_not_another_ones() -> None:
    """Weakness: what one segment was generated with stayed for those after it."""
    made = plan(
        phase_config=two_phases(3, "all.safetensors"), phase_configs_expanded=[None, two_phases(5, "own.safetensors")]
    )
    first, second, third = (each.options for each in segments(made))
    assert [each.num_inference_steps for each in (first, second, third)] == [6, 10, 6]
    assert [each.activated_loras for each in (first, second, third)] == [
        ["all.safetensors"], ["own.safetensors"], ["all.safetensors"],
    ]  # fmt: skip
    assert first == third.replace(seed=first.seed, video_length=first.video_length)


def test_loras_of_a_travel_reach_every_segment_and_a_segments_own_join_them() -> None:
    """Weakness: additional_loras were dropped."""
    made = plan(
        additional_loras={"style.safetensors": 0.5},
        loras_per_segment_expanded=[None, {"own.safetensors": 0.7}, [{"path": "style.safetensors", "scale": 1}]],
    )
    used = [(each.options.activated_loras, each.options.loras_multipliers) for each in segments(made)]
    assert used == [
        (["style.safetensors"], "0.5"),
        (["style.safetensors", "own.safetensors"], "0.5 0.7"),
        (["style.safetensors"], "1"),
    ]


def test_identical_neighbours_share_a_generation_and_keep_their_images() -> None:
    made = plan(consolidate_segments=True)
    (only,) = segments(made)
    assert only.consolidated_keyframe_positions == [16, 33, 50]
    assert only.end_images == ("b.png", "c.png", "d.png")
    assert only.start_image == "a.png"
    assert only.options.video_length == 53
    stitch = parse_params(StitchParams, child(made, "travel_stitch").params, strict=True).params
    assert (stitch.num_total_segments_generated, stitch.segment_frames_expanded) == (1, [17, 17, 17])


@pytest.mark.parametrize(
    "own",
    [
        {"base_prompts_expanded": ["x", "x", "y"]},
        {"negative_prompts_expanded": ["", "", "y"]},
        {"seeds_expanded": [None, None, 3]},
        {"loras_per_segment_expanded": [None, None, {"own.safetensors": 1}]},
        {"phase_configs_expanded": [None, None, two_phases(2, "own.safetensors")]},
        {"vace_image_refs_to_prepare_by_worker": [{"original_path": "r.png", "segment_idx_for_naming": 2}]},
    ],
)
def test_a_segment_that_asks_for_something_else_is_generated_alone(own: dict[str, Any]) -> None:
    made = plan(consolidate_segments=True, **own)
    assert [each.sources for each in made.frames.segments] == [(0, 1), (2,)]
    _, second = segments(made)
    assert (second.start_image, second.end_images) == ("c.png", ("d.png",))
    assert [each.segment_idx_for_naming for each in second.vace_image_refs_to_prepare_by_worker] in ([], [1])


def test_references_go_to_the_segment_that_they_name() -> None:
    references = [{"original_path": f"{index}.png", "segment_idx_for_naming": index} for index in (2, 0)]
    given = [
        each.vace_image_refs_to_prepare_by_worker
        for each in segments(plan(vace_image_refs_to_prepare_by_worker=references))
    ]
    assert [[each.original_path for each in own] for own in given] == [["0.png"], [], ["2.png"]]


def test_only_segments_without_an_enhanced_prompt_are_asked_about_and_wait() -> None:
    made = plan(enhance_prompt=True, enhanced_prompts_expanded=["done"], base_prompts_expanded=["", "two", ""])
    asking = child(made, "enhance_prompts")
    assert [(shot["index"], shot["prompt"]) for shot in asking.params["shots"]] == [(1, "two"), (2, "common")]
    assert [shot["path"] for shot in asking.params["shots"][0]["pictures"]] == ["b.png", "c.png"]
    waiting = [asking.id in each.dependant_on for each in made.children if each.task_type == "travel_segment"]
    assert waiting == [False, True, True]


def test_each_segment_knows_where_on_the_guidance_it_begins() -> None:
    """One timeline: position 0 is the first frame of the stitched video, contexts included."""
    guidance = {"videos": [{"path": "dance.mp4"}], "preprocessing": "canny", "canny_intensity": 0.5}
    made = plan(structure_guidance=guidance)
    drawn = child(made, "travel_guidance")
    rows = [each for each in made.children if each.task_type == "travel_segment"]
    assert [row.params["structure_guidance"]["_frame_offset"] for row in rows] == [0, 9, 26]
    assert [each.guidance.frame_offset for each in segments(made)] == [each.offset for each in made.frames.segments]
    assert {each.guidance.canny_intensity for each in segments(made)} == {0.5}
    assert all(drawn.id in row.dependant_on for row in rows)


def test_upscaling_is_the_last_child_and_waits_for_the_stitch() -> None:
    made = plan(upscale_factor=2, upscale_model_name="lanczos")
    upscaling = child(made, "upscale_video")
    assert upscaling.dependant_on == (child(made, "travel_stitch").id,)
    assert made.final_child == upscaling.id
    assert upscaling.params["seed"] == 5005


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"consolidate_segments": True, "chain_segments": False}, "consolidate_segments"),
        ({"upscale_factor": 2, "upscale_model_name": "lanczos", "chain_segments": False}, "upscale_factor"),
        ({"input_image_paths_resolved": IMAGES[:3]}, "input_image_paths_resolved has 3"),
        ({"use_uni3c": True, "uni3c_guide_video": "x.mp4"}, "Uni3C"),
    ],
)
def test_what_cannot_be_honoured_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises((InvalidInput, Unsupported), match=message):
        plan(**changes)


def individual(**row: Any) -> tuple[str | None, str | None]:
    params = parse_params(IndividualSegmentParams, {"model_name": "draft"} | row).params
    return params.start_image, params.end_image


def test_a_segment_on_its_own_takes_the_first_pictures_that_were_given_for_it() -> None:
    details = {"input_image_paths_resolved": IMAGES}
    given = {"segment_index": 2, "orchestrator_details": details}
    assert individual(**given) == ("c.png", "d.png")
    assert individual(**given, input_image_paths_resolved=["x.png", "y.png"]) == ("x.png", "y.png")
    own = {"input_image_paths_resolved": ["p.png", "q.png"]}
    assert individual(**given, input_image_paths_resolved=["x.png", "y.png"], individual_segment_params=own) == (
        "p.png", "q.png",
    )  # fmt: skip
    urls = {"start_image_url": "s.png", "end_image_url": "e.png"}
    assert individual(**given, individual_segment_params=own | urls) == ("s.png", "e.png")
    continued = details | {"continue_from_video_resolved_path": "v.mp4"}
    assert individual(segment_index=2, orchestrator_details=continued) == ("b.png", "c.png")
    assert individual(orchestrator_details=continued) == (None, "a.png")
    assert individual(segment_index=9, use_svi=True, orchestrator_details=details) == (None, "d.png")


travels = st.fixed_dictionaries(
    {
        "segment_frames_expanded": st.lists(st.integers(9, 90), min_size=1, max_size=6),
        "frame_overlap_expanded": st.one_of(st.integers(0, 20), st.lists(st.integers(0, 20), max_size=5)),
        "chain_segments": st.booleans(),
        "consolidate_segments": st.booleans(),
        "use_svi": st.booleans(),
    }
)


@settings(max_examples=250)
@given(travels, st.sampled_from([0, 0, 37]))
def test_the_rows_of_the_children_agree_with_the_plan(asked: dict[str, Any], continued: int) -> None:
    count = len(asked["segment_frames_expanded"])
    asked["consolidate_segments"] &= asked["chain_segments"] and not asked["use_svi"]
    before = {"continue_from_video_resolved_path": "v.mp4"} if continued else {}
    try:
        made = plan(continued, stitch=True, input_image_paths_resolved=["i.png"] * (count + 1), **asked, **before)
    except InvalidInput:
        assume(False)
        return
    for segment, row in zip(made.frames.segments, segments(made), strict=True):
        context = segment.context if row.mode == "svi" else 0
        assert (row.options.video_length or 0) + context == segment.generated
        assert row.frame_overlap_from_previous == segment.overlap_previous
        assert row.frame_overlap_with_next == segment.overlap_next
        assert not row.consolidated_keyframe_positions or row.consolidated_keyframe_positions == list(
            segment.end_positions
        )
    stitch = parse_params(StitchParams, child(made, "travel_stitch").params, strict=True).params
    joined = stitch_plan(stitch, stitch.continued_frames)
    assert (joined.total_frames, joined.overlaps) == (made.frames.total_frames, made.frames.overlaps)
    assert joined.anchors == made.frames.anchors
    assert [each.output for each in joined.segments] == [each.output for each in made.frames.segments]
