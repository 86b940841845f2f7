"""Where a visualization puts segments, overlaps and images."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from source.planning.frames import plan_frames
from source.planning.timeline import Span, timeline_for, timeline_of


@pytest.mark.parametrize(
    ("lengths", "overlaps", "num_frames", "segments", "anchors"),
    [
        pytest.param([17, 17], [6], 34, [(0, 17), (11, 34)], (0, 16, 33), id="chained: the overlap is generated anew"),
        pytest.param([17, 17], [6], 28, [(0, 17), (11, 28)], (0, 16, 27), id="unchained: the overlap is shared"),
        pytest.param([16, 18], 4, 34, [(0, 17), (13, 34)], (0, 16, 33), id="a travel makes 4k+1 of its lengths"),
        pytest.param([24, 24], [], 48, [(0, 24), (24, 48)], (0, 23, 47), id="lengths that no travel has"),
        pytest.param([24, 24], 5, 43, [(0, 24), (19, 43)], (0, 23, 42), id="and overlaps"),
        pytest.param([10], [], 10, [(0, 10)], (0, 9), id="one segment"),
    ],
)
def test_the_timeline_is_the_one_that_is_as_long_as_the_video(
    lengths: list[int], overlaps: int | list[int], num_frames: int, segments: list[tuple[int, int]],
    anchors: tuple[int, ...],
) -> None:  # fmt: skip
    timeline = timeline_for(lengths, overlaps, num_frames)
    assert timeline.planned == num_frames
    assert [(span.start, span.stop) for span in timeline.segments] == segments
    assert timeline.anchors == anchors


def test_overlaps_are_where_two_segments_meet() -> None:
    assert timeline_for([17, 17, 17], [6, 2], 51).overlaps == (Span(11, 17), Span(32, 34))


def test_what_does_not_add_up_is_cut_off_and_tells() -> None:
    timeline = timeline_for([17, 17], [4], 20)
    assert (timeline.planned, timeline.num_frames) == (34, 20)
    assert [(span.start, span.stop) for span in timeline.segments] == [(0, 17), (13, 20)]
    assert timeline.anchors == (0, 16, 19)


def test_packed_segments_are_shown_one_by_one() -> None:
    plan = plan_frames([17, 17, 17], 4, chained=True, packed=True)
    assert len(plan.segments) == 1
    timeline = timeline_of(plan, plan.total_frames)
    assert [(span.start, span.stop) for span in timeline.segments] == [(0, 17), (17, 34), (34, 51)]
    assert timeline.anchors == (0, 16, 33, 50)


def test_a_continued_video_comes_before_the_first_segment() -> None:
    timeline = timeline_of(plan_frames([17], [4], chained=True, continued=30), 47)
    assert timeline.segments == (Span(26, 47),)
    assert timeline.segment_at(20) is None
    assert timeline.segment_at(26) == 0


@pytest.mark.parametrize(("overlaps", "num_frames"), [([20, 0], 105), ([99, 99], 100), (20, 100)])
def test_an_overlap_is_never_longer_than_what_it_joins(overlaps: int | list[int], num_frames: int) -> None:
    timeline = timeline_for([5, 5, 100], overlaps, num_frames)
    assert timeline.planned == num_frames
    assert all(0 <= span.start < span.stop <= num_frames for span in (*timeline.segments, *timeline.overlaps))


some_overlaps = some.one_of(some.integers(0, 20), some.lists(some.integers(0, 120), max_size=6))


@given(some.lists(some.integers(1, 90), min_size=1, max_size=6), some_overlaps, some.integers(1, 400))
def test_nothing_is_ever_outside_the_video(lengths: list[int], overlaps: int | list[int], num_frames: int) -> None:
    timeline = timeline_for(lengths, overlaps, num_frames)
    spans = (*timeline.segments, *timeline.overlaps)
    assert all(0 <= span.start < span.stop <= num_frames for span in spans)
    assert all(0 <= anchor < num_frames for anchor in timeline.anchors)
