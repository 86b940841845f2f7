"""upscale_video: enlarge a finished video. The last child of a travel, or a task of its own.

By Lanczos it needs no GPU and waits for none; what a model redraws goes through the queue like any generation.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Self

from pydantic import AliasChoices, Field

from headless.options import VideoRef
from source.errors import InvalidInput, Outcome, verdict
from source.logs import redact
from source.params.base import LEVELS, SETTINGS_OF_UNSUPPORTED, UNSUPPORTED, Given, TaskParams
from source.task_registry import Done, TaskContext, task
from source.trail import Category
from source.upscaling import LANCZOS, Enlarging, check_upscale, upscale

log = logging.getLogger(__name__)

#: knobs that follow from the video and the factor
_FOLLOWING = frozenset(
    [
        "resolution",
        "parsed_resolution_wh",
        "video_length",
        "num_frames",
        "force_fps",
        "image_mode",
        "video_guide",
        "video_prompt_type",
    ]
)
#: outcomes in which the task is not this run's to complete
_NOT_OURS = (Outcome.CANCEL, Outcome.RELEASE, Outcome.ABANDON, Outcome.EXIT)


class UpscaleParams(TaskParams):
    """What is enlarged, how far and by what. Knobs of the engine count when a model does it."""

    #: in a travel's details `steps` is the front end's timeline value, never denoising steps
    not_knobs: ClassVar[frozenset[str]] = _FOLLOWING | {"steps"}
    carried: ClassVar[frozenset[str]] = (
        frozenset(["resolution", "parsed_resolution_wh", "fps_helpers"]) | SETTINGS_OF_UNSUPPORTED | set(UNSUPPORTED)
    )

    video_source_path: VideoRef | None = Field(
        None,
        description="the video (default: the output of the task this one depends on)",
        validation_alias=AliasChoices("video_source_path", "video"),
    )
    upscale_factor: float = Field(..., gt=1, le=8, description="width and height times this, floored to even")
    upscale_model_name: str | None = Field(
        None, description='"lanczos" (default), or a model that redraws a given video, such as t2v or a VACE model'
    )
    frames: int | None = Field(None, ge=1, description="frames the video should have; another number is reported")

    @property
    def method(self) -> str:
        return self.upscale_model_name or self.model or LANCZOS

    def resolved(self, given: Mapping[str, Given]) -> Self:
        """A copy without the knobs of the travel around it: they, and its LoRAs, are for the travel's model."""
        own = {name for name, each in given.items() if each.level >= LEVELS.index(None)}
        knobs = {name: value for name, value in self.options.to_engine().items() if name in own}
        return self.model_copy(update={"options": type(self.options).parse(knobs)})


@task("upscale_video", output="an MP4 video of the same frames, rate and sound", uses_gpu=False)
def upscale_video(params: UpscaleParams, context: TaskContext) -> Done:
    """Enlarge a video by a factor: by Lanczos, or by a model that redraws it. Frames, rate and sound are kept."""
    context.report("preparing")
    source, finished = _video(params, context)
    if not finished:
        check_upscale(context, params.method)
    asked = Enlarging(source, params.upscale_factor, params.method, params.options)
    try:
        return _enlarged(asked, params, context)
    except Exception as error:
        if not finished or _is_better_raised(error, context):
            raise
        return _as_it_was(source, params.method, error, context)


def _video(params: UpscaleParams, context: TaskContext) -> tuple[Path, bool]:
    """The video, and whether another task finished it: then it is passed on, whatever becomes of the upscaling."""
    if params.video_source_path:
        return context.fetch(params.video_source_path, kind="video", field="video_source_path"), False
    before = context.dependencies()
    if not before:
        raise InvalidInput("is missing, and the task depends on no other; name a video", field="video_source_path")
    return before[-1].output, True


def _enlarged(asked: Enlarging, params: UpscaleParams, context: TaskContext) -> Done:
    from Wan2GP.media import probe_video

    output = upscale(asked, context)
    before, after = probe_video(asked.video), probe_video(output)
    expected = params.frames or before.num_frames
    context.trail.frames(Category.FRAME, "frames of the upscaled video", expected=expected, actual=after.num_frames)
    size = {"num_frames": after.num_frames, "width": after.width, "height": after.height}
    return Done(output, {"upscaled": True, "upscale_model_name": asked.method, **size}, _poster(output, context))


def _is_better_raised(error: Exception, context: TaskContext) -> bool:
    """Whether the row is not ours to complete, or the fault may be gone at a second attempt."""
    outcome = verdict(error).outcome
    first_of_several = context.task.attempts == 0 and context.settings.max_attempts > 1
    return outcome in _NOT_OURS or (outcome is Outcome.RETRY and first_of_several)


def _as_it_was(source: Path, method: str, error: Exception, context: TaskContext) -> Done:
    """A copy: the file itself is the output of another task."""
    log.warning("upscaling failed", exc_info=error)
    reason = redact(str(error))
    context.trail.warn(Category.CRITICAL, f"upscaling with {method} failed, the video is passed on as it was: {reason}")
    output = Path(shutil.copyfile(source, context.scratch / f"as_it_was{source.suffix}"))
    data = {"upscaled": False, "upscale_model_name": method, "upscale_error": reason}
    return Done(output, data, _poster(output, context))


def _poster(video: Path, context: TaskContext) -> Path:
    from source.media.poster import poster

    return poster(video, context.scratch / f"{video.stem}.jpg")
