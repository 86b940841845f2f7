"""Edits within one video, and inpainting, through the whole worker with the shipped fake as the engine."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from join_shop import (
    FPS,
    SIZE,
    clicking,
    clicks,
    clip,
    ffmpeg,
    flashes,
    frames_of,
    length,
    loudness,
    ssim,
    textured,
    transitions,
    uneven,
)
from lora_site import serving
from travel_shop import Workshop

from source.store.types import Status
from Wan2GP.media import probe_video


def edit(source: Path, portions: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    details = {
        "run_id": "run",
        "source_video_url": str(source),
        "source_video_fps": 16,
        "portions_to_regenerate": portions,
        "model": "fake_vace",
        "context_frame_count": 4,
        "gap_frame_count": 9,
    }
    return {"orchestrator_details": details | changes}


def portion(start: int, end: int, **settings: Any) -> dict[str, Any]:
    return {"start_frame": start, "end_frame": end, **settings}


def test_two_portions_are_generated_anew_and_the_rest_stays(shop: Workshop, tmp_path: Path) -> None:
    """96 - 10 - 20 frames stay, 9 + 9 are new. Whole groups of pictures of the original decode to the very same."""
    source = clip(tmp_path / "source.mp4", 96)
    row = shop.run("edit_video_orchestrator", edit(source, [portion(60, 79), portion(20, 29)]))
    video = shop.video(row)
    assert row.result_data is not None
    assert length(video) == row.result_data["num_frames"] == 84
    for number, position in ((0, 0), (10, 10), (19, 19), (30, 29), (45, 44), (59, 58), (80, 68), (95, 83)):
        assert ssim(video, position, textured(number)) > 0.95
    made, kept = frames_of(video), frames_of(source)
    assert all(np.array_equal(made[k], kept[k]) for k in range(16))
    assert row.result_data["copied_frames"] >= 32


def copied(made: Path, source: Path, frames: list[tuple[int, int]]) -> list[int]:
    """Those frames of the source that decode to other values at their place in the result."""
    ours, theirs = frames_of(made), frames_of(source)
    return [before for before, after in frames if not np.array_equal(theirs[before], ours[after])]


def test_an_edit_copies_what_it_keeps_of_a_video_that_does_not_say_its_colours(shop: Workshop, samples: Path) -> None:
    """GOPs of 10 frames, no colour tags. Fades of 4 frames end with the original's own frame: 40 begins a GOP."""
    source = samples / "bbb_320x180_keyframes.mp4"
    portions = [portion(12, 20), portion(32, 36)]
    row = shop.run("edit_video_orchestrator", edit(source, portions, source_video_fps=25))
    video = shop.video(row)
    assert length(video) == 50 - 9 - 5 + 9 + 9
    assert copied(video, source, [(k, k) for k in range(8)] + [(k, k + 4) for k in range(40, 50)]) == []
    assert row.result_data is not None
    assert row.result_data["copied_frames"] >= 8 + 9 + 9 + 10, "and the new frames are not encoded twice"


@pytest.mark.parametrize(
    "said", [{"source_video_fps": 23.976}, {"source_video_fps": None, "use_input_video_fps": True}]
)
def test_a_rate_that_is_written_another_way_is_no_reason_to_encode(
    shop: Workshop, tmp_path: Path, said: dict[str, Any]
) -> None:
    """The file has 2997/125 frames a second; as a number that is 23.976, and so is 24000/1001."""
    source = clip(tmp_path / "source.mp4", 72, fps=Fraction(2997, 125))
    row = shop.run("edit_video_orchestrator", edit(source, [portion(36, 44)], **said))
    video = shop.video(row)
    assert (length(video), probe_video(video).fps) == (72, Fraction(2997, 125))
    assert copied(video, source, [(k, k) for k in [*range(24), *range(48, 72)]]) == []


def test_with_replace_mode_the_edges_of_portions_stay(shop: Workshop, tmp_path: Path) -> None:
    source = clip(tmp_path / "source.mp4", 60)
    row = shop.run("edit_video_orchestrator", edit(source, [portion(20, 29)], replace_mode=True))
    video = shop.video(row)
    assert length(video) == 60 - 8 + 9
    assert ssim(video, 20, textured(20)) > 0.95
    assert ssim(video, 30, textured(29)) > 0.95
    assert [child.params["replace_mode"] for child in transitions(shop, row)] == [False]


