"""The frame plan: lengths add up, generations are 4k+1, no frame is lost."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from source.errors import InvalidInput
from source.planning.frames import context_for, plan_frames, quantise


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


lengths = st.lists(st.integers(17, 200), min_size=1, max_size=8)


@given(lengths, st.lists(st.integers(0, 16), max_size=8), st.booleans())
def test_every_plan_adds_up(frames: list[int], overlaps: list[int], chained: bool) -> None:
    try:
        plan = plan_frames(frames, overlaps, chained=chained)
    except InvalidInput:
        assume(False)
        return
    quantised = [quantise(each) for each in frames]
    kept = sum(quantised) if chained else sum(quantised) - sum(plan.overlaps)
    assert plan.total_frames == kept
    for before, segment in zip((None, *plan.segments), plan.segments, strict=False):
        assert segment.generated % 4 == 1
        assert segment.drop >= 0
        end_before = before.start + before.output if before else 0
        assert segment.start == end_before - segment.overlap_previous
    covered = set()
    for segment in plan.segments:
        covered |= set(range(segment.start, segment.start + segment.output))
    assert covered == set(range(plan.total_frames))
    assert plan.anchors[-1] == plan.total_frames - 1
