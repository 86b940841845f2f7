"""Joins through the whole worker, on a real database, with the shipped fake as the engine."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from join_shop import (
    FPS,
    SIZE,
    alone,
    clip,
    ffmpeg,
    frames_of,
    length,
    project,
    row_of_clips,
    ssim,
    textured,
    transitions,
    uneven,
)
from skimage.metrics import structural_similarity
from travel_shop import Workshop

from headless.testing import FakeOrchestrator
from source.store.types import NewTask, Status
from Wan2GP.media import probe_video, read_frame, resize, write_video


class Watched(FakeOrchestrator):
    """Remembers the frames of the control media, which are gone when a task is over."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[dict[str, list[np.ndarray]]] = []

    def generate(self, task, *rest):  # type: ignore[no-untyped-def]
        media = {"guide": task.options.video_guide, "mask": task.options.video_mask}
        media["init"] = task.options.vid2vid_init_video
        self.shown.append({name: frames_of(path) for name, path in media.items() if path})
        return super().generate(task, *rest)


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Workshop]:
    workshop = Workshop(tmp_path, Watched())
    yield workshop
    workshop.store.close()


def test_three_clips_are_joined_exactly_as_long_as_said(shop: Workshop, tmp_path: Path) -> None:
    """30 + 9 + 40 + 9 + 30 frames; every clip's own frames stand where they belong."""
    row = shop.run("join_clips_orchestrator", project(row_of_clips(tmp_path, 30, 40, 30)))
    video = shop.video(row)
    made = probe_video(video)
    assert (made.num_frames, made.width, made.height, float(made.fps)) == (118, *SIZE, 16.0)
    assert row.result_data is not None
    assert row.result_data["num_frames"] == 118
    for phase, first, count in ((0, 0, 30), (1, 39, 40), (2, 88, 30)):
        likeness = [ssim(video, first + number, textured(number, phase)) for number in range(0, count, 3)]
        assert min(likeness) > 0.95, phase


def test_frames_far_from_joins_are_copied_and_decode_to_the_very_same(shop: Workshop, tmp_path: Path) -> None:
    clips = row_of_clips(tmp_path, 48, 48)
    row = shop.run("join_clips_orchestrator", project(clips))
    made, first, second = frames_of(shop.video(row)), frames_of(clips[0]), frames_of(clips[1])
    assert row.result_data is not None
    assert row.result_data["copied_frames"] >= 32 + 32
    assert all(np.array_equal(made[k], first[k]) for k in range(32))
    assert all(np.array_equal(made[57 + k], second[k]) for k in range(16, 48))


def test_transitions_wait_for_nothing_and_the_final_stitch_for_all(shop: Workshop, tmp_path: Path) -> None:
    row = shop.run("join_clips_orchestrator", project(row_of_clips(tmp_path, 20, 20, 20)))
    *joins, final = shop.store.children(row.id)
    assert [child.dependant_on for child in joins] == [(), ()]
    assert final.dependant_on == tuple(child.id for child in joins)
    assert (final.task_type, row.output_location) == ("join_final_stitch", final.output_location)
    assert {length(shop.video(child)) for child in joins} == {4 + 9 + 4}


def test_children_carry_the_names_that_servers_read(shop: Workshop, tmp_path: Path) -> None:
    raw = project(row_of_clips(tmp_path, 20, 20, 20), parent_generation_id="generation")
    row = shop.run("join_clips_orchestrator", raw)
    first, second, final = shop.store.children(row.id)
    for child in (first, second, final):
        names = {name: child.params[name] for name in ("orchestrator_task_id_ref", "orchestrator_run_id", "run_id")}
        assert names == {"orchestrator_task_id_ref": row.id, "orchestrator_run_id": "run", "run_id": "run"}
        assert child.params["parent_generation_id"] == "generation"
        assert (len(child.params["clip_list"]), child.params["num_joins"]) == (3, 2)
        assert child.params["full_orchestrator_payload"]["gap_frame_count"] == 9
    marks = ("join_index", "is_first_join", "is_last_join")
    assert [[child.params[name] for name in marks] for child in (first, second)] == [[0, True, False], [1, False, True]]


