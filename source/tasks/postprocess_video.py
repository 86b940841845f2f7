"""postprocess_video: what can be done to a generated video while it is made, done to a finished one.

The steps import the media libraries themselves: add_task only needs the declarations, and should start at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import AliasChoices, Field, model_validator

from headless.options import GenerationOptions, VideoRef, aliases
from source.errors import EngineError, InvalidInput
from source.params.base import TaskParams
from source.task_registry import Done, TaskContext, task
from source.trail import Category
from Wan2GP.post_processing import SETTINGS, PostProcessing

if TYPE_CHECKING:
    from source.media.clips import Clip


class PostprocessParams(TaskParams):
    """A video, and what is done to it."""

    not_knobs: ClassVar[frozenset[str]] = frozenset(aliases(GenerationOptions)) - {*SETTINGS, "seed"}

    input_video_path: VideoRef | None = Field(
        None,
        description="the video: path or URL (default: the output of the task this one depends on)",
        validation_alias=AliasChoices("input_video_path", "input_video", "video", "video_source", "video_source_path"),
    )
    input_video_task_id: str | None = Field(None, description="the task whose output is the video; it must be finished")

    @model_validator(mode="after")
    def _asks_for_something(self) -> Self:
        if self.input_video_path and self.input_video_task_id:
            raise ValueError("input_video_path and input_video_task_id both name the video; give one of them")
        if PostProcessing.of(self.options.to_engine()).changes_nothing:
            names = ", ".join(SETTINGS[:-1])
            raise ValueError(f"nothing is to be done to the video; give at least one of {names}")
        return self


@task("postprocess_video", output="an MP4 video of the same duration and sound", default_model="rife")
def postprocess_video(params: PostprocessParams, context: TaskContext) -> Done:
    """Frames between the frames, larger pictures and film grain for a finished video; its sound and duration stay."""
    from source.media.clips import Clip
    from source.media.poster import poster
    from source.media.soundtrack import lay_sound
    from Wan2GP.media import probe_video

    assert params.model is not None
    context.report("preparing")
    video = _video(params, context)
    clip = Clip.open(video, fps=probe_video(video).fps)
    result = context.generate(params.model, _asked(params, clip, context))
    made = probe_video(result.output)
    expected = PostProcessing.of(params.options.to_engine()).num_frames(clip.num_frames)
    if not context.trail.frames(Category.WGP, "post-processed", expected=expected, actual=made.num_frames):
        raise EngineError(f"the engine returned {made.num_frames} frames instead of {expected}")
    sound = clip.sound(0, clip.num_frames, 0)
    output = context.scratch / "postprocessed.mp4"
    output = lay_sound(result.output, [sound], output) if sound else result.output.rename(output)
    notes = {"notes": list(result.notes)} if result.notes else {}
    size = {"num_frames": made.num_frames, "fps": float(made.fps), "width": made.width, "height": made.height}
    return Done(output, size | notes, poster(output, context.scratch / "postprocessed.jpg"))


def _video(params: PostprocessParams, context: TaskContext) -> Path:
    field = "input_video_task_id" if params.input_video_task_id else "input_video_path"
    if params.input_video_task_id:
        return context.fetch(str(context.output_of(params.input_video_task_id, field=field)), kind="video", field=field)
    if params.input_video_path:
        return context.fetch(params.input_video_path, kind="video", field=field)
    before = context.dependencies()
    if not before:
        raise InvalidInput("is missing, and the task depends on no other; name a video", field=field)
    return context.fetch(str(before[-1].output), kind="video", field="dependant_on")


def _asked(params: PostprocessParams, clip: Clip, context: TaskContext) -> GenerationOptions:
    """The model draws every frame of the video as it is; what is done to them is done on the way into the file."""
    width, height = clip.size
    return params.options.replace(
        video_guide=str(_even(clip, context)),
        video_prompt_type="V",
        video_length=clip.num_frames,
        resolution=f"{width}x{height}",
        force_fps="control",
    )


def _even(clip: Clip, context: TaskContext) -> Path:
    """The file itself, or where its frames are not evenly spaced, a lossless one that shows them by time."""
    from Wan2GP.media import write_video

    if not clip.by_time:
        return clip.path
    context.trail.note(Category.FRAME, "frames are not evenly spaced; shown by time", frames=clip.num_frames)
    return write_video(context.scratch / "even.mkv", clip.frames(), fps=clip.fps, codec="ffv1").path
