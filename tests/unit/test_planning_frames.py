"""The frame plan: lengths add up, generations are 4k+1, no frame is lost."""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from source.errors import InvalidInput
from source.planning.frames import PACK_LIMIT, FramePlan, context_for, plan_frames, quantise


@pytest.mark.parametrize(("wish", "length"), [(81, 81), (80, 81), (82, 81), (84, 85), (1, 1), (5, 5), (3, 1)])
def test_lengths_become_4k_plus_1(wish: int, length: int) -> None:
    assert quantise(wish) == length


@pytest.mark.parametrize(("overlap", "context"), [(0, 0), (1, 4), (4, 4), (10, 12), (12, 12)])
def test_context_is_the_overlap_rounded_up_to_four(overlap: int, context: int) -> None:
    assert context_for(overlap) == context


def test_a_chained_travel_has_as_many_frames_as_were_asked_for() -> None:
    plan = plan_frames([49, 49], [12], chained=True)
    assert plan.total_frames == 98
    assert [segment.generated for segment in plan.segments] == [49, 61]
    assert [segment.output for segment in plan.segments] == [49, 61]
    assert plan.anchors == (0, 48, 97)


def test_an_overlap_of_2_mod_4_loses_no_frame() -> None:
    plan = plan_frames([81, 81, 81], 10, chained=True)
    assert plan.total_frames == 243
    assert [segment.generated for segment in plan.segments] == [81, 93, 93]
    assert [segment.drop for segment in plan.segments] == [0, 2, 2]


def test_unchained_segments_lose_their_overlaps() -> None:
    plan = plan_frames([33, 33, 33], [4, 8], chained=False)
    assert plan.total_frames == 99 - 12
    assert all(segment.context == segment.drop == 0 for segment in plan.segments)
    assert [segment.start for segment in plan.segments] == [0, 29, 54]


def test_an_overlap_is_never_longer_than_the_segments_it_joins() -> None:
    plan = plan_frames([9, 81], 40, chained=False)
    assert plan.overlaps == (9,)