def test_a_portion_says_its_prompt_and_length(shop: Workshop, tmp_path: Path) -> None:
    """Before per_join_settings, and these before what holds for all; frame_count is an older name."""
    portions = [portion(20, 29, prompt="mine", gap_frame_count=5), portion(50, 59, frame_count=13)]
    per_join = [{"prompt": "ours", "gap_frame_count": 17}, {"prompt": "ours", "gap_frame_count": 17}]
    row = shop.run(
        "edit_video_orchestrator",
        edit(clip(tmp_path / "source.mp4", 80), portions, per_join_settings=per_join, prompt="all"),
    )
    calls = sorted(shop.engine.calls, key=lambda call: call["video_length"])
    assert [(call["prompt"], call["video_length"]) for call in calls] == [("mine", 13), ("ours", 21)]
    assert length(shop.video(row)) == 60 + 5 + 13


def test_keepers_are_ranges_of_the_original_that_any_worker_can_read(shop: Workshop, tmp_path: Path) -> None:
    source = clip(tmp_path / "source.mp4", 60)
    row = shop.run("edit_video_orchestrator", edit(source, [portion(20, 29)]))
    (join,) = transitions(shop, row)
    assert join.params["starting_video_path"] == join.params["ending_video_path"] == str(source)
    ranges = [(join.params[side]["start"], join.params[side]["stop"]) for side in ("before", "after")]
    assert ranges == [(0, 20), (30, 60)]


def test_prompts_are_enhanced_from_frames_of_the_original(shop: Workshop, tmp_path: Path) -> None:
    changes = {"enhance_prompt": True, "enhance_prompt_model": "fake_vlm"}
    row = shop.run("edit_video_orchestrator", edit(clip(tmp_path / "v.mp4", 60), [portion(20, 29)], **changes))
    assert row.status is Status.COMPLETE
    pictures = shop.store.children(row.id)[0].params["shots"][0]["pictures"]
    assert [picture["frame"] for picture in pictures] == [0, 19, 30, 59]
    assert shop.engine.calls[-1]["prompt"].startswith("4 pictures.")


@pytest.mark.parametrize(
    ("portions", "changes", "said"),
    [
        ([portion(0, 9)], {}, "no frame is kept before"),
        ([portion(50, 59)], {}, "no frame is kept after"),
        ([portion(10, 20), portion(20, 30)], {}, "overlap"),
        ([portion(30, 20)], {}, "end_frame"),
        ([portion(30, 64)], {"source_video_total_frames": 70}, "60 frames"),
        ([], {}, "portions_to_regenerate"),
        ([portion(20, 29)], {"per_join_settings": [{}, {}]}, "per_join_settings"),
    ],
)
def test_edits_that_cannot_be_are_refused_with_the_reason(
    shop: Workshop, tmp_path: Path, portions: list[dict[str, Any]], changes: dict[str, Any], said: str
) -> None:
    row = shop.run("edit_video_orchestrator", edit(clip(tmp_path / "v.mp4", 60), portions, **changes))
    assert (row.status, row.error_class) == (Status.FAILED, "bad_input")
    assert said in (row.error_message or "")
    assert shop.engine.calls == []


def test_a_count_that_is_slightly_wrong_is_corrected(shop: Workshop, tmp_path: Path) -> None:
    changes = {"replace_mode": True, "source_video_total_frames": 62}
    row = shop.run("edit_video_orchestrator", edit(clip(tmp_path / "v.mp4", 60), [portion(40, 61)], **changes))
    assert length(shop.video(row)) == 41 + 7 + 1, "one kept frame after the portion: contexts of 1 make 9 frames"


