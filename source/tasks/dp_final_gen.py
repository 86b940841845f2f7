"""dp_final_gen: the video from a picture to another perspective, of which the last frame is the result."""

from __future__ import annotations

from source.errors import EngineError
from source.params.perspective import DEFAULT_MODEL, FinalGenParams
from source.task_registry import Done, TaskContext, task
from source.trail import Category


@task(
    "dp_final_gen",
    output="a PNG image: the last frame; the whole video stands beside it",
    default_model=DEFAULT_MODEL,
)
def dp_final_gen(params: FinalGenParams, context: TaskContext) -> Done:
    """Lead a picture to another perspective by pose or depth, created by different_perspective_orchestrator."""
    from source.perspective import PerspectiveVideo
    from Wan2GP.media import probe_video, read_frame, read_frames, write_image, write_video

    context.report("preparing")
    video = PerspectiveVideo.resolve(params, context)
    result = context.generate(video.model.name, video.options(context), lossless=True)
    made = probe_video(result.output)
    if not context.trail.frames(Category.WGP, "frames to it", expected=video.num_frames, actual=made.num_frames):
        raise EngineError(f"the engine returned {made.num_frames} frames instead of {video.num_frames}")
    context.report("encoding")
    picture = write_image(context.scratch / "perspective.png", read_frame(result.output, -1))
    whole = write_video(context.scratch / "perspective.mp4", read_frames(result.output), fps=made.fps).path
    data = {"num_frames": made.num_frames, "fps": float(made.fps), "perspective_type": params.perspective_type}
    notes = {"notes": list(result.notes)} if result.notes else {}
    return Done(picture, data | notes, extra=(whole,))
