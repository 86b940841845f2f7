"""The arithmetic of joins: lengths add up, generations are 4k+1, every kept frame is shown exactly once."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from source.errors import InvalidInput
from source.params.joins import ClipRange, JoinPlan
from source.planning.joins import Wanted, kept, plan_join, plan_joins, sound_spans, total_frames

MANY = settings(max_examples=500)


def clips_of(*lengths: int) -> list[ClipRange]:
    return [ClipRange(path=f"{index}.mp4", stop=length, num_frames=length) for index, length in enumerate(lengths)]


def numbers(plan: JoinPlan) -> tuple[int, ...]:
    return (plan.context_before, plan.gap, plan.context_after, plan.replaced_before, plan.replaced_after)


def test_the_defaults_need_no_rounding() -> None:
    assert numbers(plan_join(Wanted(8, 53), 100, 100)) == (8, 53, 8, 0, 0)


@pytest.mark.parametrize(("gap", "made"), [(52, 49), (54, 53), (55, 53), (56, 53), (57, 57), (1, 1), (4, 1)])
def test_a_gap_is_shortened_until_all_is_4k_plus_1(gap: int, made: int) -> None:
    assert plan_join(Wanted(8, gap), 100, 100).gap == made


def test_a_replacing_gap_takes_half_of_its_frames_from_each_clip() -> None:
    plan = plan_join(Wanted(8, 53, replace=True), 100, 100)
    assert numbers(plan) == (8, 53, 8, 26, 27)
    assert total_frames(clips_of(100, 100), [plan]) == 200


def test_what_a_short_clip_cannot_give_the_other_one_gives() -> None:
    """12 frames: 11 are replaced, one is left as context; the other side has its 8. 1 + 8 + gap must be 4k+1."""
    plan = plan_join(Wanted(8, 53, replace=True), 12, 100)
    assert numbers(plan) == (1, 52, 8, 11, 41)
    assert plan.length == 61


def test_contexts_are_no_longer_than_the_shorter_clip() -> None:
    assert numbers(plan_join(Wanted(8, 53), 5, 100)) == (5, 51, 5, 0, 0)


@pytest.mark.parametrize(
    ("wanted", "before", "after", "said"),
    [
        (Wanted(8, 53, replace=True), 20, 30, "replaces more than"),
        (Wanted(3, 2), 9, 9, "leaves nothing to generate"),
        (Wanted(1, 3, min_frames=9), 9, 9, "at least 9"),
    ],
)
def test_a_gap_that_does_not_fit_is_refused(wanted: Wanted, before: int, after: int, said: str) -> None:
    with pytest.raises(InvalidInput, match=said) as caught:
        plan_join(wanted, before, after)
    assert caught.value.field == "gap_frame_count"


@pytest.mark.parametrize("lengths", [(10,), (10, 1, 10)])
def test_too_few_clips_or_frames_are_refused(lengths: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput, match="clip"):
        plan_joins(lengths, [Wanted(8, 53)] * (len(lengths) - 1))


def test_a_short_clip_between_two_joins_is_shared_and_never_faded_twice() -> None:
    first, second = plan_joins([50, 10, 50], [Wanted(8, 53), Wanted(8, 53)])
    assert first.context_after + second.context_before <= 10
    assert (first.context_after, second.context_before) == (5, 5)


def test_a_clip_between_unequal_joins_is_shared_by_what_they_ask() -> None:
    first, second = plan_joins([90, 40, 90], [Wanted(4, 9), Wanted(8, 49, replace=True)])
    assert (first.context_after, second.context_before) == (4, 8)
    assert second.replaced_before == 24


WANTED = st.builds(Wanted, st.integers(1, 30), st.integers(1, 120), st.booleans(), st.sampled_from([4, 4, 4, 8]))


@st.composite
def projects(draw: st.DrawFn) -> tuple[list[ClipRange], list[Wanted], tuple[JoinPlan, ...]]:
    wanted = draw(st.lists(WANTED, min_size=1, max_size=6))
    lengths = draw(st.lists(st.integers(1, 200), min_size=len(wanted) + 1, max_size=len(wanted) + 1))
    try:
        joins = plan_joins(lengths, wanted)
    except InvalidInput:
        assume(False)
    return clips_of(*lengths), wanted, joins


@MANY
@given(projects())
def test_every_plan_is_a_length_of_the_model_and_asks_for_no_more_than_was_wanted(project) -> None:  # type: ignore[no-untyped-def]
    _, wanted, joins = project
    for each, join in zip(wanted, joins, strict=True):
        assert join.length % each.step == 1
        assert 1 <= join.gap <= each.gap
        assert min(join.context_before, join.context_after) >= 1
        assert max(join.context_before, join.context_after) <= each.context
        replaced = join.replaced_before + join.replaced_after
        assert replaced == (join.gap if each.replace else 0)


@MANY
@given(projects())
def test_every_kept_frame_is_shown_once_and_fades_stay_inside_the_contexts(project) -> None:  # type: ignore[no-untyped-def]
    """The result, laid out: the kept frames of each clip in order, and the gaps between them."""
    clips, _, joins = project
    timeline: list[tuple[int, int]] = []
    for index, (start, stop) in enumerate(kept(clips, joins)):
        faded_in = joins[index - 1].context_after if index else 0
        faded_out = joins[index].context_before if index < len(joins) else 0
        assert clips[index].start <= start and stop <= clips[index].stop
        assert faded_in + faded_out <= stop - start, "a frame would be faded twice"
        timeline += [(index, frame) for frame in range(start, stop)]
        timeline += [(-1, frame) for frame in range(joins[index].gap if index < len(joins) else 0)]
    assert len(timeline) == total_frames(clips, joins)
    # The same, as the splice counts: all parts less all fades.
    parts = sum(stop - start for start, stop in kept(clips, joins)) + sum(join.length for join in joins)
    fades = sum(join.context_before + join.context_after for join in joins)
    assert parts - fades == len(timeline)


@MANY
@given(projects())
def test_replacing_keeps_the_total_and_inserting_adds_the_gap(project) -> None:  # type: ignore[no-untyped-def]
    clips, wanted, joins = project
    added = sum(join.gap for each, join in zip(wanted, joins, strict=True) if not each.replace)
    assert total_frames(clips, joins) == sum(clip.length for clip in clips) + added


@MANY
@given(projects())
def test_sound_stays_with_its_pictures_and_never_overlaps(project) -> None:  # type: ignore[no-untyped-def]
    clips, wanted, joins = project
    spans = sound_spans(clips, joins)
    position = 0
    for index, (span, (start, stop)) in enumerate(zip(spans, kept(clips, joins), strict=True)):
        assert span.at - span.start == position - start, "frame k of a clip sounds where frame k is shown"
        assert span.start <= start and stop <= span.stop
        position += stop - start + (joins[index].gap if index < len(joins) else 0)
    for first, second, each in zip(spans, spans[1:], wanted, strict=False):
        assert first.end <= second.at
        assert (first.end == second.at) == each.replace, "a replacing gap keeps its sound, an inserted one is silent"
