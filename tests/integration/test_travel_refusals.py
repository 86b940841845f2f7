"""What a travel or a segment cannot be: refused with the name of the field, before anything is generated."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from travel_shop import GREYS, SVI, Workshop, clip, travel

from headless.testing import FAKE_MODELS, FakeOrchestrator
from source.store.types import Status

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "SVI without a video to continue": ({"model_name": "fake_t2v", "use_svi": True}, "use_svi"),
    "references without a guide": (
        {
            "model_name": "fake_i2v",
            "model_type": "i2v",
            "vace_image_refs_to_prepare_by_worker": [{"original_path": "samples/chelsea.jpg"}],
        },
        "vace_image_refs_to_prepare_by_worker",
    ),
    "structure without a guide": (
        {"model_name": "fake_i2v", "model_type": "i2v", "structure_video_path": "samples/bbb_416x240_49f.mp4"},
        "model_type vace",
    ),
    "Uni3C": ({"use_uni3c": True, "uni3c_guide_video": "samples/bbb_416x240_49f.mp4"}, "Uni3C"),
    "an unknown writer of prompts": ({"enhance_prompt": True, "enhance_prompt_model": "fake_vln"}, "fake_vlm"),
    "a length that no model makes": ({"segment_frames_expanded": [17, 10**9]}, "segment_frames_expanded.1"),
    "SVI after a video of four frames": (SVI | {"continue_from_video_resolved_path": "SHORT"}, "continue_from_video"),
    "sound that is not there": ({"audio_url": "no.mp3"}, "audio_url"),
    "an unknown upscaler": ({"upscale_factor": 2, "upscale_model_name": "fake_i2v"}, "upscale_model_name"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_model_cannot_do_is_refused_before_anything_is_generated(
    shop: Workshop, images: list[str], tmp_path: Path, case: str
) -> None:
    changes, named = REFUSED[case]
    if changes.get("continue_from_video_resolved_path"):
        changes = changes | {"continue_from_video_resolved_path": clip(tmp_path / "short.mp4", [90] * 4)}
    row = shop.run("travel_orchestrator", travel(images, **changes))
    assert (row.status, row.error_class) == (Status.FAILED, "bad_input")
    assert named in (row.error_message or "")
    assert shop.engine.calls == []
    assert shop.store.children(row.id) == []


SEGMENT = {"model_name": "fake_vace", "parsed_resolution_wh": "64x48", "num_frames": 17, "fps_helpers": 12}
BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "positions without the index of their last image": (
        {"consolidated_keyframe_positions": [5, 16]},
        "consolidated_end_anchor_idx",
    ),
    "positions without an image for each": (
        {"consolidated_keyframe_positions": [5, 10, 16], "consolidated_end_anchor_idx": 1},
        "consolidated_end_anchor_idx",
    ),
    "an index beyond the images": (
        {"consolidated_keyframe_positions": [5, 16], "consolidated_end_anchor_idx": 9},
        "consolidated_end_anchor_idx",
    ),
    "fewer frames than are shown of the video before": (
        {"num_frames": 5, "frame_overlap_from_previous": 6, "continue_from_video_resolved_path": "BEFORE"},
        "num_frames",
    ),
    "a start image that is not there": ({"start_image_url": "no.png"}, "start_image_url"),
    "an end image that is not there": (
        {"individual_segment_params": {"input_image_paths_resolved": ["IMAGE", "no.png"]}},
        "input_image_paths_resolved[1]",
    ),
    "an image of the travel that is not there": (
        {"segment_index": 1, "orchestrator_details": {"input_image_paths_resolved": ["IMAGE", "IMAGE", "no.png"]}},
        "input_image_paths_resolved[2]",
    ),
    "a length of the list": ({"num_frames": None, "segment_frames_expanded": [-3]}, "segment_frames_expanded[0]"),
    "a length under its own name": ({"num_frames": None, "segment_frames_target": 2}, "segment_frames_target"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_segment_is_refused_by_the_field_that_breaks_it(
    shop: Workshop, images: list[str], tmp_path: Path, case: str
) -> None:
    changes, field = BROKEN[case]
    before = clip(tmp_path / "before.mp4", GREYS)
    text = json.dumps(SEGMENT | {"orchestrator_details": {"input_image_paths_resolved": images}} | changes)
    params = json.loads(text.replace("BEFORE", before).replace("IMAGE", images[0]))
    row = shop.run("individual_travel_segment", params)
    assert (row.status, row.error_class) == (Status.FAILED, "bad_input"), row.error_message
    assert (row.error_message or "").startswith(f"{field}: ")
    assert shop.engine.calls == []


def test_svi_of_a_model_with_a_recipe_takes_no_third_phase(tmp_path: Path, images: list[str]) -> None:
    """The second segment would fail on it, after the first was generated."""
    (chained,) = (model for model in FAKE_MODELS if model.name == "fake_svi")
    wan = dataclasses.replace(chained, name="wan", architecture="i2v_2_2")
    shop = Workshop(tmp_path, FakeOrchestrator([wan]))
    loras = [{"url": "https://example.com/own.safetensors", "multiplier": 1}]
    three = {"steps_per_phase": [2, 2, 2], "phases": [{"phase": number, "loras": loras} for number in (1, 2, 3)]}
    rows = [
        shop.add("travel_orchestrator", travel(images, **SVI | {"model_name": "wan"} | asked))
        for asked in ({"phase_config": three}, {"phase_configs_expanded": [None, three]})
    ]
    shop.work()
    ended = [shop.store.get(row) for row in rows]
    shop.store.close()
    assert [each.status for each in ended] == [Status.FAILED] * 2
    assert all("2 phases" in (each.error_message or "") for each in ended)
    assert shop.engine.calls == []
