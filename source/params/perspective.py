"""Parameters of a picture in a different perspective: of the orchestrator, and of the last of its children."""

from __future__ import annotations

from typing import ClassVar, Literal, Self, TypeAlias

from pydantic import AliasChoices, Field, field_validator, model_validator

from headless.options import ImageRef
from source.params.generating import GenerateParams
from source.planning.easing import easing

Perspective: TypeAlias = Literal["pose", "depth"]

#: control models by perspective
MODELS: dict[Perspective, str] = {"pose": "pose_joints", "depth": "depth_anything_v2_vitl"}
DEFAULT_MODEL = "vace_14B_cocktail_2_2"
#: knobs that follow from the pictures and the number of frames
_FOLLOWING = frozenset(
    [
        "video_length", "num_frames", "force_fps", "image_mode", "batch_size", "repeat_generation", "video_guide",
        "video_mask", "video_prompt_type", "image_prompt_type", "image_refs", "image_refs_paths", "image_start",
        "image_end", "image", "image_url", "image_guide", "image_mask", "video_source",
    ]
)  # fmt: skip


class PerspectiveSettings(GenerateParams):
    """What both share."""

    not_knobs: ClassVar[frozenset[str]] = _FOLLOWING
    needed_knobs: ClassVar[tuple[str, ...]] = ("prompt", "resolution")

    perspective_type: Perspective = Field(
        "pose", description="what leads from one picture to the other: the pose of the people, or the depth"
    )
    input_image_path: ImageRef = Field(
        ...,
        description="the picture: path or URL",
        validation_alias=AliasChoices("input_image_path", "input_image", "image", "image_url"),
    )
    output_video_frames: int = Field(
        16, ge=2, le=20_000, description="frames from one picture to the other; the model's next length"
    )
    fps_helpers: float = Field(16, ge=1, le=240, description="frames per second of the video")
    use_mask_for_first_frame: bool = Field(True, description="the video begins with the picture itself")
    easing: str = Field(
        "linear", description="how the pose moves: linear, ease_in, ease_out, ease_in_out, or in_out_cubic and the like"
    )

    @field_validator("easing")
    @classmethod
    def _is_known(cls, value: str) -> str:
        easing(value)
        return value

    @model_validator(mode="after")
    def _fits_the_perspective(self) -> Self:
        if self.options.size is None:
            raise ValueError('resolution is missing; give the size as "WIDTHxHEIGHT"')
        if self.perspective_type == "depth" and self.easing != "linear":
            raise ValueError("easing is for poses; depth maps are interpolated evenly, so leave it out")
        return self


class PerspectiveParams(PerspectiveSettings):
    """A picture, and the words for what is seen from elsewhere."""

    image_model_name: str | None = Field(
        None,
        description="draws the picture from the other perspective, from text alone (default: the model itself where it "
        "can, else t2v_2_2)",
    )
    debug_mode: bool = Field(False, description="keep intermediate files")
    skip_cleanup: bool = Field(False, description="the same")


class PoseParams(PerspectiveParams):
    """The same, by pose."""

    perspective_type: Literal["pose"] = Field("pose", description="the pose of the people leads to the other picture")


class FinalGenParams(PerspectiveSettings):
    """The pictures between which the video runs, each by the task that made it or by its path."""

    target_image_path: ImageRef | None = Field(None, description="pose: the picture in the other perspective")
    target_image_task_id: str | None = Field(None, description="pose: the task that made it")
    start_depth_path: ImageRef | None = Field(None, description="depth: the depth of the picture")
    start_depth_task_id: str | None = Field(None, description="depth: the task that made it")
    end_depth_path: ImageRef | None = Field(None, description="depth: the depth in the other perspective")
    end_depth_task_id: str | None = Field(None, description="depth: the task that made it")

    @model_validator(mode="after")
    def _names_its_pictures(self) -> Self:
        for name in ("target_image",) if self.perspective_type == "pose" else ("start_depth", "end_depth"):
            path, task = f"{name}_path", f"{name}_task_id"
            if bool(getattr(self, path)) == bool(getattr(self, task)):
                raise ValueError(f"a perspective of {self.perspective_type} needs one of {path} and {task}")
        return self
