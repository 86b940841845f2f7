"""Frame arithmetic of edits within one video: what is kept of it, and what a repaired stretch is shown."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from source.errors import InvalidInput
from source.params.joins import ClipRange, JoinPlan, Portion
from source.planning.frames import FRAME_STEP

#: frames by which a front end's count of a video may be wrong, and its portions are clamped to the video
COUNT_TOLERANCE = 3


def plan_portions(portions: Sequence[Portion], total: int, counted: int | None = None) -> list[Portion]:
    """The portions in order, inside a video of `total` frames. Raises InvalidInput.

    counted   frames that the portions' author believed the video to have; when that is wrong by at most
              COUNT_TOLERANCE frames, a portion that reaches beyond the end is cut there
    """
    slack = abs(counted - total) <= COUNT_TOLERANCE if counted is not None else False
    ordered = sorted(portions, key=lambda portion: portion.start_frame)
    fitted = [_inside(portion, total, slack) for portion in ordered]
    for first, second in pairwise(fitted):
        if second.start_frame <= first.end_frame:
            raise InvalidInput(
                f"the portions {first.start_frame}..{first.end_frame} and {second.start_frame}..{second.end_frame} "
                "overlap; both ends are included",
                field="portions_to_regenerate",
            )
    return fitted


def _inside(portion: Portion, total: int, slack: bool) -> Portion:
    if portion.start_frame < total and (portion.end_frame < total or slack):
        return portion.model_copy(update={"end_frame": min(portion.end_frame, total - 1)})
    raise InvalidInput(
        f"the portion {portion.start_frame}..{portion.end_frame} lies outside the video, which has {total} frames "
        f"(0..{total - 1})",
        field="portions_to_regenerate",
    )


def keepers(portions: Sequence[Portion], total: int, *, keep_edges: bool) -> list[tuple[int, int]]:
    """(start, stop) of what stays of the video: before, between and after the portions.

    keep_edges   the first and the last frame of each portion stay too

    Raises InvalidInput where nothing stays on one side of a portion: it could not be joined.
    """
    edge = 1 if keep_edges else 0
    starts = [0, *(portion.end_frame + 1 - edge for portion in portions)]
    stops = [*(portion.start_frame + edge for portion in portions), total]
    ranges = list(zip(starts, stops, strict=True))
    for index, (start, stop) in enumerate(ranges):
        if stop <= start:
            raise InvalidInput(_nothing_left(portions, index), field="portions_to_regenerate")
    return ranges


def _nothing_left(portions: Sequence[Portion], index: int) -> str:
    if index == 0:
        where = f"no frame is kept before the portion that begins at {portions[0].start_frame}"
    elif index == len(portions):
        where = f"no frame is kept after the portion that ends at {portions[-1].end_frame}"
    else:
        where = f"no frame is kept between frame {portions[index - 1].end_frame} and {portions[index].start_frame}"
    return f"{where}; a portion is joined to kept frames on both sides, so leave at least one (or unite neighbours)"


def with_running_sound(plan: JoinPlan, removed: int) -> JoinPlan:
    """A join inside one video, whose `removed` frames had sound: it runs on into the gap from both sides.

    With a gap of just as many frames the sound is whole; in a longer one the middle is silent.
    """
    first = min(plan.gap // 2, removed // 2)
    return plan.model_copy(update={"sound_before": first, "sound_after": min(plan.gap, removed) - first})


def plan_inpainting(
    start: int, end: int, total: int, context: int, *, step: int = FRAME_STEP, min_frames: int = 5
) -> JoinPlan:
    """The frames start..end-1 of a video of `total` frames, generated anew between contexts of about `context` frames.

    The gap keeps its length. The contexts grow until the whole is step * k + 1; where the video does not have those
    frames they shrink. Raises InvalidInput for a stretch without room for its contexts.
    """
    if end > total:
        raise InvalidInput(f"is {end}, but the video has {total} frames", field="inpaint_end_frame")
    if start < context:
        raise InvalidInput(
            f"is {start}, but {context} frames of context are needed before it; use a later start or a smaller "
            "context_frame_count",
            field="inpaint_start_frame",
        )
    if total - end < context:
        raise InvalidInput(
            f"is {end} of {total} frames, but {context} frames of context are needed after it; use an earlier end or a "
            "smaller context_frame_count",
            field="inpaint_end_frame",
        )
    gap = end - start
    before, after = _contexts(gap, context, start, total - end, step, min_frames)
    first = gap // 2
    return JoinPlan(
        context_before=before,
        gap=gap,
        context_after=after,
        replaced_before=first,
        replaced_after=gap - first,
        sound_before=first,
        sound_after=gap - first,
    )


def _contexts(gap: int, context: int, room_before: int, room_after: int, step: int, min_frames: int) -> tuple[int, int]:
    """Two contexts, as alike as can be, that make the whole step * k + 1."""
    missing = (1 - 2 * context - gap) % step
    grown = 2 * context + missing
    for total in (grown, grown - step):
        before = min(-(-total // 2), room_before)
        after = min(total - before, room_after)
        before = min(total - after, room_before)
        if before + after == total and min(before, after) >= 1 and total + gap >= min_frames:
            return before, after
    raise InvalidInput(
        f"{gap} frames with {context} frames of context on each side cannot be made {step}k+1 frames; use another "
        "context_frame_count",
        field="context_frame_count",
    )


def inpainted_ranges(path: str, start: int, end: int, total: int) -> tuple[ClipRange, ClipRange]:
    """The video as two clips that meet in the middle of the gap."""
    middle = start + (end - start) // 2
    return (
        ClipRange(path=path, start=0, stop=middle, num_frames=total),
        ClipRange(path=path, start=middle, stop=total, num_frames=total),
    )
