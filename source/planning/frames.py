"""Frame arithmetic. `FramePlan` is the only source of frame numbers for a travel.

Orchestrator, segment and stitch read it.

A segment that continues its predecessor (chained) generates `new_frames + context` frames: it is shown the last
`context` frames of the predecessor, a multiple of 4 so that the whole stays 4k+1. Afterwards it drops the first
`context - overlap`, so that exactly `overlap` frames are there twice and are cross-faded by the stitch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from source.errors import InvalidInput

FRAME_STEP = 4


def quantise(num_frames: int, step: int = FRAME_STEP) -> int:
    """The length `step * k + 1` that stands for a wish: 81 -> 81, 80 -> 81, 82 -> 81, 84 -> 85."""
    return (num_frames // step) * step + 1


def context_for(overlap: int, step: int = FRAME_STEP) -> int:
    """Frames of the predecessor that a chained segment is shown: the overlap rounded up to a multiple of `step`."""
    return -(-overlap // step) * step


@dataclass(frozen=True)
class SegmentPlan:
    """One segment. All numbers are frames."""

    index: int
    new_frames: int
    #: frames of the predecessor at the head of the generation
    context: int
    overlap_previous: int
    overlap_next: int
    #: position of the segment's first kept frame in the stitched video
    start: int

    @property
    def generated(self) -> int:
        return self.new_frames + self.context

    @property
    def drop(self) -> int:
        """Frames removed from the head after generation."""
        return self.context - self.overlap_previous if self.context else 0

    @property
    def output(self) -> int:
        """Frames of the segment's video."""
        return self.generated - self.drop


@dataclass(frozen=True)
class FramePlan:
    """Every frame number of a travel."""

    segments: tuple[SegmentPlan, ...]

    @property
    def total_frames(self) -> int:
        """Frames of the stitched video."""
        last = self.segments[-1]
        return last.start + last.output

    @property
    def overlaps(self) -> tuple[int, ...]:
        return tuple(segment.overlap_next for segment in self.segments[:-1])

    @property
    def anchors(self) -> tuple[int, ...]:
        """Position of each input image in the stitched video."""
        return (0, *(segment.start + segment.output - 1 for segment in self.segments))


def plan_frames(
    segment_frames: Sequence[int],
    overlaps: Sequence[int] | int,
    *,
    chained: bool,
    min_frames: int = 1,
    step: int = FRAME_STEP,
) -> FramePlan:
    """Plan a travel. Missing overlaps are 0; an overlap is at most as long as the two segments that it joins.

    Raises InvalidInput for lengths and overlaps that no plan can honour.
    """
    if not segment_frames:
        raise InvalidInput("at least one segment is needed", field="segment_frames_expanded")
    lengths = [_checked_length(index, frames, min_frames, step) for index, frames in enumerate(segment_frames)]
    wanted = _checked_overlaps(overlaps, lengths)
    segments: list[SegmentPlan] = []
    for index, new_frames in enumerate(lengths):
        previous = wanted[index - 1] if index else 0
        following = wanted[index] if index < len(wanted) else 0
        context = context_for(previous, step) if chained else 0
        end = segments[-1].start + segments[-1].output if segments else 0
        if segments and context > segments[-1].output:
            raise InvalidInput(
                f"an overlap of {previous} needs {context} frames of segment {index - 1}, which has only "
                f"{segments[-1].output}; use a smaller overlap or a longer segment",
                field="frame_overlap_expanded",
            )
        segment = SegmentPlan(index, new_frames, context, previous, following, end - previous)
        if previous + following > segment.output:
            raise InvalidInput(
                f"segment {index} has {segment.output} frames, too few for overlaps of {previous} and {following}; "
                "use smaller overlaps or a longer segment",
                field="frame_overlap_expanded",
            )
        segments.append(segment)
    return FramePlan(tuple(segments))


def _checked_length(index: int, frames: int, min_frames: int, step: int) -> int:
    where = f"segment_frames_expanded[{index}]"
    if frames < 1:
        raise InvalidInput(f"{frames} is not a number of frames; use at least {min_frames}", field=where)
    length = quantise(frames, step)
    if length < min_frames:
        raise InvalidInput(f"{frames} frames are too few for this model; use at least {min_frames}", field=where)
    return length


def _checked_overlaps(overlaps: Sequence[int] | int, lengths: Sequence[int]) -> list[int]:
    """Exactly one overlap a join, none longer than the segments around it."""
    joins = len(lengths) - 1
    given = [overlaps] * joins if isinstance(overlaps, int) else list(overlaps)[:joins]
    for index, overlap in enumerate(given):
        if overlap < 0:
            raise InvalidInput(f"{overlap} is negative; use 0 or more", field=f"frame_overlap_expanded[{index}]")
    given += [0] * (joins - len(given))
    return [min(overlap, lengths[index], lengths[index + 1]) for index, overlap in enumerate(given)]