def test_replace_mode_keeps_the_total(shop: Workshop, tmp_path: Path) -> None:
    """4 frames at the end of A and 5 at the start of B give way to the 9 of the gap."""
    row = shop.run("join_clips_orchestrator", project(row_of_clips(tmp_path, 30, 30), replace_mode=True))
    video = shop.video(row)
    assert length(video) == 60
    for phase, number, position in ((0, 20, 20), (0, 25, 25), (1, 5, 35), (1, 12, 42), (1, 29, 59)):
        assert ssim(video, position, textured(number, phase)) > 0.95
    assert ssim(video, 30, textured(0, 1)) < 0.9, "the frames at the boundary are new"


class Inexact(FakeOrchestrator):
    """Makes `more` frames than it is asked for."""

    def __init__(self, more: int) -> None:
        super().__init__()
        self.more = more

    def generate(self, task, *rest):  # type: ignore[no-untyped-def]
        other = task.options.replace(video_length=task.options.video_length + self.more)
        return super().generate(dataclasses.replace(task, options=other), *rest)


@pytest.mark.parametrize(("more", "orchestrated"), [(-4, True), (-4, False), (4, True)])
def test_a_defect_of_the_engine_is_never_delivered_as_a_success(tmp_path: Path, more: int, orchestrated: bool) -> None:
    """Neither a transition alone nor one of another length stands for the joined video."""
    shop = Workshop(tmp_path, Inexact(more))
    clips = row_of_clips(tmp_path, 20, 20)
    if orchestrated:
        row = shop.run("join_clips_orchestrator", project(clips))
    else:
        row = shop.run("join_clips_segment", alone(*clips))
    failed = transitions(shop, row)[0] if orchestrated else row
    warnings = [event.detail or "" for event in shop.store.events(failed.id) if event.name == "warning"]
    shop.store.close()
    assert (row.status, row.output_location) == (Status.FAILED, None)
    assert f"{17 + more} frames instead of 17" in (row.error_message or "")
    assert any(f"expected 17, actual {17 + more}" in warning for warning in warnings)


def test_size_and_rate_are_the_first_clips_when_asked_for(shop: Workshop, tmp_path: Path) -> None:
    """A null resolution is no reason to fail. Another rate, size and shape of clip B are harmonised."""
    first = clip(tmp_path / "a.mp4", 25, fps=25)
    second = clip(tmp_path / "b.mp4", 24, 1, size=(64, 64), fps=12)
    changes = {"resolution": None, "fps": None, "use_input_video_fps": True}
    made = probe_video(shop.video(shop.run("join_clips_orchestrator", project([first, second], **changes))))
    assert (made.num_frames, made.width, made.height, made.fps) == (25 + 9 + 50, *SIZE, 25)


def test_clips_are_resampled_to_16_frames_a_second_by_default(shop: Workshop, tmp_path: Path) -> None:
    clips = [clip(tmp_path / f"{index}.mp4", 50, index, fps=25) for index in range(2)]
    video = shop.video(shop.run("join_clips_orchestrator", project(clips)))
    assert (length(video), probe_video(video).fps) == (32 + 9 + 32, 16)
    assert ssim(video, 16, textured(25, 0)) > 0.95, "one second in, both rates show the same picture"


@pytest.mark.parametrize(
    ("aspect", "size"), [("1:1", (64, 64)), ("9:16", (36, 64)), ("21:9", (96, 40)), ("3:2", (96, 64))]
)
def test_an_aspect_ratio_crops_to_even_sizes(
    shop: Workshop, tmp_path: Path, aspect: str, size: tuple[int, int]
) -> None:
    row = shop.run("join_clips_orchestrator", project(row_of_clips(tmp_path, 20, 20), aspect_ratio=aspect))
    made = probe_video(shop.video(row))
    assert (made.width, made.height, made.num_frames) == (*size, 49)


