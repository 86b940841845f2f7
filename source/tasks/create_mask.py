"""create_mask: what clicks and boxes select, as a mask of an image or followed through a video.

The steps import the media libraries themselves: add_task only needs the declarations, and should start at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import AliasChoices, Field, model_validator

from headless.generation import ModelInfo
from headless.options import GenerationOptions, ImageRef, VideoRef
from source.errors import EngineError, InvalidInput, Unsupported
from source.params.base import TaskParams
from source.task_registry import Done, TaskContext, task
from source.trail import Category
from Wan2GP.mask_prompts import FIELD, MISSING

if TYPE_CHECKING:
    from Wan2GP.media import Frame, VideoInfo

DEFAULT_MODEL = "sam2_hiera_large"
#: low enough that black stays black and white stays white, pixel by pixel
CRF = 4

#: knobs that follow from the video or image
_FOLLOWING = frozenset(
    [
        "resolution",
        "parsed_resolution_wh",
        "video_length",
        "num_frames",
        "force_fps",
        "image_mode",
        "video_guide",
        "image_guide",
        "video_prompt_type",
    ]
)


class CreateMaskParams(TaskParams):
    """What is masked, and by which clicks and boxes."""

    not_knobs: ClassVar[frozenset[str]] = _FOLLOWING
    knob_names: ClassVar[Mapping[str, str]] = {"prompts": "mask_prompts", "feather": "mask_feather"}

    video: VideoRef | None = Field(
        None,
        description="the video",
        validation_alias=AliasChoices("video", "input_video_path", "video_path", "video_url"),
    )
    image: ImageRef | None = Field(
        None,
        description="an image, instead of a video",
        validation_alias=AliasChoices("image", "input_image_path", "image_path", "image_url"),
    )
    input_video_task_id: str | None = Field(None, description="a finished task whose output is the video or image")
    invert: bool = Field(False, description="select the rest instead")

    @model_validator(mode="after")
    def _one_picture(self) -> Self:
        given = [name for name in ("video", "image", "input_video_task_id") if getattr(self, name)]
        if len(given) > 1:
            raise InvalidInput(f"{' and '.join(given)} are given; give one of them", field=given[1])
        if not given:
            raise InvalidInput("is missing; give a video, an image, or input_video_task_id", field="video")
        return self


@task("create_mask", output="an MP4 video, or a PNG of an image: white is selected", default_model=DEFAULT_MODEL)
def create_mask(params: CreateMaskParams, context: TaskContext) -> Done:
    """A mask of what clicks and boxes select: white in a black video of the same frames, or in an image."""
    model = _mask_model(params, context)
    source, still = _source(params, context)
    return _mask_of_image(source, model, params, context) if still else _mask_of_video(source, model, params, context)


def _mask_model(params: CreateMaskParams, context: TaskContext) -> ModelInfo:
    """Raises UnknownModel, ModelUnavailable, and Unsupported for one that makes no masks."""
    from Wan2GP.architectures import ARCHITECTURES

    assert params.model is not None
    model = context.model(params.model)
    architecture = ARCHITECTURES.get(model.architecture)
    if architecture is None or not architecture.mask_of:
        raise Unsupported(
            f"{model.name} makes no masks; name a mask model, such as {DEFAULT_MODEL}", field="model_name"
        )
    if architecture.mask_of == "prompts" and not params.options.mask_prompts:
        raise InvalidInput(MISSING, field=FIELD)
    return model


def _source(params: CreateMaskParams, context: TaskContext) -> tuple[Path, bool]:
    """The picture, and whether it is a still."""
    from source.media.images import is_still

    if params.image:
        return context.fetch(params.image, kind="image", field="image"), True
    if params.video:
        return context.fetch(params.video, kind="video", field="video"), False
    assert params.input_video_task_id is not None
    field = "input_video_task_id"
    found = context.output_of(params.input_video_task_id, field=field)
    still = is_still(found)
    return context.fetch(str(found), kind="image" if still else "video", field=field), still


def _knobs(params: CreateMaskParams, size: tuple[int, int]) -> GenerationOptions:
    letters = "VN" if params.invert else "V"
    return params.options.replace(resolution=f"{size[0]}x{size[1]}", video_prompt_type=letters)


def _mask_of_image(source: Path, model: ModelInfo, params: CreateMaskParams, context: TaskContext) -> Done:
    from Wan2GP.media import probe_image, read_image

    info = probe_image(source)
    options = _knobs(params, (info.width, info.height)).replace(image_mode=1, image_guide=str(source))
    result = context.generate(model.name, options)
    seen = Seen()
    seen.count(read_image(result.output))
    return Done(result.output, _told(model, (info.width, info.height), 1, seen, context))


def _mask_of_video(source: Path, model: ModelInfo, params: CreateMaskParams, context: TaskContext) -> Done:
    """H.264 takes even sides alone: an odd one loses its last column or row of pixels."""
    from source.media.poster import poster
    from Wan2GP.media import probe_video

    info = probe_video(source)
    size = (info.width // 2 * 2, info.height // 2 * 2)
    options = _knobs(params, size).replace(video_guide=str(source), video_length=info.num_frames, force_fps="control")
    made = context.generate(model.name, options, lossless=True).output
    seen = Seen()
    output = _encoded(made, context.scratch / "mask.mp4", info, seen, context)
    picture = poster(output, context.scratch / "mask.jpg")
    return Done(output, _told(model, size, info.num_frames, seen, context), picture)


@dataclass
class Seen:
    """How much of the pictures is selected."""

    _shares: list[float] = field(default_factory=list)

    def count(self, frame: Frame) -> None:
        self._shares.append(float(frame[..., 0].mean()) / 255)

    @property
    def share(self) -> float:
        """0 (nothing) to 1 (everything), over all frames."""
        return sum(self._shares) / max(1, len(self._shares))


def _encoded(made: Path, output: Path, info: VideoInfo, seen: Seen, context: TaskContext) -> Path:
    """The masks as an mp4 at the video's own rate. Raises EngineError for another number of frames."""
    from Wan2GP.media import read_frames, write_video

    def frames() -> Iterator[Frame]:
        for number, frame in enumerate(read_frames(made), start=1):
            seen.count(frame)
            yield frame
            context.report("saving", number, info.num_frames)

    written = write_video(output, frames(), fps=info.fps, crf=CRF)
    if not context.trail.frames(
        Category.FRAME, "frames of the mask", expected=info.num_frames, actual=written.num_frames
    ):
        raise EngineError(f"the engine returned {written.num_frames} masks instead of {info.num_frames}")
    return output


def _told(
    model: ModelInfo, size: tuple[int, int], num_frames: int, seen: Seen, context: TaskContext
) -> dict[str, str | int | float]:
    if not seen.share:
        context.trail.warn(Category.WGP, "the mask selects nothing: it is black throughout")
    return {
        "model": model.name,
        "width": size[0],
        "height": size[1],
        "num_frames": num_frames,
        "selected": round(seen.share, 4),
    }
