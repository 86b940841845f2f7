"""The typed views of a row: TaskConfig and its groups, structure guidance, the orchestrator's parameters."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from source.errors import InvalidInput
from source.params.generation import GenerationConfig
from source.params.orchestrator import extract_orchestrator_parameters
from source.params.phase import PhaseConfig
from source.params.structure_guidance import StructureGuidanceConfig
from source.params.task import TaskConfig
from source.params.vace import VACEConfig
from source.store.types import Status, Task

URL = "https://example.com/a.safetensors"
ROW = {
    "prompt": "a fox", "num_frames": 80, "steps": 6, "image_url": "a.png", "strength": 0.5, "video_guide": "g.mp4",
    "control_net_weight": 0.7, "additional_loras": {URL: 0.5, "b": 1}, "wobble": 3,
}  # fmt: skip


def config(**changes: Any) -> TaskConfig:
    row = Task(
        id="5f0c7a52", task_type="vace", params=ROW | changes, status=Status.QUEUED,
        created_at="2026-01-01T00:00:00.000Z",
    )  # fmt: skip
    return TaskConfig.from_db_task(row)


def test_a_row_becomes_typed_groups() -> None:
    made = config()
    assert (made.task_id, made.task_type, made.model) == ("5f0c7a52", "vace", "vace_14B_cocktail_2_2")
    assert (made.generation.video_length, made.generation.num_inference_steps) == (80, 6)
    assert (made.generation.image_start, made.generation.denoising_strength) == ("a.png", 0.5)
    assert made.vace == VACEConfig(guide_path="g.mp4", control_weight=0.7)
    assert made.lora.get_pending_downloads() == {URL: 0.5}
    assert (made.phase, made.structure_guidance.enabled) == (None, False)
    assert made.extra_params == {"wobble": 3}


def test_the_engines_names_come_out_and_nothing_that_is_not_there_yet() -> None:
    assert config().to_wgp_format() == {
        "prompt": "a fox", "video_length": 80, "num_inference_steps": 6, "image_start": "a.png",
        "denoising_strength": 0.5, "video_guide": "g.mp4", "control_net_weight": 0.7,
        "activated_loras": ["b"], "loras_multipliers": "1", "wobble": 3,
    }  # fmt: skip


def test_what_may_surprise_is_said_and_not_refused() -> None:
    assert config().validate() == [
        "video_length 80 is not 4k + 1; 81 frames are generated",
        "1 LoRA(s) are not downloaded yet",
    ]
    assert config(num_frames=81, additional_loras={}).validate() == []
    assert GenerationConfig().validate_for_model() == ["there is no prompt"]


def test_the_summary_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        config(resolution="832x480").log_summary()
    assert [record.message for record in caplog.records] == [
        "vace with vace_14B_cocktail_2_2: resolution 832x480, video_length 80, num_inference_steps 6, 2 LoRA(s)"
    ]


def test_a_segments_own_values_beat_the_segments_which_beat_the_travels() -> None:
    made = TaskConfig.from_segment_params(
        {"guidance_scale": 2.0, "model_name": "draft", "flow_shift": 4.0},
        {"guidance_scale": 1.0, "num_inference_steps": 10, "prompt": "a fox"},
        {"flow_shift": 8.0, "seed": 0},
    )
    made_of = made.generation
    assert (made_of.guidance_scale, made_of.flow_shift, made_of.num_inference_steps) == (2.0, 8.0, 10)
    assert (made.model, made_of.seed, made_of.prompt) == ("draft", 0, "a fox")


def test_the_groups_read_a_row_of_any_type() -> None:
    row = {"orchestrator_details": {"phase_config": {"phases": [{}, {}, {}]}, "video_mask": "m.mp4"}}
    phase = PhaseConfig.from_params(row)
    assert phase is not None
    assert phase.to_wgp_format()["num_inference_steps"] == 6
    assert VACEConfig.from_params(row).to_wgp_format() == {"video_mask": "m.mp4"}
    assert GenerationConfig.from_params(row).to_wgp_format()["guidance_phases"] == 3
    assert PhaseConfig.from_params({}) is None


def test_an_orchestrators_parameters_fill_what_the_row_leaves_out() -> None:
    row = {
        "seed": 1,
        "orchestrator_details": {
            "seed": 2, "steps": 8, "model_name": "draft", "additional_loras": {}, "segment_frames_expanded": [81],
            "phase_config": {"phases": [{}, {}, {}]}, "prompt": None,
        },
        "full_orchestrator_payload": {"num_inference_steps": 4, "lora_names": "a"},
    }  # fmt: skip
    assert extract_orchestrator_parameters(row) == {
        "num_inference_steps": 8, "model": "draft", "activated_loras": "a",
        "phase_config": {"phases": [{}, {}, {}]},
    }  # fmt: skip
    assert extract_orchestrator_parameters({"prompt": "x"}) == {}


def structure(**row: Any) -> StructureGuidanceConfig:
    return StructureGuidanceConfig.from_params({"orchestrator_details": row})


def test_the_unified_form_is_read_whole() -> None:
    video = {"path": "v.mp4", "start_frame": 4, "end_frame": 20, "treatment": "clip", "source_end_frame": 30}
    made = structure(
        structure_guidance={
            "videos": [video], "target": "uni3c", "preprocessing": "none", "strength": 0.6, "step_window": [0.1, 0.9],
            "frame_policy": "loop", "zero_empty_frames": False, "keep_on_gpu": True, "_guidance_video_url": "g.mp4",
            "_frame_offset": 12,
        }
    )  # fmt: skip
    assert made.model_dump(exclude_none=True) == {
        "videos": [video | {"source_start_frame": 0}], "target": "uni3c", "preprocessing": "none", "strength": 0.6,
        "canny_intensity": 1.0, "depth_contrast": 1.0, "step_window": (0.1, 0.9), "frame_policy": "loop",
        "zero_empty_frames": False, "keep_on_gpu": True, "guidance_video_url": "g.mp4", "frame_offset": 12,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"structure_video_path": "v.mp4", "structure_video_treatment": "clip"}, {"videos.0.treatment": "clip"}),
        ({"structure_videos": [{"path": "v.mp4", "structure_type": "depth"}]}, {"preprocessing": "depth"}),
        ({"structure_videos": [{"path": "v.mp4", "type": "canny"}]}, {"preprocessing": "canny"}),
        ({"structure_type": "raw"}, {"target": "vace", "preprocessing": "none"}),
        ({"structure_video_type": "depth"}, {"preprocessing": "depth"}),
        ({"structure_type": "uni3c", "uni3c_strength": 0.4}, {"target": "uni3c", "strength": 0.4}),
        ({"use_uni3c": True, "uni3c_start_percent": 0.2}, {"target": "uni3c", "step_window": (0.2, 1.0)}),
        ({"uni3c_end_percent": 0.5}, {"step_window": (0.0, 0.5)}),
        ({"structure_video_motion_strength": 1.4, "uni3c_strength": 0.4}, {"strength": 1.4}),
        ({"structure_canny_intensity": 2, "structure_depth_contrast": 3}, {"canny_intensity": 2, "depth_contrast": 3}),
        ({"uni3c_frame_policy": "trim", "uni3c_keep_on_gpu": True}, {"frame_policy": "trim", "keep_on_gpu": True}),
        ({"uni3c_zero_empty_frames": False}, {"zero_empty_frames": False}),
        ({"uni3c_guide_video": "c", "structure_motion_video_url": "b"}, {"guidance_video_url": "b"}),
        (
            {"structure_motion_video_url": "b", "structure_guidance_video_url": "a", "uni3c_guidance_frame_offset": 3},
            {"guidance_video_url": "a", "frame_offset": 3},
        ),
        ({"structure_motion_frame_offset": 2, "structure_guidance_frame_offset": 0}, {"frame_offset": 0}),
        (
            {"structure_video_path": "old", "structure_guidance": {"videos": [{"path": "new"}]}},
            {"videos.0.path": "new"},
        ),
        ({"structure_video_path": "old", "structure_guidance": {"videos": []}}, {"videos.0.path": "old"}),
    ],
)
def test_every_older_name_has_its_place(row: dict[str, Any], expected: dict[str, Any]) -> None:
    made: Any = structure(**row)
    for path, value in expected.items():
        found: Any = made
        for part in path.split("."):
            found = found[int(part)] if part.isdigit() else getattr(found, part)
        assert found == value


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({"structure_guidance": "flow"}, "structure_guidance"),
        ({"structure_guidance": {"target": "nowhere"}}, "target"),
        ({"structure_guidance": {"preprocessing": "pose"}}, "preprocessing"),
        ({"structure_guidance": {"strength": -1}}, "strength"),
        ({"structure_guidance": {"step_window": [0.9, 0.1]}}, "step_window"),
        ({"structure_guidance": {"step_window": [0, 2]}}, "step_window"),
        ({"structure_guidance": {"videos": [{"path": " "}]}}, "path"),
        ({"structure_guidance": {"videos": [{"path": "v", "start_frame": 5, "end_frame": 5}]}}, "end_frame"),
        ({"structure_type": "pose"}, "structure_type"),
        ({"structure_videos": [{"path": "a", "type": "flow"}, {"path": "b", "type": "raw"}]}, "structure_videos"),
        ({"structure_videos": "v.mp4"}, "structure_videos"),
        ({"structure_video_motion_strength": "much"}, "structure_video_motion_strength"),
    ],
)
def test_structure_guidance_that_cannot_work_is_refused_by_name(row: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput, match=field):
        structure(**row)


def test_nothing_guides_by_default() -> None:
    assert not structure().enabled
    assert structure(structure_video_path="v.mp4").enabled
    assert structure(uni3c_guide_video="v.mp4").enabled
