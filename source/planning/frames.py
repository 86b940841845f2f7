"""Frame arithmetic. `FramePlan` is the only source of frame numbers for a travel.

Orchestrator, segment, structure guidance and stitch read it.

A segment that continues its predecessor (chained) generates `new_frames + context` frames: it is shown the last
`context` frames of the predecessor, a multiple of 4 so that the whole stays 4k+1. Afterwards it drops the first
`context - overlap`, so that exactly `overlap` frames are there twice and are cross-faded by the stitch.

A travel that continues a video begins with that video: it is what the first segment continues. Segments that are packed
into one generation stand in the result exactly where they would have stood alone; the generation is made as long as the
model asks, and what is too much at its end (`tail`) is cut off.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from source.errors import InvalidInput

FRAME_STEP = 4
#: frames that one generation of packed segments has at most
PACK_LIMIT = 81


def quantise(num_frames: int, step: int = FRAME_STEP) -> int:
    """The length `step * k + 1` that stands for a wish: 81 -> 81, 80 -> 81, 82 -> 81, 84 -> 85."""
    return (num_frames // step) * step + 1


def context_for(overlap: int, step: int = FRAME_STEP) -> int:
    """Frames of the predecessor that a chained segment is shown: the overlap rounded up to a multiple of `step`."""
    return -(-overlap // step) * step


@dataclass(frozen=True)
class SegmentPlan:
    """One generation. All numbers are frames."""

    index: int
    new_frames: int
    #: frames of the predecessor at the head of the generation
    context: int
    overlap_previous: int
    overlap_next: int
    #: position of the segment's first kept frame in the stitched video
    start: int
    #: the segments of the travel that it stands for: one, or several that were packed
    sources: tuple[int, ...]
    #: where each of `sources` ends, counted in its new frames
    ends: tuple[int, ...]
    #: frames generated after the last one that is kept
    tail: int = 0

    @property
    def generated(self) -> int:
        return self.context + self.new_frames + self.tail

    @property
    def drop(self) -> int:
        """Frames removed from the head after generation."""
        return self.context - self.overlap_previous if self.context else 0

    @property
    def output(self) -> int:
        """Frames of the segment's video."""
        return self.generated - self.drop - self.tail

    @property
    def offset(self) -> int:
        """Position in the stitched video of the generation's own first frame, the context included."""
        return self.start - self.drop

    @property
    def end_positions(self) -> tuple[int, ...]:
        """Frames of the generation that show the end image of each of `sources`."""
        return tuple(self.context + end - 1 for end in self.ends)


@dataclass(frozen=True)
class FramePlan:
    """Every frame number of a travel."""

    segments: tuple[SegmentPlan, ...]
    #: frames of the video that the travel continues; it begins the result
    continued: int = 0
    #: whether the first input image stands for the end of that video, and not the video for the image
    ends_in_image: bool = False

    @property
    def generation_starts(self) -> tuple[int, ...]:
        """The segments of the travel that begin a generation: with these as `borders` the plan comes out again."""
        return tuple(segment.sources[0] for segment in self.segments)

    @property
    def total_frames(self) -> int:
        """Frames of the stitched video."""
        last = self.segments[-1]
        return last.start + last.output

    @property
    def overlaps(self) -> tuple[int, ...]:
        """Of each join of the stitch: before the first segment too, where a video is continued."""
        before = (self.segments[0].overlap_previous,) if self.continued else ()
        return before + tuple(segment.overlap_next for segment in self.segments[:-1])

    @property
    def anchors(self) -> tuple[int, ...]:
        """Position of each input image in the stitched video."""
        first = (0,) if not self.continued else (self.continued - 1,) if self.ends_in_image else ()
        return first + tuple(
            segment.offset + position for segment in self.segments for position in segment.end_positions
        )


