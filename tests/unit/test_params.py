"""Where JSON becomes typed: aliases, precedence, refusals."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headless.options import GenerationOptions
from source.errors import InvalidInput
from source.params.base import TaskParams, parse_params
from source.params.travel import SegmentParams, StitchParams, TravelParams
from source.tasks.generate import GenerateParams


def travel(**changes: Any) -> dict[str, Any]:
    details = {
        "model_name": "draft",
        "segment_frames_expanded": [33, 33],
        "frame_overlap_expanded": 4,
        "input_image_paths_resolved": ["a.png", "b.png", "c.png"],
        "parsed_resolution_wh": "384x256",
    }
    return {"orchestrator_details": details | changes}


def test_stronger_levels_win_after_aliases_were_renamed() -> None:
    raw = {
        "full_orchestrator_payload": {"guidance_scale": 1.0, "num_inference_steps": 10},
        "orchestrator_details": {"guidance_scale": 2.0, "flow_shift": 5.0},
        "guidance_scale": 3.0,
        "seed_to_use": 7,
        "individual_segment_params": {"seed": 0, "num_frames": 17},
        "segment_frames_target": 81,
        "start_image_url": "a.png",
    }
    options = parse_params(SegmentParams, raw).params.options
    assert (options.guidance_scale, options.flow_shift, options.num_inference_steps) == (3.0, 5.0, 10)
    assert (options.seed, options.video_length) == (0, 17)


def test_a_null_is_the_same_as_absent() -> None:
    raw = {"orchestrator_details": {"guidance_scale": 2.0}, "guidance_scale": None}
    assert parse_params(SegmentParams, raw).params.options.guidance_scale == 2.0


def test_the_fields_own_name_beats_its_aliases_at_one_level() -> None:
    raw = {"num_inference_steps": 4, "steps": 40, "prompt": "x"}
    assert parse_params(GenerateParams, raw).params.options.num_inference_steps == 4


def test_steps_of_a_travel_are_the_timelines_and_not_the_engines() -> None:
    assert parse_params(TravelParams, travel(steps=30)).params.options.num_inference_steps is None
    assert parse_params(SegmentParams, travel(steps=30)).params.options.num_inference_steps is None


def test_unknown_names_are_reported_and_refused_when_strict() -> None:
    raw = {"prompt": "x", "guidence_scale": 5}
    assert parse_params(GenerateParams, raw).unknown == ("guidence_scale",)
    with pytest.raises(InvalidInput, match=r"guidence_scale.*guidance_scale"):
        parse_params(GenerateParams, raw, strict=True)


def test_where_a_front_end_would_put_files_is_no_parameter() -> None:
    raw = {"prompt": "x", "output_dir": "outputs/mine", "orchestrator_details": {"custom_output_dir": "/somewhere"}}
    assert parse_params(GenerateParams, raw, strict=True).unknown == ()


def test_an_orchestrators_details_are_its_own_and_a_childs_are_its_parents() -> None:
    raw = travel(frame_overlap_expandet=4)
    assert parse_params(TravelParams, raw).unknown == ("frame_overlap_expandet",)
    assert parse_params(SegmentParams, raw).unknown == ()


def test_a_prompt_that_is_null_is_an_empty_one() -> None:
    params = parse_params(TravelParams, travel(base_prompts_expanded=[None, "two"])).params
    assert params.base_prompts_expanded == ["", "two"]


def test_a_stitch_takes_one_overlap_for_every_join() -> None:
    raw = travel() | {"num_total_segments_generated": 2}
    assert parse_params(StitchParams, raw).params.frame_overlap_settings_expanded == 4


def test_strict_parsing_looks_into_orchestrator_details() -> None:
    with pytest.raises(InvalidInput, match="frame_overlap_expandet"):
        parse_params(TravelParams, travel(frame_overlap_expandet=4), strict=True)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("use_svi", True),
        ("enhance_prompt", True),
        ("structure_guidance", {"videos": [{"path": "x.mp4"}]}),
        ("structure_video_path", "x.mp4"),
        ("continue_from_video_resolved_path", "x.mp4"),
        ("upscale_factor", 2),
        ("after_first_post_generation_saturation", 0.8),
        ("structure_guidance", {"_guidance_video_url": "x.mp4"}),
        ("show_input_images", True),
        ("regenerate_anchors", True),
    ],
)
def test_features_of_a_travel_are_refused_by_other_task_types_not_dropped(name: str, value: Any) -> None:
    with pytest.raises(InvalidInput, match=name):
        parse_params(GenerateParams, {"prompt": "x", name: value})


def test_a_broken_phase_config_is_refused() -> None:
    with pytest.raises(InvalidInput, match="phase_config"):
        parse_params(TravelParams, travel(phase_config={"num_phases": 2}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("use_svi", False),
        ("enhance_prompt", None),
        ("structure_guidance", {"videos": []}),
        ("structure_video_path", ""),
        ("additional_loras", {}),
        ("upscale_factor", 0),
        ("upscale_factor", 1.0),
        ("upscale_model_name", "x4"),
        ("after_first_post_generation_saturation", 1),
        ("after_first_post_generation_brightness", 0.0),
        ("structure_guidance", {"target": "vace", "strength": 1.0}),
        ("structure_type", "flow"),
        ("structure_video_motion_strength", 1.0),
        ("uni3c_strength", 1.0),
        ("svi_strength_1", 0.5),
    ],
)
def test_a_feature_that_is_switched_off_is_no_matter(name: str, value: Any) -> None:
    assert parse_params(TravelParams, travel(**{name: value}), strict=True).unknown == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"segment_frames_expanded": [33]}, "one length a segment"),
        (
            {"segment_frames_expanded": [-3, 9]},
            r"segment_frames_expanded\.0.*greater than 0",
        ),
        ({"frame_overlap_expanded": [-1]}, "frame_overlap_expanded.*greater than or equal to 0"),
        ({"input_image_paths_resolved": ["a.png", "b.png"]}, "2 segments need 3"),
        ({"parsed_resolution_wh": None}, "parsed_resolution_wh"),
        ({"parsed_resolution_wh": "99999x99999"}, "resolution.*too large"),
        ({"model_name": None}, "model_name is missing"),
        ({"model_type": "svi"}, "model_type"),
    ],
)
def test_a_travel_that_cannot_work_says_what_to_change(changes: dict[str, Any], message: str) -> None:
    raw = travel(**({"num_new_segments_to_generate": 2} | changes))
    with pytest.raises(InvalidInput, match=message):
        parse_params(TravelParams, raw)


def test_chaining_is_for_vace_alone_and_independent_segments_is_its_older_inverse() -> None:
    def chained(**changes: Any) -> bool:
        return parse_params(TravelParams, travel(**changes)).params.chained

    assert chained()
    assert not chained(model_type="i2v")
    assert not chained(independent_segments=True)
    assert chained(independent_segments=True, chain_segments=True)


@pytest.mark.parametrize(
    ("raw", "continues"),
    [
        ({"segment_index": 0}, False),
        ({"segment_index": 2}, True),
        ({"segment_index": 2, "is_first_segment": True}, False),
        ({"segment_index": 2, "chain_segments": False}, False),
        ({"segment_index": 2, "model_type": "i2v"}, False),
    ],
)
def test_a_chained_segment_continues_unless_it_is_the_first(raw: dict[str, Any], continues: bool) -> None:
    assert parse_params(SegmentParams, raw).params.continues is continues


def test_a_segment_finds_its_images_by_index_or_as_its_own_pair() -> None:
    def images(**raw: Any) -> tuple[str | None, str | None]:
        params = parse_params(SegmentParams, raw).params
        return params.start_image, params.end_image

    several = ["0.png", "1.png", "2.png"]
    assert images(segment_index=1, input_image_paths_resolved=several) == ("1.png", "2.png")
    assert images(segment_index=1, input_image_paths_resolved=several[:2]) == ("0.png", "1.png")
    pair = {"individual_segment_params": {"start_image_url": "s.png", "end_image_url": "e.png"}}
    assert images(segment_index=1, input_image_paths_resolved=several, **pair) == ("s.png", "e.png")


def test_a_knob_of_a_subclass_is_parsed_with_no_other_edit() -> None:
    class Extended(GenerationOptions):
        sparkle: float = 0.0

    options = parse_params(SegmentParams, travel() | {"sparkle": 0.5}, Extended).params.options
    assert options.to_engine()["sparkle"] == 0.5


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from(
    [*GenerationOptions.model_fields, *TravelParams.model_fields, "orchestrator_details", "nonsense"]
)


@given(st.dictionaries(names, json_values, max_size=6), st.sampled_from([TravelParams, SegmentParams, GenerateParams]))
def test_any_json_parses_or_names_what_is_wrong(raw: dict[str, Any], kind: type[TaskParams]) -> None:
    try:
        parse_params(kind, raw)
    except InvalidInput as error:
        assert str(error)
