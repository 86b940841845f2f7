"""The arithmetic of edits: what a video keeps, and stretches that keep their length."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from source.errors import InvalidInput
from source.params.joins import ClipRange, Portion
from source.planning.edits import inpainted_ranges, keepers, plan_inpainting, plan_portions, with_running_sound
from source.planning.joins import Wanted, kept, plan_join, plan_joins, sound_spans, total_frames

MANY = settings(max_examples=500)


def portion(start: int, end: int) -> Portion:
    return Portion(start_frame=start, end_frame=end)


def ranges_of(kept_frames: list[tuple[int, int]], total: int) -> list[ClipRange]:
    return [ClipRange(path="v.mp4", start=start, stop=stop, num_frames=total) for start, stop in kept_frames]


def test_both_ends_of_a_portion_are_generated_anew() -> None:
    assert keepers([portion(10, 19), portion(40, 49)], 100, keep_edges=False) == [(0, 10), (20, 40), (50, 100)]


def test_with_kept_edges_the_first_and_last_frame_of_a_portion_stay() -> None:
    assert keepers([portion(10, 19), portion(40, 49)], 100, keep_edges=True) == [(0, 11), (19, 41), (49, 100)]


def test_portions_come_in_any_order() -> None:
    ordered = plan_portions([portion(40, 49), portion(10, 19)], 100)
    assert [each.start_frame for each in ordered] == [10, 40]


@pytest.mark.parametrize(
    ("portions", "said"),
    [
        ([(10, 20), (20, 30)], "overlap"),
        ([(5, 40), (10, 20)], "overlap"),
        ([(90, 100)], "100 frames"),
        ([(100, 101)], "outside"),
    ],
)
def test_portions_that_overlap_or_lie_outside_are_refused(portions: list[tuple[int, int]], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        plan_portions([portion(*each) for each in portions], 100)


@pytest.mark.parametrize(("counted", "end"), [(103, 102), (101, 100)])
def test_a_count_that_is_wrong_by_three_frames_cuts_the_portion_at_the_real_end(counted: int, end: int) -> None:
    assert plan_portions([portion(90, end)], 100, counted)[0].end_frame == 99


def test_a_count_that_is_wrong_by_more_is_not_believed() -> None:
    with pytest.raises(InvalidInput, match="100 frames"):
        plan_portions([portion(90, 101)], 100, 104)


@pytest.mark.parametrize("portions", [[(0, 9)], [(90, 99)], [(10, 19), (20, 29)]])
def test_a_portion_without_kept_frames_on_both_sides_is_refused(portions: list[tuple[int, int]]) -> None:
    with pytest.raises(InvalidInput, match="no frame is kept") as caught:
        keepers([portion(*each) for each in portions], 100, keep_edges=False)
    assert caught.value.field == "portions_to_regenerate"


@MANY
@given(
    st.lists(st.tuples(st.integers(4, 60), st.integers(2, 40)), min_size=1, max_size=5), st.integers(4, 60),
    st.booleans(), st.integers(5, 60),
)  # fmt: skip
def test_an_edit_loses_nothing_but_its_portions(
    parts: list[tuple[int, int]], last: int, keep_edges: bool, gap: int
) -> None:
    """`parts`: frames kept, then frames of a portion, in turn; `last`: frames kept after them."""
    given, total = [], 0
    for stays, goes in parts:
        given.append(portion(total + stays, total + stays + goes - 1))
        total += stays + goes
    total += last
    portions = plan_portions(given, total)
    ranges = keepers(portions, total, keep_edges=keep_edges)
    joins = plan_joins([stop - start for start, stop in ranges], [Wanted(8, gap)] * len(portions))
    edge = 2 if keep_edges else 0
    kept_frames = {frame for start, stop in ranges for frame in range(start, stop)}
    anew = sum(each.end_frame - each.start_frame + 1 - edge for each in portions)
    assert sum(stop - start for start, stop in ranges) == len(kept_frames) == total - anew
    made = ranges_of(ranges, total)
    assert total_frames(made, joins) == total - anew + sum(join.gap for join in joins)
    assert kept(made, joins) == ranges


@MANY
@given(st.integers(0, 60), st.integers(1, 60))
def test_the_sound_of_an_edit_runs_on_and_is_never_heard_twice(removed: int, gap: int) -> None:
    try:
        plan = with_running_sound(plan_join(Wanted(8, gap), 50, 50), removed)
    except InvalidInput:
        assume(False)
    spans = sound_spans(ranges_of([(0, 50), (50 + removed, 100 + removed)], 100 + removed), [plan])
    heard = [frame for span in spans for frame in range(span.start, span.stop)]
    assert len(heard) == len(set(heard)) == 100 + min(plan.gap, removed)
    if plan.gap == removed:
        assert len(spans) == 1, "as many frames as before: one unbroken sound"


@MANY
@given(
    st.integers(0, 100), st.integers(0, 100), st.integers(1, 120), st.integers(8, 30), st.sampled_from([4, 8])
)  # fmt: skip
def test_an_inpainted_stretch_keeps_its_length_and_the_video_too(
    before: int, after: int, gap: int, context: int, step: int
) -> None:
    """`before`, `after`: frames beyond the context on each side."""
    start = before + context
    end, total = start + gap, start + gap + context + after
    plan = plan_inpainting(start, end, total, context, step=step)
    assert plan.gap == gap
    assert plan.length % step == 1
    assert abs(plan.context_before + plan.context_after - 2 * context) < step
    assert plan.context_before <= start and plan.context_after <= total - end
    ranges = inpainted_ranges("v.mp4", start, end, total)
    assert kept(ranges, [plan]) == [(0, start), (end, total)]
    assert total_frames(ranges, [plan]) == total
    assert [(span.start, span.stop, span.at) for span in sound_spans(ranges, [plan])] == [(0, total, 0)]


@pytest.mark.parametrize(
    ("start", "end", "field"),
    [(7, 20, "inpaint_start_frame"), (20, 93, "inpaint_end_frame"), (20, 101, "inpaint_end_frame")],
)
def test_a_stretch_without_room_for_its_context_is_refused(start: int, end: int, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        plan_inpainting(start, end, 100, 8)
    assert caught.value.field == field


def test_where_contexts_cannot_grow_they_shrink() -> None:
    """8 + 12 + 8 = 28 would become 29; the video has but 8 frames on each side, so it becomes 25."""
    plan = plan_inpainting(8, 20, 28, 8)
    assert (plan.context_before, plan.gap, plan.context_after) == (7, 12, 6)
