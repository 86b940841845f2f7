"""rife_interpolate_images: a video from one picture to another, of any number of frames."""

from __future__ import annotations

from typing import ClassVar

from pydantic import AliasChoices, Field

from headless.options import GenerationOptions, ImageRef, aliases
from source.errors import EngineError
from source.params.base import TaskParams
from source.task_registry import Done, TaskContext, task
from source.trail import Category
from Wan2GP.post_processing import SETTINGS, PostProcessing


class InterpolateImagesParams(TaskParams):
    """Two pictures and how many frames there are from one to the other."""

    not_knobs: ClassVar[frozenset[str]] = frozenset(aliases(GenerationOptions)) - {*SETTINGS, "resolution", "seed"}
    carried: ClassVar[frozenset[str]] = frozenset({"output_path"})

    input_image_path1: ImageRef = Field(..., description="the first frame")
    input_image_path2: ImageRef = Field(..., description="the last frame")
    frames: int = Field(
        ...,
        ge=2,
        le=20_000,
        description="frames of the video, both pictures among them",
        validation_alias=AliasChoices("frames", "num_frames", "video_length"),
    )
    fps: float = Field(16, ge=1, le=240, description="frames per second")


@task("rife_interpolate_images", output="an MP4 video", default_model="rife")
def rife_interpolate_images(params: InterpolateImagesParams, context: TaskContext) -> Done:
    """A video from one picture to another by frame interpolation (RIFE): exactly as many frames as asked for."""
    from Wan2GP.media import probe_image, probe_video

    assert params.model is not None
    first, last = (
        context.fetch(getattr(params, name), kind="image", field=name)
        for name in ("input_image_path1", "input_image_path2")
    )
    options = params.options
    if options.resolution is None:
        info = probe_image(first)
        options = options.replace(resolution=f"{info.width}x{info.height}")
    wanted = options.replace(
        image_start=str(first), image_end=str(last), video_length=params.frames, force_fps=f"{params.fps:g}"
    )
    result = context.generate(params.model, wanted)
    expected = PostProcessing.of(options.to_engine()).num_frames(params.frames)
    made = probe_video(result.output)
    if not context.trail.frames(Category.WGP, "interpolated", expected=expected, actual=made.num_frames):
        raise EngineError(f"the engine returned {made.num_frames} frames instead of {expected}")
    notes = {"notes": list(result.notes)} if result.notes else {}
    size = {"num_frames": made.num_frames, "fps": float(made.fps), "width": made.width, "height": made.height}
    return Done(result.output.rename(context.scratch / "interpolated.mp4"), size | notes)
