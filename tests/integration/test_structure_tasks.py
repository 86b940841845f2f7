"""Structure guidance through the worker: the travel's guidance task, and what a segment makes of every way to ask."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import Field
from structure_videos import inner_colour, moving, number, numbered, numbered_video
from tiny_models import write_definition
from tiny_vision import tiny_depth
from worker_floor import Floor

from headless.generation import ModelInfo
from headless.orchestrator import WanOrchestrator
from headless.testing import FakeOrchestrator
from source.params.structure_guidance import StructureGuidanceConfig
from source.planning.frames import FramePlan, plan_frames
from source.planning.guidance import guidance_task
from source.store.types import Status
from source.structure import DEPTH_MODEL, structure_for
from source.task_registry import Done, TaskContext, registry
from source.tasks.travel_guidance import TravelGuidanceParams
from Wan2GP import wgp
from Wan2GP.media import probe_video, read_frames, write_image, write_video

SIZE = (64, 48)

#: its "depth map" is the frame that it is shown
DEPTH = ModelInfo(
    name=DEPTH_MODEL, architecture="depth", inputs=frozenset({"control_video"}),
    required=frozenset({"control_video"}), fps=16, min_frames=1, frame_step=1,
)  # fmt: skip


class LookParams(TravelGuidanceParams):
    """A generation of `frames` that begins at `offset` of the timeline."""

    offset: int = Field(0, description="position of its first frame")
    frames: int = Field(17, description="its length")


def look(params: LookParams, context: TaskContext) -> Done:
    """Write the guide of a segment that keeps no frame."""
    from source.media.guides import GuidePlan, write_guide

    assert params.options.size
    clip = structure_for(
        params.structure_guidance, context, offset=params.offset, num_frames=params.frames,
        total_frames=params.total_frames, size=params.options.size, fps=params.fps_helpers,
    )  # fmt: skip
    if clip is None:
        return Done(None, {"guided": False})
    plan = GuidePlan(params.frames, params.options.size, params.fps_helpers, {}, clip)
    return Done(write_guide(plan, context.scratch / "guide.mkv"), {"guided": True})


@pytest.fixture
def floor(tmp_path: Path) -> Iterator[Floor]:
    made = Floor(tmp_path, FakeOrchestrator([DEPTH]))
    made.registry.register(registry().get("travel_guidance"))
    made.register("look", look, LookParams, uses_gpu=True)
    yield made
    made.close()


@pytest.fixture
def video(tmp_path: Path) -> str:
    """60 frames that say their numbers, from 1 on."""
    return str(numbered_video(tmp_path / "source.mkv", 60))


def row(total: int = 17, size: tuple[int, int] = SIZE, **params: Any) -> dict[str, Any]:
    return {"total_frames": total, "parsed_resolution_wh": f"{size[0]}x{size[1]}", "fps_helpers": 16} | params


def numbers(path: Path) -> list[int]:
    return [number(frame) for frame in read_frames(path)]


def stretched(count: int, available: int = 60) -> list[int]:
    return [1 + int(k * (available - 1) / count) for k in range(count)]


def test_the_guidance_of_a_travel_is_one_published_video_of_its_timeline(floor: Floor, video: str) -> None:
    """BUG 35 of the predecessor: it was a local path that other workers could not read."""
    second = {"path": video, "start_frame": 12, "treatment": "clip", "source_start_frame": 30}
    guidance = {"videos": [{"path": video, "start_frame": 2, "end_frame": 10}, second], "preprocessing": "none"}
    task = floor.add("travel_guidance", **row(20, structure_guidance=guidance))
    floor.work()
    done = floor.store.get(task)
    assert done.status is Status.COMPLETE, done.error_message
    assert (done.output_location or "").startswith("files/")
    info = probe_video(floor.output(task))
    assert (info.num_frames, info.width, info.height, info.fps, info.codec) == (20, *SIZE, 16, "h264")
    assert numbers(floor.output(task)) == [0, 0, *stretched(8), 0, 0, *range(31, 39)]
    assert done.result_data == {"num_frames": 20, "preprocessing": "none", "guided": [[2, 10], [12, 20]]}


def travel(floor: Floor, plan: FramePlan, **guidance: Any) -> tuple[str, list[str]]:
    """A guidance task of a travel, and a look at each of its segments that depends on it."""
    parent = floor.store.get(floor.add("nothing"))
    config = StructureGuidanceConfig.from_params({"structure_guidance": guidance})
    child = guidance_task(parent, {"orchestrator_task_id_ref": parent.id}, config, plan, SIZE, 16)
    assert child is not None
    guide = floor.store.add(child)
    looks = [
        floor.add(
            "look", (guide,),
            **row(plan.total_frames, structure_guidance=config.to_row(), offset=each.offset, frames=each.generated),
        )
        for each in plan.segments
    ]  # fmt: skip
    floor.work()
    return guide, looks


def test_frame_k_of_every_segment_shows_the_frame_of_its_place_in_the_result(floor: Floor, video: str) -> None:
    """BUG 26 of the predecessor: two timelines. Overlap 6 means a context of 8: segment 1 begins at 17 - 8."""
    plan = plan_frames([17, 17, 17], 6, chained=True)
    assert [(each.offset, each.generated) for each in plan.segments] == [(0, 17), (9, 25), (26, 25)]
    guide, looks = travel(floor, plan, videos=[{"path": video}], preprocessing="none")
    whole = numbers(floor.output(guide))
    assert whole == stretched(51)
    for segment, seen in zip(plan.segments, looks, strict=True):
        assert numbers(floor.output(seen)) == whole[segment.offset : segment.offset + segment.generated]


def test_a_continued_video_comes_before_frame_0_of_the_first_segment(floor: Floor, video: str) -> None:
    plan = plan_frames([17], 4, chained=True, continued=20)
    clip = {"path": video, "treatment": "clip"}
    _, (seen,) = travel(floor, plan, videos=[clip], preprocessing="none")
    assert plan.segments[0].offset == 16
    assert numbers(floor.output(seen)) == list(range(17, 17 + 21))


def test_a_whole_travel_gives_its_model_the_frames_of_one_timeline(tmp_path: Path, video: str) -> None:
    """Kept frames stay what they are; between them frame k of a guide is frame k of the result."""
    floor = Floor(tmp_path, skip_cleanup=True)
    for name in ("travel_orchestrator", "travel_guidance", "travel_segment", "travel_stitch"):
        floor.registry.register(registry().get(name))
    white = str(write_image(tmp_path / "white.png", np.full((48, 64, 3), 255, np.uint8)))
    task = floor.add(
        "travel_orchestrator", model_name="fake_vace", input_image_paths_resolved=[white] * 3, stitch=True,
        segment_frames_expanded=[17, 17], frame_overlap_expanded=4, parsed_resolution_wh="64x48",
        structure_video_path=video, structure_type="raw",
    )  # fmt: skip
    floor.work()
    done = floor.store.get(task)
    guides = [numbers(Path(call["video_guide"])) for call in floor.engine.calls]
    loads = floor.engine.loads
    floor.close()
    assert done.status is Status.COMPLETE, done.error_message
    whole = stretched(34)
    assert guides[0] == [255, *whole[1:16], 255]
    assert guides[1][4:] == [*whole[17:33], 255], "the context of 4 frames is the predecessor's"
    assert loads == ["fake_vace"]


def test_a_segment_that_no_video_meets_has_no_guidance(floor: Floor, video: str) -> None:
    plan = plan_frames([17, 17], 0, chained=False)
    _, looks = travel(floor, plan, videos=[{"path": video, "end_frame": 17}], preprocessing="none")
    assert [(floor.store.get(seen).result_data or {})["guided"] for seen in looks] == [True, False]


#: every older way to ask -> the numbers that a guide of 17 frames says
ONCE, LOOP = stretched(17), list(range(1, 18))
WAYS: list[tuple[dict[str, Any], list[int]]] = [
    ({"structure_guidance": {"videos": [{"path": "VIDEO"}], "preprocessing": "none"}}, ONCE),
    ({"structure_video_path": "VIDEO", "structure_type": "raw"}, ONCE),
    ({"structure_video_path": "VIDEO", "structure_video_type": "raw", "structure_video_treatment": "clip"}, LOOP),
    ({"structure_videos": [{"path": "VIDEO", "structure_type": "raw", "treatment": "clip"}]}, LOOP),
    ({"structure_videos": [{"path": "VIDEO", "type": "raw", "end_frame": 9}]}, [*stretched(9), *[0] * 8]),
    ({"structure_guidance_video_url": "VIDEO"}, LOOP),
    ({"structure_guidance_video_url": "VIDEO", "structure_guidance_frame_offset": 7}, list(range(8, 25))),
    ({"structure_motion_video_url": "VIDEO", "structure_motion_frame_offset": 20}, list(range(21, 38))),
    ({"uni3c_guide_video": "VIDEO", "uni3c_guidance_frame_offset": 3}, list(range(4, 21))),
    ({"structure_guidance": {"_guidance_video_url": "VIDEO", "_frame_offset": 43}}, list(range(44, 61))),
]


def placed(value: Any, video: str) -> Any:
    if isinstance(value, dict):
        return {name: placed(each, video) for name, each in value.items()}
    if isinstance(value, list):
        return [placed(each, video) for each in value]
    return video if value == "VIDEO" else value


@pytest.mark.parametrize(("asked", "wanted"), WAYS)
def test_every_way_to_ask_ends_in_the_same_frames(
    floor: Floor, video: str, asked: dict[str, Any], wanted: list[int]
) -> None:
    seen = floor.add("look", **row(orchestrator_details=placed(asked, video)))
    floor.work()
    done = floor.store.get(seen)
    assert done.status is Status.COMPLETE, done.error_message
    assert numbers(floor.output(seen)) == wanted


def test_older_strengths_act_on_what_they_name(floor: Floor, video: str, tmp_path: Path) -> None:
    flow = {"structure_video_path": str(moving(tmp_path / "moving.mkv", 2, 0)), "structure_video_treatment": "clip"}
    asked = [flow | {"structure_type": "flow", "structure_video_motion_strength": value} for value in (1, 2)]
    asked += [{"structure_video_path": video, "structure_type": "canny", "structure_canny_intensity": 0.5}]
    asked += [{"structure_video_path": video, "structure_type": "depth", "structure_depth_contrast": 0}]
    tasks = [floor.add("look", **row(size=(160, 96), frames=2, **each)) for each in asked]
    floor.work()
    once, twice, edges, depth = (next(iter(read_frames(floor.output(task)))) for task in tasks)
    assert 255 - inner_colour(twice)[1] == pytest.approx(2 * (255 - inner_colour(once)[1]), abs=4)
    assert edges.max() == 128
    assert np.unique(depth).tolist() == [128]


def test_depth_maps_come_through_the_queue_for_the_guided_frames_alone(floor: Floor, video: str) -> None:
    ranges = [(2, 7), (10, 14)]
    videos = [{"path": video, "start_frame": start, "end_frame": end, "treatment": "clip"} for start, end in ranges]
    guidance = {"videos": videos, "preprocessing": "depth", "depth_contrast": 0.5}
    task = floor.add("travel_guidance", **row(17, structure_guidance=guidance))
    floor.work()
    (asked,) = floor.engine.tasks
    assert (asked.model, asked.options.video_length, asked.options.resolution) == (DEPTH_MODEL, 9, "64x48")
    frames = list(read_frames(floor.output(task)))
    for position, frame in enumerate(frames):
        if wanted := next((position - start + 1 for start, end in ranges if start <= position < end), 0):
            assert number(frame) == wanted
            assert (frame.min(), frame.max()) == (pytest.approx(64, abs=8), pytest.approx(191, abs=8))
        else:
            assert np.abs(frame.astype(int) - 128).max() <= 2, position


def test_the_depth_of_a_real_network_is_that_of_the_source_frame(tmp_path: Path, samples: Path) -> None:
    """Tiny random weights. A range of one frame, too: its depth comes as a picture."""
    rows = write_definition(tmp_path / "rows", DEPTH_MODEL, "depth_anything_v2", tiny_depth(tmp_path / "weights"))
    engine = WanOrchestrator(checkpoints=tmp_path / "ckpts", definitions=[rows], device="cpu")
    floor = Floor(tmp_path, engine)
    floor.registry.register(registry().get("travel_guidance"))
    clip = {"path": str(samples / "bbb_416x240_49f.mp4"), "treatment": "clip"}
    whole, first = (
        floor.add("travel_guidance", **row(5, structure_guidance={"videos": [clip | each], "preprocessing": "depth"}))
        for each in ({}, {"end_frame": 1})
    )
    floor.work()
    found = [list(read_frames(floor.output(task))) for task in (whole, first)]
    floor.close()
    wgp.release_model()
    assert [len(frames) for frames in found] == [5, 5]
    assert found[0][0].std() > 10
    assert np.abs(found[0][0].astype(int) - found[1][0]).mean() < 4
    assert np.abs(found[1][1].astype(int) - 128).max() <= 2


def test_without_the_depth_model_the_task_says_so(tmp_path: Path, video: str) -> None:
    floor = Floor(tmp_path)
    floor.registry.register(registry().get("travel_guidance"))
    guidance = {"videos": [{"path": video}], "preprocessing": "depth"}
    task = floor.add("travel_guidance", **row(structure_guidance=guidance))
    floor.work()
    failed = floor.store.get(task)
    floor.close()
    assert failed.status is Status.FAILED
    assert DEPTH_MODEL in (failed.error_message or "")


BAD: list[tuple[dict[str, Any], str]] = [
    ({"use_uni3c": True, "structure_video_path": "VIDEO"}, "use_uni3c"),
    ({"structure_guidance": {"videos": [{"path": "VIDEO"}], "target": "uni3c"}}, "structure_guidance.target"),
    ({"structure_guidance": {"videos": [{"path": "VIDEO"}], "step_window": [0, 0.5]}}, "step_window"),
    ({"structure_guidance": {"videos": [{"path": "VIDEO"}, {"path": "VIDEO"}]}}, "both guide frame 0"),
    ({"structure_guidance": {"videos": [{"path": "VIDEO", "source_start_frame": 60}]}}, "source_start_frame 60"),
    ({"structure_guidance": {"videos": [{"path": "none.mp4"}]}}, "structure_guidance.videos[0].path"),
    ({"structure_guidance": {"videos": [{"path": "VIDEO", "start_frame": 17}]}}, "lies within the result"),
    ({"structure_videos": [{"start_frame": 3}]}, "path"),
]


@pytest.mark.parametrize(("asked", "named"), BAD)
def test_guidance_that_cannot_work_fails_with_its_field(
    floor: Floor, video: str, asked: dict[str, Any], named: str
) -> None:
    task = floor.add("travel_guidance", **row(**placed(asked, video)))
    floor.work()
    failed = floor.store.get(task)
    assert (failed.status, failed.error_class) == (Status.FAILED, "bad_input")
    assert named in (failed.error_message or "")


def test_what_was_left_out_or_is_missing_stands_in_the_timeline(floor: Floor, video: str, tmp_path: Path) -> None:
    late = {"path": video, "start_frame": 17}
    short = str(numbered_video(tmp_path / "short.mkv", 10))
    asked: list[dict[str, Any]] = [
        {"videos": [{"path": video, "end_frame": 40}], "preprocessing": "none"},
        {"videos": [late]},
        {"_guidance_video_url": short},
    ]
    tasks = [floor.add("look", **row(structure_guidance=each)) for each in asked]
    floor.work()
    warnings = [[event.detail or "" for event in floor.store.events(task) if event.name == "warning"] for task in tasks]
    said = ("would end at frame 40 of 17", "would begin at frame 17 of 17", "expected 17, actual 10")
    for (warning,), words in zip(warnings, said, strict=True):
        assert words in warning
    assert numbers(floor.output(tasks[2])) == [*range(1, 11), *[number(np.full((48, 64, 3), 128, np.uint8))] * 7]


def test_a_given_guidance_video_of_another_rate_or_shape_is_used_frame_by_frame_and_said(
    floor: Floor, video: str, tmp_path: Path
) -> None:
    quick = str(numbered_video(tmp_path / "quick.mkv", 20, fps=30))
    wide = write_video(tmp_path / "wide.mkv", [numbered(7, (128, 48))] * 20, fps=16, codec="ffv1").path
    tasks = [
        floor.add("look", **row(structure_guidance={"_guidance_video_url": str(each)})) for each in (video, quick, wide)
    ]
    floor.work()
    same, rate, shape = (
        [event.detail or "" for event in floor.store.events(task) if event.name == "warning"] for task in tasks
    )
    assert same == []
    assert numbers(floor.output(tasks[1])) == list(range(1, 18))
    assert len(rate) == 1 and "frame by frame" in rate[0] and "expected 16, actual 30" in rate[0]
    assert len(shape) == 1 and "cropped" in shape[0] and "64x48" in shape[0] and "128x48" in shape[0]


def test_a_guide_in_full_colour_keeps_its_colours(floor: Floor, tmp_path: Path) -> None:
    red = np.full((96, 64, 3), (210, 40, 30), np.uint8)
    source = write_video(tmp_path / "red.mp4", [red] * 5, fps=16, crf=1).path
    plan = plan_frames([17], [], chained=True)
    _, (seen,) = travel(floor, plan, videos=[{"path": str(source)}], preprocessing="none")
    for frame in read_frames(floor.output(seen)):
        assert frame.mean(axis=(0, 1)) == pytest.approx([210, 40, 30], abs=4)
