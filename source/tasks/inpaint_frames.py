"""inpaint_frames: a stretch of a video is generated anew, exactly as long as it was.

The steps import the media libraries themselves: add_task only needs the declarations, and should start at once.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from source.params.joins import DEFAULT_MODEL, FPS_TOLERANCE, InpaintParams, JoinPlan
from source.task_registry import Done, TaskContext, task

if TYPE_CHECKING:
    from source.joining import Footage, Harmony, Transition
    from source.media.clips import Clip


@task(
    "inpaint_frames",
    output="an MP4 video: the whole video, or with patch_only the new frames alone",
    default_model=DEFAULT_MODEL,
)
def inpaint_frames(params: InpaintParams, context: TaskContext) -> Done:
    """Generate frames within a video anew; the rest of it stays as it is, its sound too."""
    from source.joining import Footage, check_joining_model, checked_sound, splice_project
    from source.planning.edits import inpainted_ranges, plan_inpainting

    step, min_frames = check_joining_model(context, params.model, params.options)
    source = _seen(context.fetch(params.video_path, kind="video", field="video_path"))
    if not params.patch_only:
        checked_sound({"video_path": source}, None, context)
    start, end, total = params.inpaint_start_frame, params.inpaint_end_frame, source.num_frames
    plan = plan_inpainting(start, end, total, params.context_frame_count, step=step, min_frames=min_frames)
    before, after = inpainted_ranges(params.video_path, start, end, total)
    footage = [Footage(source, before), Footage(source, after)]
    harmony = _harmony(params, source)
    patch, data = _transition(params, plan, footage, harmony).make(context)
    data |= {"join": plan.model_dump(), "fps": float(harmony.fps), "resolution": list(harmony.size)}
    if params.patch_only:
        return Done(patch.rename(patch.with_name("patch.mp4")), data)
    output, said = splice_project(footage, [patch], [plan], harmony, context, output=context.scratch / "inpainted.mp4")
    return Done(output, data | said)


def _seen(file: Path) -> Clip:
    """The video at its own rate: frame by frame, or by time where its frames are not evenly spaced."""
    from source.media.clips import Clip
    from Wan2GP.media import probe_video

    return Clip.open(file, fps=probe_video(file).fps)


def _harmony(params: InpaintParams, source: Clip) -> Harmony:
    """The video's own size and rate; a patch that is asked for alone may have others."""
    from source.joining import Harmony
    from Wan2GP.media import exact_fps

    own = Harmony(source.size, source.fps, Fraction(*source.size), FPS_TOLERANCE)
    if not params.patch_only:
        return own
    width, height = params.options.size or source.size
    fps = exact_fps(params.fps) if params.fps else source.fps
    return replace(own, size=(width // 2 * 2, height // 2 * 2), fps=fps)


def _transition(params: InpaintParams, plan: JoinPlan, footage: list[Footage], harmony: Harmony) -> Transition:
    from source.joining import Transition

    options = params.options
    if options.resolution is None:
        options = options.replace(resolution=list(harmony.size))
    strength = options.vid2vid_init_strength
    return Transition(
        model=params.model or "",
        options=options,
        plan=plan,
        before=footage[0],
        after=footage[1],
        harmony=harmony,
        init_strength=strength if strength is not None and strength < 1 else None,
    )