@pytest.mark.parametrize(
    ("frames", "overlaps", "chained", "field"),
    [
        ([], [], True, "segment_frames_expanded"),
        ([-3], [], True, "segment_frames_expanded[0]"),
        ([81, 4], [0], True, "segment_frames_expanded[1]"),
        ([81, 81], [-1], True, "frame_overlap_expanded[0]"),
        ([9, 9, 9], [8, 8], False, "frame_overlap_expanded"),
        ([9, 81], [9], True, "frame_overlap_expanded"),
    ],
)
def test_impossible_plans_are_refused_by_field(
    frames: list[int], overlaps: list[int], chained: bool, field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        plan_frames(frames, overlaps, chained=chained, min_frames=5 + 4)
    assert caught.value.field == field


@st.composite
def plans(draw: st.DrawFn, *, packed: bool | None = None) -> tuple[dict[str, Any], FramePlan]:
    """Any travel that can be planned: what it was asked for, and its plan."""
    step = draw(st.sampled_from([4, 4, 8]))
    asked: dict[str, Any] = {
        "segment_frames": draw(st.lists(st.integers(step + 1, 120), min_size=1, max_size=8)),
        "overlaps": draw(st.one_of(st.integers(0, 24), st.lists(st.integers(0, 24), max_size=8))),
        "chained": draw(st.booleans()),
        "step": step,
        "continued": draw(st.one_of(st.just(0), st.integers(1, 90))),
        "packed": draw(st.booleans()) if packed is None else packed,
        "borders": draw(st.sets(st.integers(1, 7))),
    }
    try:
        return asked, plan_frames(**asked)
    except InvalidInput:
        assume(False)
        raise


@settings(max_examples=400)
@given(plans())
def test_every_plan_adds_up(case: tuple[dict[str, Any], FramePlan]) -> None:
    asked, plan = case
    new = sum(quantise(each, asked["step"]) for each in asked["segment_frames"])
    kept = new if asked["chained"] else new - sum(plan.overlaps)
    assert plan.total_frames == plan.continued + kept
    assert plan.total_frames == plan.continued + sum(each.output for each in plan.segments) - sum(plan.overlaps)
    covered = set(range(plan.continued))
    for segment in plan.segments:
        covered |= set(range(segment.start, segment.start + segment.output))
    assert covered == set(range(plan.total_frames)), "a frame is lost"


@settings(max_examples=400)
@given(plans())
def test_every_generation_is_of_a_length_that_the_model_makes(case: tuple[dict[str, Any], FramePlan]) -> None:
    asked, plan = case
    for segment in plan.segments:
        assert segment.generated % asked["step"] == 1
        assert segment.drop + segment.output + segment.tail == segment.generated
        assert 0 <= segment.tail < asked["step"]
        assert len(segment.sources) == 1 or segment.generated <= PACK_LIMIT


@settings(max_examples=400)
@given(plans())
def test_every_overlap_is_honoured(case: tuple[dict[str, Any], FramePlan]) -> None:
    """What two neighbours share lies at the same positions, and a context never reaches before the predecessor."""
    _, plan = case
    end, length = plan.continued, plan.continued
    for segment in plan.segments:
        assert segment.start == end - segment.overlap_previous
        assert segment.drop >= 0 and segment.context <= length
        assert segment.offset == segment.start - segment.drop >= 0
        end, length = segment.start + segment.output, segment.output
    joins = zip(plan.segments, plan.segments[1:], strict=False)
    assert all(before.overlap_next == after.overlap_previous for before, after in joins)


@settings(max_examples=400)
@given(plans())
def test_every_image_has_its_place(case: tuple[dict[str, Any], FramePlan]) -> None:
    """Each segment ends with its image; in a chained travel they lie as far apart as was asked for."""
    asked, plan = case
    count = len(asked["segment_frames"])
    assert len(plan.anchors) == count + (0 if plan.continued else 1)
    assert plan.anchors[-1] == plan.total_frames - 1
    if asked["chained"]:
        ends = accumulate(quantise(each, asked["step"]) for each in asked["segment_frames"])
        assert list(plan.anchors[-count:]) == [plan.continued + end - 1 for end in ends]


@settings(max_examples=400)
@given(plans(packed=True))
def test_packed_segments_stand_where_they_would_stand_alone(case: tuple[dict[str, Any], FramePlan]) -> None:
    asked, plan = case
    try:
        alone = plan_frames(**asked | {"packed": False})
    except InvalidInput:  # alone, a segment may be too short for its overlaps
        assume(False)
        return
    assert (plan.total_frames, plan.anchors) == (alone.total_frames, alone.anchors)
    assert [source for each in plan.segments for source in each.sources] == list(range(len(asked["segment_frames"])))
    assert not asked["chained"] or set(plan.generation_starts) >= {
        each for each in asked["borders"] if each < len(alone.segments)
    }


@settings(max_examples=400)
@given(plans())
def test_a_plan_comes_out_again_from_its_own_numbers(case: tuple[dict[str, Any], FramePlan]) -> None:
    """So a stitch, which knows no model, plans as its orchestrator did."""
    asked, plan = case
    lengths = [stop - start for each in plan.segments for start, stop in pairwise((0, *each.ends))]
    again = plan_frames(
        lengths, asked["overlaps"], chained=asked["chained"], continued=plan.continued,
        packed=True, borders=plan.generation_starts,
    )  # fmt: skip
    assert [each.output for each in again.segments] == [each.output for each in plan.segments]
    assert (again.total_frames, again.overlaps, again.anchors) == (plan.total_frames, plan.overlaps, plan.anchors)


def test_a_continued_video_begins_the_result() -> None:
    plan = plan_frames([17, 17], [6], chained=True, continued=30)
    assert (plan.total_frames, plan.overlaps, plan.anchors) == (64, (6, 6), (46, 63))
    assert [(each.context, each.drop, each.generated) for each in plan.segments] == [(8, 2, 25), (8, 2, 25)]


def test_a_video_too_short_to_be_continued_is_refused() -> None:
    with pytest.raises(InvalidInput, match="the continued video"):
        plan_frames([17], [6], chained=True, continued=6)


def test_packed_segments_share_a_generation_up_to_81_frames() -> None:
    plan = plan_frames([33, 33, 33], 4, chained=True, packed=True)
    assert [each.sources for each in plan.segments] == [(0, 1), (2,)]
    assert [(each.generated, each.tail, each.output) for each in plan.segments] == [(69, 3, 66), (37, 0, 37)]
    assert plan.segments[0].end_positions == (32, 65)
    assert plan_frames([17, 17], 4, chained=True, packed=True, borders=[1]).generation_starts == (0, 1)
