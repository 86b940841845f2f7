"""Travel and direct tasks through the whole worker, on a real database, with the shipped fake as the engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from travel_shop import COLOURS, SIZE, Workshop, assert_colour, travel

from headless.options import GenerationOptions
from headless.orchestrator import WanOrchestrator
from source.errors import InvalidInput
from source.store.types import Status
from source.task_registry import registry
from Wan2GP.media import probe_video, read_frame


def test_a_chained_travel_is_exactly_as_long_as_asked_and_passes_every_image(shop: Workshop, images: list[str]) -> None:
    video = shop.video(shop.run("travel_orchestrator", travel(images)))
    made = probe_video(video)
    assert (made.num_frames, made.width, made.height, float(made.fps)) == (34, *SIZE, 12.0)
    for position, colour in zip((0, 16, 33), COLOURS, strict=True):
        assert_colour(video, position, colour)


def test_a_chained_segment_is_shown_its_predecessors_last_frames(shop: Workshop, images: list[str]) -> None:
    """Overlap 6 means a context of 8: 17 + 8 frames are generated, 2 are dropped."""
    row = shop.run("travel_orchestrator", travel(images))
    assert [call["video_length"] for call in shop.engine.calls] == [17, 25]
    first, second, _ = shop.store.children(row.id)
    assert [probe_video(shop.video(child)).num_frames for child in (first, second)] == [17, 23]
    for index in range(6):
        tail = read_frame(shop.video(first), 11 + index).astype(int)
        head = read_frame(shop.video(second), index).astype(int)
        assert np.abs(tail - head).mean() < 4, index


def test_each_unchained_segment_starts_from_its_own_image(shop: Workshop, images: list[str]) -> None:
    row = shop.run("travel_orchestrator", travel(images, chain_segments=False, stitch=True, frame_overlap_expanded=1))
    first, second, _ = shop.store.children(row.id)
    assert_colour(shop.video(first), 0, COLOURS[0])
    assert_colour(shop.video(second), 0, COLOURS[1])
    assert probe_video(shop.video(row)).num_frames == 33
    for position, colour in zip((0, 16, 32), COLOURS, strict=True):
        assert_colour(shop.video(row), position, colour)


def test_an_i2v_travel_gives_the_engine_start_and_end_images(shop: Workshop, images: list[str]) -> None:
    row = shop.run("travel_orchestrator", travel(images, model_name="fake_i2v", model_type="i2v", stitch=True))
    assert [call["image_prompt_type"] for call in shop.engine.calls] == ["SE", "SE"]
    assert "video_guide" not in shop.engine.calls[0]
    assert probe_video(shop.video(row)).num_frames == 34 - 6


def test_without_a_stitch_the_travel_ends_with_its_last_segment(shop: Workshop, images: list[str]) -> None:
    row = shop.run("travel_orchestrator", travel(images, chain_segments=False))
    last = shop.store.children(row.id)[-1]
    assert row.output_location == last.output_location


def test_an_individual_segment_needs_no_orchestrator(shop: Workshop, images: list[str]) -> None:
    row = shop.run(
        "individual_travel_segment",
        {
            "model_name": "fake_vace",
            "parsed_resolution_wh": "64x48",
            "num_frames": 16,
            "segment_index": 3,
            "individual_segment_params": {"input_image_paths_resolved": images[1:]},
        },
    )
    assert probe_video(shop.video(row)).num_frames == 17
    assert_colour(shop.video(row), 0, COLOURS[1])
    assert_colour(shop.video(row), -1, COLOURS[2])


def test_the_guide_is_kept_under_black_and_free_under_white(shop: Workshop, images: list[str]) -> None:
    """What the engine was given says which frames hold: the first and the last of 17."""
    shop.run("travel_orchestrator", travel(images[:2], segment_frames_expanded=[17]))
    call = shop.engine.calls[0]
    assert call["video_prompt_type"] == "VM"
    assert call["resolution"] == "64x48"


def test_two_segments_load_the_model_once(shop: Workshop, images: list[str]) -> None:
    shop.run("travel_orchestrator", travel(images))
    assert shop.engine.loads == ["fake_vace"]
    assert shop.queue.statistics().model_loads == 1


def test_a_knob_added_to_the_options_reaches_the_engine_through_a_whole_travel(
    tmp_path: Path, images: list[str]
) -> None:
    class Extended(GenerationOptions):
        sparkle: float | None = None

    shop = Workshop(tmp_path, options_class=Extended)
    row = shop.run("travel_orchestrator", travel(images, sparkle=0.25))
    shop.store.close()
    assert row.status is Status.COMPLETE
    assert [call["sparkle"] for call in shop.engine.calls] == [0.25, 0.25]


def test_segments_have_their_own_prompts_and_seeds(shop: Workshop, images: list[str]) -> None:
    shop.run("travel_orchestrator", travel(images, seed_base=7, guidance_scale=3.5))
    calls = [(call["prompt"], call["seed"], call["guidance_scale"]) for call in shop.engine.calls]
    assert calls == [("one", 7, 3.5), ("two", 8, 3.5)]


FRONT_END_ROW = {
    "run_id": "20260101120000", "num_new_segments_to_generate": 2, "base_prompts_expanded": ["one", "two"],
    "negative_prompts_expanded": ["", ""], "segment_frames_expanded": [17, 17], "frame_overlap_expanded": [6],
    "parsed_resolution_wh": "70x50", "model_name": "fake_vace", "model_type": "vace", "chain_segments": True,
    "independent_segments": False, "use_svi": False, "svi_strength": None, "svi_strength_1": None,
    "svi_strength_2": None, "svi_predecessor_video_url": None, "continue_from_video_resolved_path": None,
    "seed_base": 12345, "fps_helpers": 16, "base_prompt": "", "negative_prompt": "", "text_before_prompts": "",
    "text_after_prompts": "", "enhance_prompt": False, "enhanced_prompts_expanded": [], "vlm_device": "cuda",
    "shot_id": None, "phase_config": None, "num_inference_steps": 6, "guidance_scale": 3.0, "guidance2_scale": 1.0,
    "guidance3_scale": 1.0, "flow_shift": 5.0, "steps": 20, "vace_image_refs_to_prepare_by_worker": [],
    "structure_guidance": {"target": "vace", "videos": [], "strength": 1.0}, "structure_type": "flow",
    "structure_video_path": None, "structure_video_treatment": "adjust", "structure_video_motion_strength": 1.0,
    "use_uni3c": False, "uni3c_strength": 1.0, "uni3c_start_percent": 0, "uni3c_end_percent": 1.0,
    "cfg_star_switch": 0, "cfg_zero_step": -1, "params_json_str_override": None,
    "subsequent_starting_strength_adjustment": 0, "desaturate_subsequent_starting_frames": 0,
    "adjust_brightness_subsequent_starting_frames": 0, "after_first_post_generation_saturation": 1,
    "after_first_post_generation_brightness": 0, "crossfade_sharp_amt": 0.3, "regenerate_anchors": False,
    "upscale_factor": 0, "upscale_model_name": None, "show_input_images": False, "debug_mode_enabled": False,
    "skip_cleanup_enabled": False, "main_output_dir_for_run": "./outputs",
    "original_common_args": {"poll_interval": 15, "poll_timeout": 1800}, "parent_generation_id": None,
    "additional_loras": {}, "amount_of_motion": 0.5, "advanced_mode": False, "motion_mode": "basic",
}  # fmt: skip


def test_a_row_with_every_key_of_a_front_end_runs(shop: Workshop, images: list[str]) -> None:
    raw = {
        "orchestrator_details": FRONT_END_ROW | {"input_image_paths_resolved": images},
        "tool_type": "travel-between-images",
        "parent_generation_id": "generation",
    }
    assert registry().get("travel_orchestrator").parse(raw, strict=True).unknown == ()
    made = probe_video(shop.video(shop.run("travel_orchestrator", raw)))
    assert (made.num_frames, made.width, made.height) == (34, 64, 48)
    assert {call.get("num_inference_steps") for call in shop.engine.calls} == {6}


def test_the_rows_own_level_decides_for_the_children_too(shop: Workshop, images: list[str]) -> None:
    row = shop.run("travel_orchestrator", travel(images) | {"chain_segments": False})
    assert_colour(shop.video(shop.store.children(row.id)[1]), 0, COLOURS[1])


@pytest.mark.parametrize(("given", "used"), [({}, 12345), ({"seed_to_use": 0}, 0), ({"seed_to_use": -1}, -1)])
def test_a_segment_without_a_seed_is_repeatable(
    shop: Workshop, images: list[str], given: dict[str, int], used: int
) -> None:
    segment = {"model_name": "fake_vace", "parsed_resolution_wh": "64x48", "num_frames": 17}
    shop.run("individual_travel_segment", segment | given | {"input_image_paths_resolved": images[:2]})
    assert shop.engine.calls[0]["seed"] == used


@pytest.mark.parametrize("prompt", ["", "  \n", "一只猫 🐈 chat « noir » \u202e", "x" * 20_000])
def test_any_text_is_a_prompt_of_a_travel(shop: Workshop, images: list[str], prompt: str) -> None:
    shop.run("travel_orchestrator", travel(images[:2], segment_frames_expanded=[17], base_prompts_expanded=[prompt]))
    assert [call["prompt"] for call in shop.engine.calls] == [prompt.strip() or " "]


def test_a_travel_of_no_segments_is_done_at_once(shop: Workshop) -> None:
    row = shop.run("travel_orchestrator", travel([], segment_frames_expanded=[], num_new_segments_to_generate=0))
    assert (row.status, row.output_location) == (Status.COMPLETE, None)


def test_a_failed_segment_fails_the_travel_with_its_reason_and_no_stitch_runs(
    shop: Workshop, images: list[str]
) -> None:
    Path(images[2]).unlink()
    row = shop.run("travel_orchestrator", travel(images))
    assert row.status is Status.FAILED
    assert "input_image_paths_resolved[2]" in (row.error_message or "")
    assert shop.engine.calls == []


@pytest.mark.parametrize("retried", ["segment", "travel"])
def test_a_retry_makes_again_what_failed_and_nothing_else(
    shop: Workshop, images: list[str], tmp_path: Path, retried: str
) -> None:
    shop.engine.fail_next(InvalidInput("no such luck"))
    row = shop.run("travel_orchestrator", travel(images, chain_segments=False, stitch=True, frame_overlap_expanded=1))
    failed = [each for each in shop.segments(row) if each.status is Status.FAILED]
    assert (row.status, len(failed)) == (Status.FAILED, 1)
    shop.store.retry(failed[0].id if retried == "segment" else row.id)
    again = Workshop(tmp_path)
    again.work()
    ended = again.store.get(row.id)
    again.store.close()
    assert [call["prompt"] for call in again.engine.calls] == [failed[0].params["base_prompt"]]
    assert probe_video(again.video(ended)).num_frames == 33


def test_one_frame_becomes_a_picture(shop: Workshop) -> None:
    row = shop.run("generate_video", {"model": "fake_t2v", "prompt": "x", "resolution": "64x48", "video_length": 1})
    assert shop.video(row).suffix == ".png"


BAD = {
    "unknown type": ("t2w", {"prompt": "x"}, "t2v"),
    "missing prompt": ("generate_video", {"model": "fake_t2v"}, "prompt"),
    "frames -3": ("generate_video", {"model": "fake_t2v", "prompt": "x", "video_length": -3}, "video_length"),
    "huge resolution": (
        "generate_video",
        {"model": "fake_t2v", "prompt": "x", "resolution": "90000x90000"},
        "too large",
    ),
    "unknown model": ("generate_video", {"model": "fake_t2w", "prompt": "x"}, "fake_t2v"),
    "wrong kind of value": ("generate_video", {"model": "fake_t2v", "prompt": "x", "seed": "red"}, "seed"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_fails_with_a_message_and_harms_nothing_else(shop: Workshop, case: str) -> None:
    task_type, params, named = BAD[case]
    bad = shop.add(task_type, params)
    good = shop.add("generate_video", {"model": "fake_t2v", "prompt": "x", "resolution": "64x48"})
    shop.work()
    row = shop.store.get(bad)
    assert (row.status, row.error_class, row.attempts) == (Status.FAILED, "bad_input", 1)
    assert named in (row.error_message or "")
    assert shop.store.get(good).status is Status.COMPLETE


def bad_media(kind: str, folder: Path, samples: Path) -> Path:
    path = folder / {"text": "picture.png", "truncated": "clip.mp4", "missing": "none.png", "empty": "empty.png"}[kind]
    if kind == "text":
        path.write_text("this is no picture")
    elif kind == "truncated":
        whole = (samples / "bbb_416x240_49f.mp4").read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "empty":
        path.touch()
    return path


@pytest.mark.parametrize("kind", ["text", "truncated", "missing", "empty"])
def test_bad_media_fail_with_the_field_and_the_file(shop: Workshop, kind: str, tmp_path: Path, samples: Path) -> None:
    path = bad_media(kind, tmp_path, samples)
    field = "video_guide" if kind == "truncated" else "image_start"
    bad = shop.add("generate_video", {"model": "fake_vace", "prompt": "x", "resolution": "64x48", field: str(path)})
    good = shop.add("generate_video", {"model": "fake_t2v", "prompt": "x", "resolution": "64x48"})
    shop.work()
    row = shop.store.get(bad)
    assert (row.status, row.error_class) == (Status.FAILED, "bad_input")
    assert field in (row.error_message or "")
    assert path.name in (row.error_message or "")
    assert shop.store.get(good).status is Status.COMPLETE


def test_a_model_without_weights_fails_at_once_and_says_what_helps(tmp_path: Path) -> None:
    shop = Workshop(tmp_path, WanOrchestrator(checkpoints=tmp_path / "ckpts", device="cpu"))
    row = shop.run("t2v", {"prompt": "x"})
    shop.store.close()
    assert (row.status, row.error_class, row.attempts) == (Status.FAILED, "model_unavailable", 1)
    assert "Wan2GP.models fetch" in (row.error_message or "")
    assert "draft" in (row.error_message or "")


def test_the_draft_model_is_loaded_once_for_two_segments(tmp_path: Path, images: list[str]) -> None:
    shop = Workshop(tmp_path, WanOrchestrator(checkpoints=tmp_path / "no-weights", device="cpu"))
    row = shop.run("travel_orchestrator", travel(images, model_name="draft"))
    shop.store.close()
    assert probe_video(shop.video(row)).num_frames == 34
    assert shop.queue.statistics().model_loads == 1
