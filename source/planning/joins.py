"""Frame arithmetic of joins: what each transition shows, generates and replaces, and where it stands in the result.

A transition is generated as `context of A + gap + context of B`, 4k+1 frames. In the result the two contexts lie over
the clips' own frames and are cross-faded with them, so nothing is shown twice and nothing is lost: the result has the
frames that the clips keep, and the gaps.

A clip between two joins is parted between them, by what each asks of it: they never touch one another, whatever their
order, and may be made at the same time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from source.errors import InvalidInput
from source.params.joins import ClipRange, JoinParams, JoinPlan
from source.planning.frames import FRAME_STEP


@dataclass(frozen=True)
class Wanted:
    """What is asked of one join, in frames."""

    context: int
    gap: int
    replace: bool = False
    #: what the model can generate: step * k + 1, at least min_frames
    step: int = FRAME_STEP
    min_frames: int = 5

    @classmethod
    def of(cls, params: JoinParams, *, step: int, min_frames: int) -> Wanted:
        return cls(params.context_frame_count, params.gap_frame_count, params.replace_mode, step, min_frames)

    @property
    def reach(self) -> int:
        """Frames of each clip that it would like to use."""
        return self.context + (-(-self.gap // 2) if self.replace else 0)


def plan_joins(lengths: Sequence[int], wanted: Sequence[Wanted]) -> tuple[JoinPlan, ...]:
    """The joins between clips of `lengths` frames. Raises InvalidInput for what does not fit into the clips."""
    if len(lengths) < 2 or len(wanted) != len(lengths) - 1:
        raise InvalidInput(f"{len(lengths)} clips and {len(wanted)} joins do not make a row", field="clip_list")
    for index, length in enumerate(lengths):
        needed = 1 if index in (0, len(lengths) - 1) else 2
        if length < needed:
            raise InvalidInput(
                f"clip {index} has {length} frames; at least {needed} are needed to join it there", field="clip_list"
            )
    heads = [0, *(_head(length, *around) for length, around in zip(lengths[1:-1], pairwise(wanted), strict=True))]
    tails = [length - head for length, head in zip(lengths[:-1], heads, strict=True)]
    heads = [*heads[1:], lengths[-1]]
    return tuple(
        plan_join(each, tail, head, index)
        for index, (each, tail, head) in enumerate(zip(wanted, tails, heads, strict=True))
    )


def _head(length: int, before: Wanted, after: Wanted) -> int:
    """How many frames of a clip belong to the join before it; the rest to the join after it."""
    share = round(length * before.reach / (before.reach + after.reach))
    return min(max(share, 1), length - 1)


def plan_join(wanted: Wanted, before: int, after: int, index: int = 0) -> JoinPlan:
    """One join between `before` frames of the first clip and `after` frames of the second.

    Raises InvalidInput when the gap is too short to be generated, or replaces more than there is.
    """
    context = min(wanted.context, before, after)
    gap = _whole(wanted, 2 * context, wanted.gap, index)
    if not wanted.replace:
        return _checked(wanted, JoinPlan(context_before=context, gap=gap, context_after=context), index)
    if gap > before + after - 2:
        raise InvalidInput(
            f"join {index}: a gap of {gap} frames replaces more than the clips around it have to give "
            f"({before - 1} and {after - 1}); use a shorter gap, longer clips, or insert it",
            field="gap_frame_count",
        )
    first, second = _replaced(gap, before, after)
    contexts = min(wanted.context, before - first), min(wanted.context, after - second)
    gap = _whole(wanted, sum(contexts), gap, index)
    first, second = _replaced(gap, before, after)
    plan = JoinPlan(
        context_before=contexts[0],
        gap=gap,
        context_after=contexts[1],
        replaced_before=first,
        replaced_after=second,
        sound_before=first,
        sound_after=second,
    )
    return _checked(wanted, plan, index)


def _whole(wanted: Wanted, context: int, gap: int, index: int) -> int:
    """The gap, shortened so that it and both contexts make a length of the model."""
    fitting = gap - (context + gap - 1) % wanted.step
    if fitting < 1:
        raise InvalidInput(
            f"join {index}: a gap of {gap} frames between {context} frames of context leaves nothing to generate, "
            f"because the whole must be {wanted.step}k+1; use a gap of at least {wanted.step}",
            field="gap_frame_count",
        )
    return fitting


def _replaced(gap: int, before: int, after: int) -> tuple[int, int]:
    """How the gap is shared: by halves, but each clip keeps a frame; what one has not the other gives."""
    first = min(max(gap // 2, gap - (after - 1)), before - 1)
    return first, gap - first


def _checked(wanted: Wanted, plan: JoinPlan, index: int) -> JoinPlan:
    if plan.length < wanted.min_frames:
        raise InvalidInput(
            f"join {index}: {plan.length} frames are too few for this model; it makes at least {wanted.min_frames}",
            field="gap_frame_count",
        )
    return plan


def kept(clips: Sequence[ClipRange], joins: Sequence[JoinPlan]) -> list[tuple[int, int]]:
    """(start, stop) of the frames that each clip shows in the result, the cross-faded ones included."""
    starts = [clips[0].start, *(clip.start + join.replaced_after for clip, join in zip(clips[1:], joins, strict=True))]
    stops = [*(clip.stop - join.replaced_before for clip, join in zip(clips, joins, strict=False)), clips[-1].stop]
    return list(zip(starts, stops, strict=True))


def total_frames(clips: Sequence[ClipRange], joins: Sequence[JoinPlan]) -> int:
    """Frames of the result: what the clips keep, and the gaps."""
    return sum(stop - start for start, stop in kept(clips, joins)) + sum(join.gap for join in joins)


@dataclass(frozen=True)
class SoundSpan:
    """The sound of the frames start..stop-1 of a clip, laid at frame `at` of the result."""

    clip: int
    start: int
    stop: int
    at: int

    @property
    def end(self) -> int:
        """Frame of the result at which it ends."""
        return self.at + self.stop - self.start


def sound_spans(clips: Sequence[ClipRange], joins: Sequence[JoinPlan]) -> list[SoundSpan]:
    """Where the sound of each clip is heard. Spans of one file that go on without a break are one span."""
    spans: list[SoundSpan] = []
    position = 0
    for index, (start, stop) in enumerate(kept(clips, joins)):
        early = joins[index - 1].sound_after if index else 0
        late = joins[index].sound_before if index < len(joins) else 0
        span = SoundSpan(index, start - early, stop + late, position - early)
        last = spans[-1] if spans else None
        if last and _goes_on(last, span, clips):
            spans[-1] = SoundSpan(last.clip, last.start, span.stop, last.at)
        else:
            spans.append(span)
        position += stop - start + (joins[index].gap if index < len(joins) else 0)
    return spans


def _goes_on(last: SoundSpan, span: SoundSpan, clips: Sequence[ClipRange]) -> bool:
    first, second = clips[last.clip], clips[span.clip]
    same = (first.path, first.task_id) == (second.path, second.task_id)
    return same and last.stop == span.start and last.end == span.at