def test_the_generation_has_the_models_block_and_the_result_the_size_asked_for(shop: Workshop, tmp_path: Path) -> None:
    row = shop.run("join_clips_orchestrator", project(row_of_clips(tmp_path, 20, 20), resolution=[90, 60]))
    made = probe_video(shop.video(row))
    assert (made.width, made.height) == (90, 60)
    assert shop.engine.calls[0]["resolution"] == "80x48"


def test_the_guide_keeps_the_contexts_and_leaves_the_gap_grey(watched: Workshop, tmp_path: Path) -> None:
    clips = row_of_clips(tmp_path, 20, 20)
    watched.run("join_clips_orchestrator", project(clips))
    (shown,) = watched.engine.shown  # type: ignore[attr-defined]
    first, second = frames_of(clips[0]), frames_of(clips[1])
    assert all(np.array_equal(a, b) for a, b in zip(shown["guide"][:4], first[16:], strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(shown["guide"][13:], second[:4], strict=True))
    assert {int(frame.mean()) for frame in shown["guide"][4:13]} == {128}
    assert [int(frame.mean()) for frame in shown["mask"]] == [0] * 4 + [255] * 9 + [0] * 4
    (call,) = watched.engine.calls
    assert (call["video_prompt_type"], call["video_length"], call["prompt"]) == ("VM", 17, "smooth transition")


def test_bridging_images_stand_at_a_third_and_two_thirds_of_the_gap(watched: Workshop, tmp_path: Path) -> None:
    clips = row_of_clips(tmp_path, 20, 20)
    watched.run("join_clips_orchestrator", project(clips, keep_bridging_images=True))
    (shown,) = watched.engine.shown  # type: ignore[attr-defined]
    kept = [position for position, frame in enumerate(shown["mask"]) if frame.mean() == 0]
    assert kept == [0, 1, 2, 3, 4 + 3, 4 + 6, 13, 14, 15, 16]
    assert np.array_equal(shown["guide"][7], read_frame(clips[0], -1))
    assert np.array_equal(shown["guide"][10], read_frame(clips[1], 0))


def test_anchors_are_regenerated_next_to_the_gap_alone(watched: Workshop, tmp_path: Path) -> None:
    watched.run("join_clips_orchestrator", project(row_of_clips(tmp_path, 20, 20), regenerate_anchors=True))
    (shown,) = watched.engine.shown  # type: ignore[attr-defined]
    assert [position for position, frame in enumerate(shown["mask"]) if frame.mean() == 0] == [0, 16]
    assert {int(frame.mean()) for frame in shown["guide"][1:16]} == {128}


def test_a_replacing_transition_can_begin_from_what_it_replaces(watched: Workshop, tmp_path: Path) -> None:
    clips = row_of_clips(tmp_path, 30, 30)
    watched.run("join_clips_orchestrator", project(clips, replace_mode=True, vid2vid_init_strength=0.6))
    (shown,) = watched.engine.shown  # type: ignore[attr-defined]
    wanted = [*frames_of(clips[0])[22:], *frames_of(clips[1])[:9]]
    assert len(shown["init"]) == 17
    assert all(np.array_equal(a, b) for a, b in zip(shown["init"], wanted, strict=True))
    assert watched.engine.calls[0]["vid2vid_init_strength"] == 0.6


@pytest.mark.parametrize(
    "changes", [{"replace_mode": True, "vid2vid_init_strength": 1.0}, {"vid2vid_init_strength": 0.5}]
)
def test_otherwise_it_begins_from_noise(shop: Workshop, tmp_path: Path, changes: dict[str, Any]) -> None:
    shop.run("join_clips_orchestrator", project(row_of_clips(tmp_path, 30, 30), **changes))
    assert not {"vid2vid_init_video", "vid2vid_init_strength"} & set(shop.engine.calls[0])


def test_each_join_can_have_settings_of_its_own(shop: Workshop, tmp_path: Path) -> None:
    per_join = [{"prompt": "one", "gap_frame_count": 5, "seed": 0}, {"guidance_scale": 2.5, "replace_mode": True}]
    raw = project(row_of_clips(tmp_path, 20, 30, 20), prompt="all", per_join_settings=per_join, seed=7)
    row = shop.run("join_clips_orchestrator", raw)
    calls = sorted(shop.engine.calls, key=lambda call: call["video_length"])
    assert [(call["prompt"], call["seed"], call["video_length"]) for call in calls] == [("one", 0, 13), ("all", 7, 17)]
    assert [call.get("guidance_scale") for call in calls] == [None, 2.5]
    assert length(shop.video(row)) == 70 + 5


def test_a_loop_returns_to_where_it_began(shop: Workshop, tmp_path: Path) -> None:
    row = shop.run("join_clips_orchestrator", project(row_of_clips(tmp_path, 25), loop_first_clip=True))
    video = shop.video(row)
    assert length(video) == 25 + 9 + 25
    for number in (0, 7, 20):
        assert ssim(video, number, textured(number)) > 0.95
        assert ssim(video, 58 - number, textured(number)) > 0.95
    reverse = next(child for child in shop.store.children(row.id) if child.task_type == "join_reverse")
    backwards = frames_of(shop.video(reverse))
    assert all(
        np.abs(a.astype(int) - b).mean() < 4 for a, b in zip(backwards, reversed(frames_of(video)[:25]), strict=True)
    )


def test_clips_that_are_turned_uneven_or_odd_are_joined_exactly(shop: Workshop, tmp_path: Path) -> None:
    """A phone's video lies on its side, a recording lacks frames 8 to 23, another has odd sides."""
    upright = clip(tmp_path / "upright.mp4", 40)
    ffmpeg("-display_rotation", "90", "-i", upright, "-c", "copy", tmp_path / "turned.mp4")
    holed = uneven(tmp_path / "uneven.mp4", clip(tmp_path / "even.mp4", 40, 1))
    odd = tmp_path / "odd.mkv"
    write_video(odd, (textured(number, 2, (97, 65)) for number in range(40)), fps=FPS, codec="ffv1")
    clips = [tmp_path / "turned.mp4", holed, odd]
    video = shop.video(shop.run("join_clips_orchestrator", project(clips, resolution=list(SIZE), aspect_ratio="3:2")))
    assert length(video) == 3 * 40 + 2 * 9
    turned = np.rot90(textured(10, 0))[26:68]
    assert ssim(video, 10, resize(np.ascontiguousarray(turned), SIZE)) > 0.9
    for number in (4, 30, 35):
        assert ssim(video, 49 + number, textured(number, 1)) > 0.93, "each frame at its own time"
    assert ssim(video, 98 + 20, textured(20, 2, (97, 65))[:64, :96]) > 0.93


def test_a_clip_that_does_not_say_its_colours_is_copied_forwards_and_backwards(shop: Workshop, samples: Path) -> None:
    source = samples / "bbb_320x180_keyframes.mp4"
    row = shop.run("join_clips_orchestrator", project([source], loop_first_clip=True, use_input_video_fps=True))
    made, kept = frames_of(shop.video(row)), frames_of(source)
    assert row.result_data is not None
    assert row.result_data["copied_frames"] >= 46 + 9 + 25
    assert all(np.array_equal(made[k], kept[k]) for k in range(46))
    assert structural_similarity(made[-1], kept[0], channel_axis=2) > 0.93


# ---- prompts


def test_a_model_may_write_the_prompts(shop: Workshop, tmp_path: Path) -> None:
    raw = project(
        row_of_clips(tmp_path, 20, 20, 20), enhance_prompt=True, enhance_prompt_model="fake_vlm", prompt="a bird"
    )
    row = shop.run("join_clips_orchestrator", raw)
    asked, *joins, _ = shop.store.children(row.id)
    assert [child.dependant_on for child in joins] == [(asked.id,), (asked.id,)]
    prompts = [call["prompt"] for call in shop.engine.calls if "video_guide" in call]
    assert len(prompts) == 2
    assert all(prompt.startswith("4 pictures.") and "a bird" in prompt for prompt in prompts)
    pictures = asked.params["shots"][0]["pictures"]
    assert [picture["frame"] for picture in pictures] == [0, 19, 0, 19]


def test_in_replace_mode_the_model_is_shown_the_frames_outside_the_gap(shop: Workshop, tmp_path: Path) -> None:
    changes = {"enhance_prompt": True, "enhance_prompt_model": "fake_vlm", "replace_mode": True}
    row = shop.run("join_clips_orchestrator", project(row_of_clips(tmp_path, 30, 30), **changes))
    pictures = shop.store.children(row.id)[0].params["shots"][0]["pictures"]
    assert [picture["frame"] for picture in pictures] == [0, 25, 5, 29]


# ---- one join of its own


@pytest.mark.parametrize("name", ["join_clips_segment", "join_clips"])
def test_a_join_of_its_own_gives_the_joined_video(shop: Workshop, tmp_path: Path, name: str) -> None:
    first, second = row_of_clips(tmp_path, 20, 24)
    video = shop.video(shop.run(name, alone(first, second)))
    assert length(video) == 20 + 9 + 24
    assert ssim(video, 10, textured(10, 0)) > 0.95
    assert ssim(video, 40, textured(11, 1)) > 0.95


def test_an_older_chain_goes_on_from_the_join_before(shop: Workshop, tmp_path: Path) -> None:
    clips = row_of_clips(tmp_path, 20, 20, 20)
    first = shop.add("join_clips_segment", alone(clips[0], clips[1]))
    rest = NewTask(task_type="join_clips_segment", params=alone(None, clips[2]), dependant_on=(first,))
    second = shop.store.add(rest)
    shop.work()
    video = shop.video(shop.store.get(second))
    assert length(video) == 78
    for phase, position in ((0, 10), (1, 39), (2, 68)):
        assert ssim(video, position, textured(10, phase)) > 0.95


@pytest.mark.parametrize("missing", ["starting_video_path", "ending_video_path"])
def test_a_join_without_one_of_its_clips_names_it(shop: Workshop, tmp_path: Path, missing: str) -> None:
    row = alone(*row_of_clips(tmp_path, 20, 20))
    del row[missing]
    assert (shop.run("join_clips_segment", row).error_message or "").startswith(missing)


def test_no_join_is_encoded_again_by_the_next(shop: Workshop, tmp_path: Path) -> None:
    """Six clips: every frame outside the joins is still the original's, bit for bit."""
    clips = row_of_clips(tmp_path, *[48] * 6)
    row = shop.run("join_clips_orchestrator", project(clips))
    made = frames_of(shop.video(row))
    assert len(made) == 6 * 48 + 5 * 9
    for index, path in enumerate(clips):
        source = frames_of(path)
        middle = itertools.chain(range(16, 32))
        assert all(np.array_equal(made[index * 57 + k], source[k]) for k in middle), index


def test_a_silent_clip_of_plain_grey_is_no_special_case(shop: Workshop, tmp_path: Path) -> None:
    grey = tmp_path / "grey.mp4"
    write_video(grey, [np.full((SIZE[1], SIZE[0], 3), 128, np.uint8)] * 20, fps=FPS)
    video = shop.video(shop.run("join_clips_orchestrator", project([grey, grey])))
    assert (length(video), probe_video(video).has_audio) == (49, False)
