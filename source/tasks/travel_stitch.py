"""travel_stitch: join the segments of a travel to one video.

The steps import the media libraries themselves: add_task only needs the declarations, and should start at once.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from source.errors import InvalidInput, InvalidMedia
from source.params.travel import StitchParams
from source.planning.frames import FramePlan, plan_frames
from source.task_registry import Dependency, Done, TaskContext, task

log = logging.getLogger(__name__)


@task("travel_stitch", uses_gpu=False)
def travel_stitch(params: StitchParams, context: TaskContext) -> Done:
    """Join the segments of a travel, created by travel_orchestrator."""
    from source.media.analysis import debug_video_analysis
    from source.media.stitch import stitch

    plan = plan_frames(params.segment_frames_expanded, params.frame_overlap_settings_expanded, chained=params.chained)
    clips = ordered_segments(context.dependencies(), params.num_total_segments_generated)
    check_lengths(clips, plan)
    output = context.scratch / "travel_final.mp4"
    report = stitch(
        clips,
        plan.overlaps,
        output,
        mode="linear_sharp" if params.crossfade_sharp_amt else "ease",
        sharp_amount=params.crossfade_sharp_amt or 0.0,
        progress=lambda done, total: context.report("stitching", done, total),
    )
    made = debug_video_analysis(output).num_frames
    if made != plan.total_frames:
        raise InvalidMedia(f"the stitched video has {made} frames instead of {plan.total_frames}")
    log.info("stitched %d segments to %d frames (%s)", len(clips), made, report.method)
    return Done(output, {"num_frames": made, "anchors": list(plan.anchors), "method": report.method})


def ordered_segments(segments: Sequence[Dependency], expected: int) -> list[Path]:
    """One clip for each index 0 … expected-1; of several for one index the newest. Raises InvalidInput for gaps."""
    newest: dict[int, Dependency] = {}
    for segment in sorted(segments, key=lambda each: each.task.created_at):
        newest[int(segment.task.params.get("segment_index", -1))] = segment
    missing = sorted(set(range(expected)) - set(newest))
    if missing or len(newest) != expected:
        raise InvalidInput(
            f"{expected} segments are to be joined, but the indices found are {sorted(newest)}"
            + (f" (missing: {', '.join(map(str, missing))})" if missing else ""),
            field="num_total_segments_generated",
        )
    return [newest[index].output for index in range(expected)]


def check_lengths(clips: Sequence[Path], plan: FramePlan) -> None:
    """Raises InvalidMedia when a segment is not as long as the plan says."""
    from Wan2GP.media import probe_video

    for segment, clip in zip(plan.segments, clips, strict=True):
        found = probe_video(clip).num_frames
        if found != segment.output:
            raise InvalidMedia(f"segment {segment.index} ({clip.name}) has {found} frames instead of {segment.output}")
