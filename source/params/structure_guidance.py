"""Structure guidance: videos whose motion, edges or depth a travel follows. One typed value for every way to write it.

The unified form is an object `structure_guidance`; older rows spread the same over `structure_*` and `uni3c_*` names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AliasChoices, Field, PrivateAttr, StringConstraints, model_validator

from headless.options import Fraction01, Media, parse_model
from source.errors import InvalidInput, Unsupported
from source.params.base import OFF, Part, TaskParams, flatten_params

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


#: every older name that `StructureGuidanceConfig.from_params` reads, or that goes with one that it reads
OLDER_NAMES = frozenset(LEGACY) | {
    "structure_type",
    "structure_video_type",
    "structure_videos",
    "structure_video_path",
    "structure_video_treatment",
    "structure_video_motion_strength",
    "use_uni3c",
    "uni3c_strength",
    "uni3c_start_percent",
    "uni3c_end_percent",
    "uni3c_blackout_last_frame",
}
#: names of its type that an entry of the older list may carry
_ENTRY_TYPES = ("structure_type", "type")
#: fields that the unified form writes with a leading underscore
_INTERNAL = ("guidance_video_url", "frame_offset", "original_video_url", "trimmed_video_url")
_WHOLE = (0.0, 1.0)


class StructureVideo(Part):
    """One video and where it lies. Positions are frames; the ends are exclusive, None is to the end."""

    path: VideoPath = Field(..., description="the video: path or URL")
    start_frame: FrameIndex = Field(0, description="first frame of the result that it guides")
    end_frame: FrameIndex | None = Field(None, description="where its guidance ends, exclusive (default: the end)")
    treatment: Literal["adjust", "clip"] = Field(
        "adjust", description="adjust stretches the video to the range; clip plays it at its own speed, again and again"
    )
    source_start_frame: FrameIndex = Field(0, description="first frame of the video that is used")
    source_end_frame: FrameIndex | None = Field(None, description="where its use ends, exclusive (default: the end)")

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        if self.end_frame is not None and self.end_frame <= self.start_frame:
            raise ValueError("end_frame must be larger than start_frame")
        if self.source_end_frame is not None and self.source_end_frame <= self.source_start_frame:
            raise ValueError("source_end_frame must be larger than source_start_frame")
        return self


class StructureGuidanceConfig(Part):
    """What guides the structure of a video, and how strongly. Frames are those of the whole, stitched result."""

    videos: list[StructureVideo] = Field([], description="the videos; their ranges must not overlap")
    target: Literal["vace", "uni3c"] = Field("vace", description="what is guided; uni3c is refused by this version")
    preprocessing: Literal["flow", "canny", "depth", "none"] = Field(
        "flow", description="what is taken from the videos: motion, edges, depth, or the frames as they are"
    )
    strength: Strength = Field(1.0, description="magnitude of the flow is multiplied by it")
    canny_intensity: Strength = Field(1.0, description="pixels of the edges are multiplied by it")
    depth_contrast: Strength = Field(1.0, description="contrast of the depth around mid-grey")
    step_window: tuple[Fraction01, Fraction01] = Field(
        _WHOLE, description="share of the steps that are guided; this version guides all of them"
    )
    frame_policy: Literal["fit", "trim", "loop", "off"] = Field("fit", description="of Uni3C alone")
    zero_empty_frames: bool = Field(True, description="of Uni3C alone")
    keep_on_gpu: bool = Field(False, description="of Uni3C alone")
    guidance_video_url: VideoPath | None = Field(
        None,
        description="a guidance video that was made before; it is used as it is",
        validation_alias=AliasChoices("_guidance_video_url"),
    )
    frame_offset: FrameIndex = Field(
        0, description="its frame where this segment begins", validation_alias=AliasChoices("_frame_offset")
    )
    original_video_url: str | None = Field(
        None, description="kept for front ends", validation_alias=AliasChoices("_original_video_url")
    )
    trimmed_video_url: str | None = Field(
        None, description="kept for front ends", validation_alias=AliasChoices("_trimmed_video_url")
    )

    #: field -> the older name that gave it
    _written: dict[str, str] = PrivateAttr(default_factory=dict)

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
        older = {field: name for field, name in written.items() if not {field, f"_{field}"} & set(given)}
        made = parse_model(cls, {field: legacy[field] for field in legacy if field in older} | given, older)
        made._written = older
        return made

    def to_row(self, **changes: Any) -> dict[str, Any]:
        """The unified form of a row; `changes` are fields: frame_offset=17."""
        # A window by its older names says nothing of this target (see `check`), and would as a unified one.
        left_out = {"step_window"} & set(self._written)
        values = self.model_copy(update=changes).model_dump(mode="json", exclude_none=True, exclude=left_out)
        return {f"_{name}" if name in _INTERNAL else name: value for name, value in values.items()}

    def name_of(self, field: str) -> str:
        """The name under which a row gave `field`, for messages."""
        return self._written.get(field, f"structure_guidance.{field}")

    def name_of_video(self, index: int) -> str:
        """The name of the path of one of `videos`."""
        name = self.name_of("videos")
        return name if name == "structure_video_path" else f"{name}[{index}].path"

    def check(self) -> None:
        """Raises Unsupported for guidance that would not act as it was asked to."""
        asked = self.enabled or self.name_of("target") == "use_uni3c"
        if self.target == "uni3c" and asked:
            raise Unsupported(
                "Uni3C guidance is not supported: its control network has neither weights nor a reference that could "
                "be tested here. Use a VACE model with target vace, where the same video guides by its flow, edges, "
                "depth, or as it is (preprocessing none)",
                field=self.name_of("target"),
            )
        # The older names of a window belong to Uni3C: front ends write them beside every other kind of guidance.
        if self.enabled and self.step_window != _WHOLE and "step_window" not in self._written:
            raise Unsupported(
                f"a control video guides all steps in this version, not a part of them ({self.step_window[0]:g} to "
                f"{self.step_window[1]:g}); use [0, 1]",
                field="structure_guidance.step_window",
            )

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
        values["videos"], written["videos"] = _without_types(videos), name
    kind, name = _legacy_type(flat, videos)
    if kind:
        values["target"], values["preprocessing"] = TYPES[kind]
        written["target"] = written["preprocessing"] = name
    strength = "uni3c_strength" if values.get("target") == "uni3c" else "structure_video_motion_strength"
    if flat.get(strength) is not None:
        values["strength"], written["strength"] = flat[strength], strength
    window = [flat.get("uni3c_start_percent"), flat.get("uni3c_end_percent")]
    if window != [None, None]:
        defaults = zip(window, _WHOLE, strict=True)
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


def _without_types(videos: Any) -> Any:
    """The entries without the type that each of the older list may carry: it has become that of all."""
    if not isinstance(videos, list):
        return videos
    return [
        {name: value for name, value in each.items() if name not in _ENTRY_TYPES} if isinstance(each, Mapping) else each
        for each in videos
    ]


def _legacy_type(flat: Mapping[str, Any], videos: Any) -> tuple[str, str]:
    """The older type ("" for none) and the name that gave it. Raises InvalidInput for an unknown one, or several."""
    if flat.get("use_uni3c") not in OFF:
        return "uni3c", "use_uni3c"
    entries = [each for each in videos if isinstance(each, Mapping)] if isinstance(videos, list) else []
    found, name = [each.get("structure_type") or each.get("type") for each in entries], "structure_videos"
    if not any(found):
        name = "structure_type" if flat.get("structure_type") else "structure_video_type"
        found = [flat.get(name)]
    kinds = list(dict.fromkeys(str(kind) for kind in found if kind))
    if not kinds:
        return "", name
    if len(kinds) > 1:
        raise InvalidInput(f"videos of different types ({', '.join(kinds)}); use one type", field="structure_videos")
    if kinds[0] not in TYPES:
        raise InvalidInput(f"{kinds[0]!r:.40} is none of {', '.join(TYPES)}", field=name)
    return kinds[0], name