def plan_frames(
    segment_frames: Sequence[int],
    overlaps: Sequence[int] | int,
    *,
    chained: bool,
    min_frames: int = 1,
    step: int = FRAME_STEP,
    continued: int = 0,
    packed: bool = False,
    borders: Collection[int] = (),
) -> FramePlan:
    """Plan a travel. Missing overlaps are 0; an overlap is at most as long as the two segments that it joins.

    continued   frames of a video that the first segment goes on from, over the first of the overlaps
    packed      put neighbours into one generation while it has at most PACK_LIMIT frames; chained travels alone
    borders     segments that begin a generation even so

    Raises InvalidInput for lengths and overlaps that no plan can honour.
    """
    if not segment_frames:
        raise InvalidInput("at least one segment is needed", field="segment_frames_expanded")
    lengths = [_checked_length(index, frames, min_frames, step) for index, frames in enumerate(segment_frames)]
    wanted = _checked_overlaps(overlaps, lengths)
    before = _overlap_with_continued(overlaps, lengths[0], continued)
    alone = range(len(lengths)) if not (packed and chained) else borders
    #: the overlap before each segment, and none after the last
    joints = [before, *wanted, 0]
    segments: list[SegmentPlan] = []
    end = continued
    for sources in _packed(lengths, wanted, before, step, alone):
        segment = _segment(len(segments), sources, lengths, joints, end, step if chained else 0, step)
        _check_room(segment, segments[-1].output if segments else continued)
        segments.append(segment)
        end = segment.start + segment.output
    return FramePlan(tuple(segments), continued)


def _segment(
    index: int, sources: tuple[int, ...], lengths: Sequence[int], joints: Sequence[int], end: int, context_step: int,
    step: int,
) -> SegmentPlan:  # fmt: skip
    """One generation. `end`: where what is before it ends; `context_step`: 0 where it is shown no predecessor."""
    first, last = sources[0], sources[-1]
    previous = joints[first]
    ends = [sum(lengths[first : source + 1]) for source in sources]
    return SegmentPlan(
        index=index,
        new_frames=ends[-1],
        context=context_for(previous, context_step) if context_step else 0,
        overlap_previous=previous,
        overlap_next=joints[last + 1],
        start=end - previous,
        sources=sources,
        ends=tuple(ends),
        tail=(1 - ends[-1]) % step,
    )


def _packed(
    lengths: Sequence[int], overlaps: Sequence[int], before: int, step: int, borders: Collection[int]
) -> list[tuple[int, ...]]:
    """Neighbours together, as many as fit into one generation with its context and its tail."""
    groups: list[tuple[int, ...]] = []
    for index, length in enumerate(lengths):
        if groups and index not in borders:
            first = groups[-1][0]
            new = sum(lengths[first:index]) + length
            context = context_for(overlaps[first - 1] if first else before, step)
            if context + new + (1 - new) % step <= PACK_LIMIT:
                groups[-1] = (*groups[-1], index)
                continue
        groups.append((index,))
    return groups


def _overlap_with_continued(overlaps: Sequence[int] | int, first: int, continued: int) -> int:
    """A video that is continued overlaps the first segment as the first segment overlaps the second."""
    if not continued:
        return 0
    given = overlaps if isinstance(overlaps, int) else next(iter(overlaps), 0)
    return min(_checked_overlap(given, 0), first, continued)


def _check_room(segment: SegmentPlan, ready: int) -> None:
    """Raises InvalidInput when what stands before a segment, or the segment itself, is too short for its overlaps."""
    previous, following = segment.overlap_previous, segment.overlap_next
    if segment.context > ready:
        what = f"segment {segment.index - 1}" if segment.index else "the continued video"
        raise InvalidInput(
            f"an overlap of {previous} needs {segment.context} frames of {what}, which has only {ready}; "
            "use a smaller overlap or a longer segment",
            field="frame_overlap_expanded",
        )
    if previous + following > segment.output:
        raise InvalidInput(
            f"segment {segment.index} has {segment.output} frames, too few for overlaps of {previous} and {following}; "
            "use smaller overlaps or a longer segment",
            field="frame_overlap_expanded",
        )


def _checked_length(index: int, frames: int, min_frames: int, step: int) -> int:
    where = f"segment_frames_expanded[{index}]"
    if frames < 1:
        raise InvalidInput(f"{frames} is not a number of frames; use at least {min_frames}", field=where)
    length = quantise(frames, step)
    if length < min_frames:
        raise InvalidInput(f"{frames} frames are too few for this model; use at least {min_frames}", field=where)
    return length


def _checked_overlap(overlap: int, index: int) -> int:
    if overlap < 0:
        raise InvalidInput(f"{overlap} is negative; use 0 or more", field=f"frame_overlap_expanded[{index}]")
    return overlap


def _checked_overlaps(overlaps: Sequence[int] | int, lengths: Sequence[int]) -> list[int]:
    """Exactly one overlap a join, none longer than the segments around it."""
    joins = len(lengths) - 1
    given = [overlaps] * joins if isinstance(overlaps, int) else list(overlaps)[:joins]
    given = [_checked_overlap(overlap, index) for index, overlap in enumerate(given)]
    given += [0] * (joins - len(given))
    return [min(overlap, lengths[index], lengths[index + 1]) for index, overlap in enumerate(given)]
