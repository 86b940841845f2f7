"""What a visualization shows along its time: where segments, overlaps and input images lie in a video. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Literal, TypeAlias, get_args

from source.errors import InvalidInput
from source.planning.frames import FramePlan, plan_frames

#: how the panels of a visualization stand: all in a row, one beside the output, in two columns, one below the other
Layout: TypeAlias = Literal["triple", "side_by_side", "grid", "vertical"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)


@dataclass(frozen=True)
class Span:
    """Frames start … stop-1 of the video."""

    start: int
    stop: int


@dataclass(frozen=True)
class Timeline:
    """What lies where. Everything is inside 0 … num_frames-1."""

    num_frames: int
    segments: tuple[Span, ...]
    #: frames that two neighbours share
    overlaps: tuple[Span, ...]
    #: the frame that shows each input image
    anchors: tuple[int, ...]
    #: frames that lengths and overlaps add up to: `num_frames`, when they are those of this very video
    planned: int

    def segment_at(self, frame: int) -> int | None:
        """The segment that a frame belongs to, of two that share it the later one."""
        found = [index for index, span in enumerate(self.segments) if span.start <= frame < span.stop]
        return found[-1] if found else None


def timeline_for(segment_frames: Sequence[int], overlaps: Sequence[int] | int, num_frames: int) -> Timeline:
    """The timeline of a video of `num_frames` frames, of which only lengths and overlaps are known.

    Of the plans that a travel of these lengths has, chained or not, the one that is as long as the video is taken, else
    the lengths exactly as given. When nothing is as long as the video, the first plan is cut off at the video's end;
    `planned` tells.
    """
    candidates = [timeline_of(plan, num_frames) for plan in _plans(segment_frames, overlaps)]
    candidates += [_end_to_end(segment_frames, each, num_frames) for each in (0, overlaps)]
    return next((each for each in candidates if each.planned == num_frames), candidates[0])


def timeline_of(plan: FramePlan, num_frames: int) -> Timeline:
    """A plan, cut off at the end of a video of `num_frames` frames."""
    spans: list[Span] = []
    shared = []
    for segment in plan.segments:
        ends = [segment.offset + position + 1 for position in segment.end_positions]
        starts = [segment.start, *ends[:-1]]
        spans += [Span(start, end) for start, end in zip(starts, ends, strict=True)]
        shared.append(Span(segment.start, segment.start + segment.overlap_previous))
    return _within(num_frames, spans, shared, plan.anchors, plan.total_frames)


def _plans(segment_frames: Sequence[int], overlaps: Sequence[int] | int) -> Iterator[FramePlan]:
    for chained in (True, False):
        with suppress(InvalidInput):  # no travel has such lengths; a video may still have them
            yield plan_frames(segment_frames, overlaps, chained=chained)


def _end_to_end(segment_frames: Sequence[int], overlaps: Sequence[int] | int, num_frames: int) -> Timeline:
    """The lengths exactly as given, each beginning `overlap` frames before its predecessor ends: at most all of it."""
    joins = len(segment_frames) - 1
    asked = [overlaps] * joins if isinstance(overlaps, int) else [*overlaps, *[0] * joins][:joins]
    given = [min(each, *lengths) for each, lengths in zip(asked, pairwise(segment_frames), strict=True)]
    starts = list(accumulate((a - b for a, b in zip(segment_frames, given, strict=False)), initial=0))
    spans = [Span(start, start + length) for start, length in zip(starts, segment_frames, strict=True)]
    shared = [Span(after.start, before.stop) for before, after in pairwise(spans)]
    anchors = [0, *(span.stop - 1 for span in spans)]
    return _within(num_frames, spans, shared, anchors, spans[-1].stop)


def _within(
    num_frames: int, spans: Sequence[Span], shared: Sequence[Span], anchors: Sequence[int], planned: int
) -> Timeline:
    def cut(each: Sequence[Span]) -> tuple[Span, ...]:
        return tuple(Span(span.start, min(span.stop, num_frames)) for span in each)

    return Timeline(
        num_frames,
        tuple(span for span in cut(spans) if span.start < num_frames),
        tuple(span for span in cut(shared) if span.start < span.stop),
        tuple(min(anchor, num_frames - 1) for anchor in anchors),
        planned,
    )
