"""Control pictures as tasks: a picture or a video becomes its poses, depth, edges, outlines or motion.

Each type is a model of the queue, and one line of a table here. A picture gives a PNG of its size, a video an MP4 of
its frames and rate.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import AliasChoices, Field, model_validator

from headless.options import GenerationOptions, ImageRef, VideoRef
from source.params.base import TaskParams
from source.task_registry import Done, TaskContext, task

#: knobs that follow from what is drawn
_FOLLOWING = frozenset(["video_guide", "image_guide", "video_prompt_type", "image_mode", "batch_size"])


class MotionParams(TaskParams):
    """The video that is drawn: a file, or the output of another task."""

    not_knobs: ClassVar[frozenset[str]] = _FOLLOWING
    #: what of the following is needed, for people
    sources: ClassVar[tuple[str, ...]] = ("input_video_path", "input_video_task_id")

    input_video_path: VideoRef | None = Field(
        None,
        description="the video: path or URL",
        validation_alias=AliasChoices("input_video_path", "input_video", "video"),
    )
    input_video_task_id: str | None = Field(None, description="the task whose output is the video; it must be finished")

    @model_validator(mode="after")
    def _names_one_source(self) -> Self:
        given = [name for name in self.sources if getattr(self, name)]
        if not given:
            raise ValueError(f"{self.sources[0]} is missing; give one of {', '.join(self.sources)}")
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} both say what is drawn; give one of them")
        return self


class ControlParams(MotionParams):
    """The picture or the video that is drawn: a file, or the output of another task."""

    sources: ClassVar[tuple[str, ...]] = ("input_image_path", "input_image_task_id", *MotionParams.sources)

    input_image_path: ImageRef | None = Field(
        None,
        description="the picture: path or URL",
        validation_alias=AliasChoices("input_image_path", "input_image", "image", "image_url"),
    )
    input_image_task_id: str | None = Field(
        None, description="the task whose output is the picture; it must be finished"
    )


@dataclass(frozen=True)
class Drawing:
    """One line of the table."""

    model: str
    #: what the output is called
    noun: str
    help: str


_OPENPOSE = Drawing("pose", "openpose", "Draw the people in a picture or video as skeletons in OpenPose's colours.")

#: task type -> what it draws
DRAWINGS = {
    "generate_openpose": _OPENPOSE,
    "openpose": _OPENPOSE,
    "generate_depth": Drawing(
        "depth_anything_v2_vitl", "depth", "Draw the depth of a picture or video: near is bright (Depth Anything V2)."
    ),
    "generate_canny": Drawing("canny", "canny", "Draw the edges of a picture or video, thin and white (Canny)."),
    "generate_scribble": Drawing(
        "scribble", "scribble", "Draw the outlines of a picture or video with a broad pen, by contrasts."
    ),
}
FLOW = Drawing("flow", "flow", "Draw the motion in a video on the colour wheel.")


def _draw(params: MotionParams, context: TaskContext, noun: str) -> Done:
    assert params.model is not None, "every type has a default"
    model = context.model(params.model)
    source, is_video = _source(params, context)
    knobs = _of_video(source) if is_video else _of_picture(source)
    options = GenerationOptions.parse(knobs | params.options.to_engine())
    result = context.generate(model.name, options)
    output = Path(shutil.move(result.output, context.scratch / f"{noun}{result.output.suffix}"))
    return Done(output, {"model": result.model, **_measured(output)})


def _source(params: MotionParams, context: TaskContext) -> tuple[Path, bool]:
    """What is drawn as a local file, and whether it is a video."""
    name = next(name for name in params.sources if getattr(params, name))
    kind = "video" if "video" in name else "image"
    reference: str = getattr(params, name)
    if name.endswith("_task_id"):
        reference = str(context.output_of(reference, field=name))
    return context.fetch(reference, kind=kind, field=name), kind == "video"


def _of_picture(path: Path) -> dict[str, Any]:
    from Wan2GP.media import probe_image

    info = probe_image(path)
    return {"image_mode": 1, "image_guide": str(path), "resolution": f"{info.width}x{info.height}"}


def _of_video(path: Path) -> dict[str, Any]:
    from Wan2GP.media import probe_video

    info = probe_video(path)
    return {
        "video_guide": str(path),
        "video_length": info.num_frames,
        "force_fps": "control",
        "resolution": f"{info.width}x{info.height}",
    }


def _measured(path: Path) -> dict[str, Any]:
    from Wan2GP.media import probe_image, probe_video

    if path.suffix == ".png":
        picture = probe_image(path)
        return {"width": picture.width, "height": picture.height}
    video = probe_video(path)
    return {"width": video.width, "height": video.height, "num_frames": video.num_frames, "fps": float(video.fps)}


def _register(name: str, drawing: Drawing) -> None:
    def run(params: ControlParams, context: TaskContext) -> Done:
        return _draw(params, context, drawing.noun)

    output = "a PNG image of a picture, an MP4 video of a video"
    task(name, output=output, default_model=drawing.model, help=drawing.help)(run)


for _name, _drawing in DRAWINGS.items():
    _register(_name, _drawing)


@task("generate_flow", output="an MP4 video", default_model=FLOW.model, help=FLOW.help)
def generate_flow(params: MotionParams, context: TaskContext) -> Done:
    """Draw the motion in a video; frame k shows how it came from the frame before it."""
    return _draw(params, context, FLOW.noun)
