"""The timeline of structure guidance: frame k shows source frame f(k), on the travel's one timeline."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from source.errors import InvalidInput, Unsupported
from source.params.structure_guidance import StructureGuidanceConfig
from source.planning.frames import plan_frames
from source.planning.guidance import (
    GuidanceTimeline,
    Placement,
    SourceVideo,
    guidance_task,
    place,
    plan_guidance,
)
from source.store.types import Status, Task, child_id
from source.task_registry import registry

FPS = Fraction(16)


def config(*videos: dict[str, Any], **fields: Any) -> StructureGuidanceConfig:
    listed = [{"path": f"v{index}.mp4"} | video for index, video in enumerate(videos)]
    return StructureGuidanceConfig.from_params({"structure_guidance": {"videos": listed} | fields})


def timeline(total: int, *videos: dict[str, Any], sources: int | list[int] = 49, fps: Any = FPS) -> GuidanceTimeline:
    counts = [sources] * len(videos) if isinstance(sources, int) else sources
    files = {index: SourceVideo(count, Fraction(fps)) for index, count in enumerate(counts)}
    return plan_guidance(config(*videos), files, total, FPS)


def shown(line: GuidanceTimeline) -> list[int | None]:
    found = (line.source_frame(position) for position in range(line.total_frames))
    return [None if each is None else each[1] for each in found]


def test_adjust_compresses_by_leaving_out_and_stretches_by_repeating() -> None:
    assert shown(timeline(4, {}, sources=9)) == [0, 2, 4, 6]
    assert shown(timeline(8, {}, sources=3)) == [0, 0, 0, 0, 1, 1, 1, 1]
    assert shown(timeline(3, {}, sources=1)) == [0, 0, 0]


def test_clip_keeps_the_speed_and_begins_again() -> None:
    clip = {"treatment": "clip"}
    assert shown(timeline(7, clip, sources=3)) == [0, 1, 2, 0, 1, 2, 0]
    assert shown(timeline(6, clip, sources=9, fps=32)) == [0, 2, 4, 6, 8, 0]
    assert shown(timeline(6, clip, sources=4, fps=24)) == [0, 2, 3, 0, 2, 3]
    assert shown(timeline(6, clip, sources=9, fps=8)) == [0, 1, 1, 2, 2, 3]


@pytest.mark.parametrize("rate", [23.976, 29.97, 59.94])
def test_a_rate_written_with_decimals_is_the_one_it_stands_for(rate: float) -> None:
    """24000/1001 is a millionth more than 23.976: no reason to be one frame ahead from frame 1 on."""
    exact = Fraction(round(rate) * 1000, 1001)
    line = plan_guidance(config({"treatment": "clip"}), {0: SourceVideo(9, exact)}, 12, rate)
    assert shown(line) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 1, 2]


def test_nothing_guides_outside_the_ranges_and_source_ranges_are_kept_to() -> None:
    second = {"start_frame": 5, "end_frame": 8, "treatment": "clip", "source_start_frame": 10, "source_end_frame": 12}
    line = timeline(9, second, {"start_frame": 1, "end_frame": 3, "source_start_frame": 40}, sources=[49, 44])
    assert shown(line) == [None, 40, 41, None, None, 10, 11, 10, None]
    assert [line.source_frame(position) for position in (1, 5)] == [(1, 40), (0, 10)]


def test_the_motion_of_a_frame_lies_between_it_and_the_next_one() -> None:
    (adjust,) = timeline(4, {}, sources=9).placements
    assert [adjust.source_pair(position) for position in range(4)] == [(0, 2), (2, 4), (4, 6), (6, 8)]
    (clip,) = timeline(6, {"treatment": "clip"}, sources=3).placements
    assert [clip.source_pair(position) for position in range(4)] == [(0, 1), (1, 2), (1, 2), (0, 1)], "no jump back"
    (still,) = timeline(3, {"treatment": "clip"}, sources=1).placements
    assert still.source_pair(1) == (0, 0)


def test_what_lies_outside_the_result_is_left_out_or_cut_and_said() -> None:
    line = timeline(20, {"start_frame": 10, "end_frame": 40}, {"start_frame": 20}, {"end_frame": 10}, sources=99)
    assert [(each.video, each.start, each.stop) for each in line.placements] == [(2, 0, 10), (0, 10, 20)]
    assert "videos[0].path would end at frame 40 of 20" in line.notes[0]
    assert "videos[1].path would begin at frame 20 of 20" in line.notes[1]


def test_a_source_range_beyond_the_file_is_cut_and_said_and_one_outside_is_refused() -> None:
    line = timeline(4, {"source_end_frame": 100}, sources=9)
    assert shown(line) == [0, 2, 4, 6]
    assert "9 frames, not 100" in line.notes[0]
    with pytest.raises(InvalidInput) as caught:
        timeline(4, {"source_start_frame": 9}, sources=9)
    assert caught.value.field == "structure_guidance.videos[0].path"


def test_two_videos_for_one_frame_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"videos 1 and 0 both guide frame 4") as caught:
        place(config({"start_frame": 4}, {"end_frame": 5}), 20)
    assert caught.value.field == "structure_guidance.videos"


lengths = st.integers(1, 300)


@given(lengths, lengths, st.integers(0, 50), st.integers(0, 40))
def test_adjust_is_the_formula(needed: int, available: int, first: int, start: int) -> None:
    placement = Placement(0, start, start + needed, "adjust", first, available, Fraction(1))
    frames = [placement.source_frame(start + k) for k in range(needed + 1)]
    m = needed + 1
    assert frames == [first + int(Fraction(k * (available - 1), m - 1)) for k in range(m)]
    assert (frames[0], frames[-1]) == (first, first + available - 1)
    assert frames == sorted(frames)


rates = st.sampled_from([Fraction(8), Fraction(16), Fraction(25), Fraction(24000, 1001), Fraction(60), Fraction(7, 3)])


@given(lengths, lengths, rates, rates)
def test_clip_shows_the_source_frame_at_or_after_each_time(
    needed: int, available: int, source: Fraction, target: Fraction
) -> None:
    pace = source / target
    placement = Placement(0, 0, needed, "clip", 0, available, pace)
    frames = [placement.source_frame(k) for k in range(needed)]
    begun = 0
    for k, frame in enumerate(frames):
        if Fraction(k - begun) / target > Fraction(available - 1) / source:
            begun = k  # the source is over: from its beginning again
        assert 0 <= frame < available
        assert (frame - 1) / source < (k - begun) / target <= frame / source
    for k in range(needed):
        before, after = placement.source_pair(k)
        assert 0 <= before <= after < available, "motion never runs backwards"


ranges = st.lists(st.tuples(st.integers(0, 60), st.one_of(st.none(), st.integers(1, 40))), max_size=5)


@given(ranges, st.integers(1, 50))
def test_ranges_are_disjoint_ordered_and_inside_or_refused(given_ranges: list[Any], total: int) -> None:
    videos = [
        {"start_frame": start} | ({} if length is None else {"end_frame": start + length})
        for start, length in given_ranges
    ]
    wanted = [
        set(range(start, total if length is None else min(start + length, total))) for start, length in given_ranges
    ]
    collide = sum(map(len, wanted)) > len(set().union(*wanted))
    try:
        line = timeline(total, *videos)
    except InvalidInput:
        assert collide
        return
    assert not collide
    guides: dict[int, int] = {position: index for index, each in enumerate(wanted) for position in each}
    for position in range(total):
        found = line.source_frame(position)
        assert (None if found is None else found[0]) == guides.get(position)
    spans = place(config(*videos), total)
    assert len(spans.notes) + len(spans.spans) >= len(videos)
    assert spans.meet(0, total) == bool(guides)
    assert not spans.meet(total, total + 100)


ROW = Task(
    id="5f0c7a52", task_type="travel_orchestrator", params={}, status=Status.IN_PROGRESS,
    created_at="2026-01-01T00:00:00.000Z",
)  # fmt: skip
SHARED = {"orchestrator_task_id_ref": ROW.id, "parsed_resolution_wh": "70x50", "fps_helpers": 12,
          "orchestrator_details": {"use_svi": True, "structure_type": "canny", "steps": 0}}  # fmt: skip


def test_a_travel_gets_one_child_that_draws_its_whole_timeline() -> None:
    """A continued video counts: position 0 is its first frame."""
    frames = plan_frames([17, 17], 4, chained=True, continued=20)
    given_config = config({"start_frame": 20, "end_frame": 30}, preprocessing="none")
    child = guidance_task(ROW, SHARED, given_config, frames, (64, 48), 12)
    assert child is not None
    assert (child.id, child.task_type) == (child_id(ROW.id, "travel_guidance:0"), "travel_guidance")
    parsed = registry().get("travel_guidance").parse(child.params)
    params: Any = parsed.params
    assert (params.total_frames, params.options.size, params.fps_helpers) == (20 + 34, (64, 48), 12)
    assert params.structure_guidance.model_dump() == given_config.model_dump()
    assert parsed.unknown == ()


def test_there_is_no_such_child_when_nothing_is_to_be_drawn() -> None:
    frames = plan_frames([17], [], chained=True)
    for nothing in (config(), config({"start_frame": 17}), config({}, _guidance_video_url="g.mp4")):
        assert guidance_task(ROW, SHARED, nothing, frames, (64, 48), 16) is None


def test_guidance_that_cannot_act_is_refused_before_anything_is_drawn() -> None:
    with pytest.raises(Unsupported, match="Uni3C"):
        guidance_task(ROW, SHARED, config({}, target="uni3c"), plan_frames([17], [], chained=True), (64, 48), 16)