def test_the_sound_of_an_edit_stays_with_its_pictures_and_runs_on(shop: Workshop, tmp_path: Path) -> None:
    """9 frames give way to 9: nothing of the sound is lost, not even under the new frames."""
    source = clicking(tmp_path / "source.mp4", 80, [5, 60], tone=440)
    video = shop.video(shop.run("edit_video_orchestrator", edit(source, [portion(20, 28)])))
    assert length(video) == 80
    assert flashes(video) == [5, 60]
    assert max(abs(a - b) for a, b in zip(clicks(video), [5, 60], strict=True)) < 1
    assert min(loudness(video, start, start + 3) for start in range(8, 50, 3)) > 0.06


def test_a_shorter_gap_moves_the_sound_with_the_pictures(shop: Workshop, tmp_path: Path) -> None:
    source = clicking(tmp_path / "source.mp4", 80, [5, 60])
    video = shop.video(shop.run("edit_video_orchestrator", edit(source, [portion(20, 39)])))
    assert flashes(video) == [5, 49]
    assert max(abs(a - b) for a, b in zip(clicks(video), [5, 49], strict=True)) < 1


def test_sounds_that_meet_within_a_gap_are_cross_faded(shop: Workshop, tmp_path: Path) -> None:
    """20 frames give way to 9: the sound leaps by 11 frames, whole waves of this tone, behind frame 24."""
    source = clicking(tmp_path / "source.mp4", 80, [], tone=448)
    video = shop.video(shop.run("edit_video_orchestrator", edit(source, [portion(20, 39)])))
    assert 0.06 < loudness(video, 23.9, 24.1) < 0.11, "neither a dip nor a click where both are heard"
    assert min(loudness(video, k / 10, k / 10 + 0.2) for k in range(220, 260)) > 0.06


# ---- inpainting


def inpaint(source: Path, start: int, end: int, **changes: Any) -> dict[str, Any]:
    settings = {"model": "fake_vace", "context_frame_count": 8, "prompt": "x"}
    return {"video_path": str(source), "inpaint_start_frame": start, "inpaint_end_frame": end} | settings | changes


