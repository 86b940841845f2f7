"""Plans of sliding windows: what every plan keeps to, and the lengths that users count on."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from Wan2GP.engine.wan.window import Span, plan_windows
from Wan2GP.errors import InvalidInput

lengths = st.integers(0, 40).map(lambda k: 4 * k + 1)


@given(
    total=lengths,
    size=st.integers(1, 24).map(lambda k: 4 * k + 1),
    overlap=st.integers(0, 30),
    discard=st.integers(0, 12),
    made=st.integers(0, 60),
)
def test_every_plan_makes_what_is_missing_and_no_more(total, size, overlap, discard, made):
    assume(size - overlap - discard >= 1)
    assume(made < total)
    spans = plan_windows(total, size, overlap, discard, 4, made)
    assert sum(span.new for span in spans) == total - made
    there = made
    for span in spans:
        assert span.frames % 4 == 1 and span.frames <= size + 3
        assert span.new >= 1
        assert span.start == there - span.overlap >= 0
        assert span.overlap >= min(overlap, there)
        assert span.overlap + span.new <= span.frames
        there += span.new
    for span in spans[:-1]:
        assert span.frames == size
        assert span.overlap == min(overlap, span.start + span.overlap)
        assert span.frames - span.overlap - span.new == discard


@given(
    count=st.integers(1, 8),
    size=st.integers(3, 24).map(lambda k: 4 * k + 1),
    overlap=st.integers(0, 2).map(lambda k: 4 * k + 1),
    discard=st.sampled_from([0, 4]),
)
def test_full_windows_make_the_length_that_the_formula_says(count, size, overlap, discard):
    assume(size - overlap - discard >= 1)
    total = (count - 1) * (size - overlap - discard) + size
    spans = plan_windows(total, size, overlap, discard, 4)
    assert len(spans) == count
    assert all(span.frames == size for span in spans)


def test_a_short_video_is_one_window():
    assert plan_windows(17, 81, 5, 0, 4) == (Span(0, 17, 0, 17),)


def test_three_windows_share_what_was_asked_for():
    assert plan_windows(41, 17, 5, 0, 4) == (Span(0, 17, 0, 17), Span(12, 17, 5, 12), Span(24, 17, 5, 12))


def test_the_last_window_is_as_short_as_the_rest_needs():
    assert plan_windows(37, 17, 5, 0, 4)[-1] == Span(24, 13, 5, 8)


def test_an_overlap_that_does_not_fit_the_frame_rule_grows_in_the_last_window():
    assert plan_windows(25, 17, 8, 0, 4)[-1] == Span(8, 17, 9, 8)


def test_given_frames_are_gone_on_from():
    assert plan_windows(9 + 12, 17, 5, 0, 4, given=9) == (Span(4, 17, 5, 12),)
    assert plan_windows(3 + 14, 17, 5, 0, 4, given=3) == (Span(0, 17, 3, 14),)


def test_nothing_is_left_to_do_when_everything_is_given():
    assert plan_windows(9, 17, 5, 0, 4, given=9) == ()


@pytest.mark.parametrize(("overlap", "discard"), [(17, 0), (20, 0), (9, 8)])
def test_windows_that_would_not_advance_are_refused(overlap, discard):
    with pytest.raises(InvalidInput, match="sliding_window_size"):
        plan_windows(41, 17, overlap, discard, 4)
