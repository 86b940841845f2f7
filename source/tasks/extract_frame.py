"""extract_frame: one frame of a video as a picture.

The steps import the media libraries themselves: add_task only needs the declarations, and should start at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import AliasChoices, Field, model_validator

from headless.options import GenerationOptions, VideoRef, aliases
from source.errors import InvalidInput
from source.params.base import TaskParams
from source.task_registry import Done, TaskContext, task

if TYPE_CHECKING:
    from Wan2GP.media import Frame


class ExtractFrameParams(TaskParams):
    """A video, by the task that made it or by its path, and one of its frames."""

    not_knobs: ClassVar[frozenset[str]] = frozenset(aliases(GenerationOptions))

    input_video_task_id: str | None = Field(None, description="the task whose output is the video; it must be finished")
    input_video_path: VideoRef | None = Field(
        None,
        description="the video: path or URL",
        validation_alias=AliasChoices("input_video_path", "input_video", "video"),
    )
    frame_index: int = Field(0, description="number of the frame from 0; negative counts from the end")

    @model_validator(mode="after")
    def _names_one_video(self) -> Self:
        if bool(self.input_video_task_id) == bool(self.input_video_path):
            raise ValueError("give one of input_video_task_id and input_video_path")
        return self


@task("extract_frame", output="a PNG image, as large as the video", uses_gpu=False)
def extract_frame(params: ExtractFrameParams, context: TaskContext) -> Done:
    """Save one frame of a video as a PNG: of a file, or of what another task made."""
    from Wan2GP.media import write_image

    field = "input_video_task_id" if params.input_video_task_id else "input_video_path"
    if params.input_video_task_id:
        video = context.output_of(params.input_video_task_id, field=field)
    else:
        video = context.fetch(params.input_video_path or "", kind="video", field=field)
    frame, index = _frame(video, params.frame_index, field)
    output = write_image(context.scratch / f"frame_{index:05d}.png", frame)
    return Done(output, {"frame_index": index, "width": frame.shape[1], "height": frame.shape[0]})


def _frame(path: Path, index: int, field: str) -> tuple[Frame, int]:
    """A frame, and its number from the beginning. A picture is a video of one frame."""
    from source.media.images import is_still
    from Wan2GP.media import check_video, read_frame, read_image

    picture = is_still(path)
    try:
        num_frames = 1 if picture else check_video(path).num_frames
    except InvalidInput as error:
        raise type(error)(str(error), field=field) from None
    if not -num_frames <= index < num_frames:
        raise InvalidInput(
            f"{index} does not exist: the video has {num_frames} frames, 0 to {num_frames - 1}", field="frame_index"
        )
    return read_image(path) if picture else read_frame(path, index), index % num_frames