@pytest.mark.parametrize(("start", "end"), [(20, 33), (20, 34), (8, 19), (30, 52), (41, 42)])
def test_an_inpainted_video_is_exactly_as_long_as_before(shop: Workshop, tmp_path: Path, start: int, end: int) -> None:
    source = clip(tmp_path / "source.mp4", 60)
    row = shop.run("inpaint_frames", inpaint(source, start, end))
    video = shop.video(row)
    assert length(video) == 60
    assert shop.engine.calls[0]["video_length"] % 4 == 1
    for number in (0, start - 1, end, 59):
        assert ssim(video, number, textured(number)) > 0.95
    if end - start > 4:
        assert ssim(video, (start + end) // 2, textured((start + end) // 2)) < 0.9, "generated anew"


def test_what_is_not_inpainted_is_copied(shop: Workshop, tmp_path: Path) -> None:
    source = clip(tmp_path / "source.mp4", 96)
    made = frames_of(shop.video(shop.run("inpaint_frames", inpaint(source, 40, 53))))
    kept = frames_of(source)
    assert all(np.array_equal(made[k], kept[k]) for k in [*range(32), *range(64, 96)])


def test_what_is_not_inpainted_is_copied_from_a_video_that_does_not_say_its_colours(
    shop: Workshop, samples: Path
) -> None:
    """GOPs of 10 frames, no colour tags; the fade over 33..40 ends with the original's own frame."""
    source = samples / "bbb_320x180_keyframes.mp4"
    row = shop.run("inpaint_frames", inpaint(source, 20, 33))
    assert copied(shop.video(row), source, [(k, k) for k in [*range(10), *range(40, 50)]]) == []
    assert row.result_data is not None
    assert row.result_data["copied_frames"] >= 10 + 13 + 10, "and the new frames are not encoded twice"


def test_the_sound_of_an_inpainted_video_is_whole(shop: Workshop, tmp_path: Path) -> None:
    source = clicking(tmp_path / "source.mp4", 60, [5, 50], tone=440)
    video = shop.video(shop.run("inpaint_frames", inpaint(source, 20, 33)))
    assert max(abs(a - b) for a, b in zip(clicks(video), [5, 50], strict=True)) < 1
    assert min(loudness(video, start, start + 2) for start in range(8, 48, 2)) > 0.06


def test_a_video_is_inpainted_from_its_url(shop: Workshop, tmp_path: Path) -> None:
    source = clip(tmp_path / "source.mp4", 48)
    with serving() as site:
        url = site.add("/videos/source.mp4", source.read_bytes())
        row = shop.run("inpaint_frames", inpaint(source, 20, 33, video_path=url))
        assert site.asked("/videos/source.mp4")
    assert copied(shop.video(row), source, [(k, k) for k in range(12)]) == []
    assert length(shop.video(row)) == 48


def test_a_url_without_a_video_is_refused_by_its_field(shop: Workshop, tmp_path: Path) -> None:
    with serving() as site:
        row = shop.run("inpaint_frames", inpaint(tmp_path / "none.mp4", 20, 33, video_path=site.url("/none.mp4")))
    assert (row.status, row.error_class, shop.engine.calls) == (Status.FAILED, "bad_input", [])
    assert (row.error_message or "").startswith("video_path")


def test_sound_alone_is_no_video_to_inpaint(shop: Workshop, tmp_path: Path) -> None:
    sound = tmp_path / "sound.mp4"
    ffmpeg("-f", "lavfi", "-i", "sine=duration=2", "-c:a", "aac", sound)
    row = shop.run("inpaint_frames", inpaint(sound, 20, 33))
    assert (row.error_message or "").startswith("video_path") and "no video stream" in (row.error_message or "")


def test_pictures_that_are_unevenly_spaced_stay_with_their_sound(shop: Workshop, tmp_path: Path) -> None:
    """48 frames of 64 in 4 s. The flash at frame 44 of the even video is at 2.75 s, and so is its click."""
    even = clicking(tmp_path / "even.mp4", 64, [44, 45, 46], tone=440)
    source = uneven(tmp_path / "source.mp4", even)
    assert probe_video(source).num_frames == 48
    video = shop.video(shop.run("inpaint_frames", inpaint(source, 16, 21)))
    made = probe_video(video)
    assert made.num_frames == 48
    assert abs(flashes(video)[0] / made.fps - clicks(video)[0] / FPS) < 1 / made.fps


def test_a_patch_alone_is_context_new_frames_and_context(shop: Workshop, tmp_path: Path) -> None:
    source = clip(tmp_path / "source.mp4", 60)
    row = shop.run("inpaint_frames", inpaint(source, 20, 34, patch_only=True))
    video = shop.video(row)
    assert row.result_data is not None
    join = row.result_data["join"]
    assert length(video) == join["context_before"] + 14 + join["context_after"] == 33
    assert ssim(video, 0, textured(20 - join["context_before"])) > 0.95


def test_a_patch_can_have_a_size_and_rate_of_its_own(shop: Workshop, tmp_path: Path) -> None:
    changes = {"patch_only": True, "resolution": [64, 48], "fps": 12}
    video = shop.video(shop.run("inpaint_frames", inpaint(clip(tmp_path / "v.mp4", 60), 20, 33, **changes)))
    made = probe_video(video)
    assert (made.width, made.height, made.fps, made.num_frames) == (64, 48, 12, 29)


def test_another_generation_size_leaves_the_videos_own(shop: Workshop, tmp_path: Path) -> None:
    source = clip(tmp_path / "v.mp4", 60)
    made = probe_video(shop.video(shop.run("inpaint_frames", inpaint(source, 20, 33, resolution=[64, 48]))))
    assert (made.width, made.height, made.num_frames) == (*SIZE, 60)
    assert shop.engine.calls[0]["resolution"] == "64x48"


@pytest.mark.parametrize(
    ("start", "end", "field"),
    [
        (7, 20, "inpaint_start_frame"),
        (20, 53, "inpaint_end_frame"),
        (20, 61, "inpaint_end_frame"),
        (20, 20, "inpaint_end_frame"),
    ],
)
def test_a_stretch_without_its_context_is_refused(
    shop: Workshop, tmp_path: Path, start: int, end: int, field: str
) -> None:
    row = shop.run("inpaint_frames", inpaint(clip(tmp_path / "v.mp4", 60), start, end))
    assert (row.status, row.error_class) == (Status.FAILED, "bad_input")
    assert field in (row.error_message or "")
    assert shop.engine.calls == []
