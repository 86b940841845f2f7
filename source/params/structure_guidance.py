"""Structure guidance: videos whose motion, edges or depth a travel follows. One typed value for every way to write it.

The unified form is an object `structure_guidance`; older rows spread the same over `structure_*` and `uni3c_*` names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AliasChoices, Field, StringConstraints, model_validator

from headless.options import Fraction01, Media, parse_model
from source.errors import InvalidInput
from source.params.base import Part, TaskParams, flatten_params

VideoPath = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1), Media("video")]
FrameIndex = Annotated[int, Field(ge=0, le=1_000_000)]
Strength = Annotated[float, Field(ge=0, le=10)]

#: older name, strongest first -> field. The strengths are read apart: which one counts depends on the target.
LEGACY = {
    "structure_canny_intensity": "canny_intensity",
    "structure_depth_contrast": "depth_contrast",
    "uni3c_frame_policy": "frame_policy",
    "uni3c_zero_empty_frames": "zero_empty_frames",
    "uni3c_keep_on_gpu": "keep_on_gpu",
    "structure_guidance_video_url": "guidance_video_url",
    "structure_motion_video_url": "guidance_video_url",
    "uni3c_guide_video": "guidance_video_url",
    "structure_guidance_frame_offset": "frame_offset",
    "structure_motion_frame_offset": "frame_offset",
    "uni3c_guidance_frame_offset": "frame_offset",
}
#: older type -> (target, preprocessing)
TYPES = {
    "flow": ("vace", "flow"),
    "canny": ("vace", "canny"),
    "depth": ("vace", "depth"),
    "raw": ("vace", "none"),
    "uni3c": ("uni3c", "none"),
}


class StructureVideo(Part):
    """One video and where it lies. Positions are frames; the ends are exclusive, None is to the end."""

    path: VideoPath
    start_frame: FrameIndex = 0
    end_frame: FrameIndex | None = None
    #: adjust stretches the source to the range, clip plays it at its own speed
    treatment: Literal["adjust", "clip"] = "adjust"
    source_start_frame: FrameIndex = 0
    source_end_frame: FrameIndex | None = None

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        if self.end_frame is not None and self.end_frame <= self.start_frame:
            raise ValueError("end_frame must be larger than start_frame")
        if self.source_end_frame is not None and self.source_end_frame <= self.source_start_frame:
            raise ValueError("source_end_frame must be larger than source_start_frame")
        return self


class StructureGuidanceConfig(Part):
    """What guides the structure of a video, and how strongly."""

    videos: list[StructureVideo] = Field([])
    target: Literal["vace", "uni3c"] = "vace"
    preprocessing: Literal["flow", "canny", "depth", "none"] = "flow"
    #: magnitude of the flow, or strength of Uni3C
    strength: Strength = 1.0
    #: multiplies the pixels of the edges
    canny_intensity: Strength = 1.0
    #: contrast around mid-grey
    depth_contrast: Strength = 1.0
    #: share of the steps in which Uni3C acts
    step_window: tuple[Fraction01, Fraction01] = (0.0, 1.0)
    frame_policy: Literal["fit", "trim", "loop", "off"] = "fit"
    zero_empty_frames: bool = True
    keep_on_gpu: bool = False
    #: a guidance video that was made before, and the frame of it where this segment begins
    guidance_video_url: VideoPath | None = Field(None, validation_alias=AliasChoices("_guidance_video_url"))
    frame_offset: FrameIndex = Field(0, validation_alias=AliasChoices("_frame_offset"))
    original_video_url: str | None = Field(None, validation_alias=AliasChoices("_original_video_url"))
    trimmed_video_url: str | None = Field(None, validation_alias=AliasChoices("_trimmed_video_url"))

    @model_validator(mode="after")
    def _window(self) -> Self:
        if self.step_window[0] > self.step_window[1]:
            raise ValueError("step_window ends before it begins")
        return self

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> Self:
        """From a row in either form; what the unified one gives wins. Raises InvalidInput that names the field."""
        flat = flatten_params(params, TaskParams)
        unified = flat.get("structure_guidance") or {}
        if not isinstance(unified, Mapping):
            raise InvalidInput(f"must be a JSON object (given: {unified!r:.80})", field="structure_guidance")
        legacy, written = _legacy(flat)
        given = {name: value for name, value in unified.items() if value not in (None, "", [])}
        return parse_model(cls, legacy | given, {field: name for field, name in written.items() if field not in given})

    @property
    def enabled(self) -> bool:
        """Whether anything guides."""
        return bool(self.videos or self.guidance_video_url)


def _legacy(flat: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """(field -> value, field -> the older name that gave it)."""
    values: dict[str, Any] = {}
    written: dict[str, str] = {}
    for name, field in LEGACY.items():
        if field not in values and flat.get(name) not in (None, ""):
            values[field], written[field] = flat[name], name
    videos, name = _legacy_videos(flat)
    if videos:
        values["videos"], written["videos"] = videos, name
    values |= _legacy_type(flat, videos)
    strength = "uni3c_strength" if values.get("target") == "uni3c" else "structure_video_motion_strength"
    if flat.get(strength) is not None:
        values["strength"], written["strength"] = flat[strength], strength
    window = [flat.get("uni3c_start_percent"), flat.get("uni3c_end_percent")]
    if window != [None, None]:
        defaults = zip(window, (0.0, 1.0), strict=True)
        values["step_window"] = [default if end is None else end for end, default in defaults]
        written["step_window"] = "uni3c_start_percent, uni3c_end_percent"
    return values, written


def _legacy_videos(flat: Mapping[str, Any]) -> tuple[Any, str]:
    """The list of videos, or the only one, and the name that gave it."""
    if flat.get("structure_videos"):
        return flat["structure_videos"], "structure_videos"
    if flat.get("structure_video_path"):
        treatment = flat.get("structure_video_treatment")
        return [{"path": flat["structure_video_path"], "treatment": treatment}], "structure_video_path"
    return [], ""


def _legacy_type(flat: Mapping[str, Any], videos: Any) -> dict[str, str]:
    """Target and preprocessing of the older type names. Raises InvalidInput for an unknown one, or for several."""
    entries = [each for each in videos if isinstance(each, Mapping)] if isinstance(videos, list) else []
    found = [each.get("structure_type") or each.get("type") for each in entries]
    found += [flat.get("structure_type") or flat.get("structure_video_type")] if not any(found) else []
    if flat.get("use_uni3c"):
        found = ["uni3c"]
    kinds = list(dict.fromkeys(str(kind) for kind in found if kind))
    if not kinds:
        return {}
    if len(kinds) > 1:
        raise InvalidInput(f"videos of different types ({', '.join(kinds)}); use one type", field="structure_videos")
    if kinds[0] not in TYPES:
        raise InvalidInput(f"{kinds[0]!r:.40} is none of {', '.join(TYPES)}", field="structure_type")
    return dict(zip(("target", "preprocessing"), TYPES[kinds[0]], strict=True))
