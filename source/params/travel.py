"""Parameters of the travel tasks: a video that travels between images, segment by segment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AliasChoices, BeforeValidator, Field, NonNegativeInt, PositiveInt, model_validator

from headless.options import ImageRef
from source.params.base import LEVELS, TaskParams
from source.params.generating import GeneratingParams

#: written by front ends for the worker's bookkeeping or for features of theirs; without meaning to these tasks
_CARRIED = frozenset(
    [
        "is_last_segment",
        "frame_overlap_with_next",
        "fps_final_video",
        "main_output_dir_for_run",
        "original_common_args",
        "current_run_base_output_dir",
        "vlm_device",
        "debug_mode_enabled",
        "skip_cleanup_enabled",
        "steps",
        "final_stitched_output_path",
        "poll_interval_from_orchestrator",
        "poll_timeout_from_orchestrator",
        "seed_for_upscale",
    ]
)


#: when a row names none
DEFAULT_SEED = 12345


def _without_nulls(value: Any) -> Any:
    return ["" if item is None else item for item in value] if isinstance(value, list) else value


#: a text for each segment; an empty or null one stands for the travel's own
Texts = Annotated[list[str], BeforeValidator(_without_nulls, json_schema_input_type=list[str | None])]


class TravelMode(TaskParams):
    """What orchestrator, segments and stitch must agree on."""

    carried: ClassVar[frozenset[str]] = _CARRIED
    #: in a travel `steps` is the front end's timeline value, never denoising steps
    not_knobs: ClassVar[frozenset[str]] = frozenset({"steps"})

    model_type: Literal["vace", "i2v"] = Field("vace", description="vace: guide and mask videos; i2v: start, end image")
    chain_segments: bool | None = Field(None, description="segments continue from the previous one (default true)")
    independent_segments: bool | None = Field(None, description="older inverse of chain_segments")
    fps_helpers: int = Field(16, ge=1, le=120, description="frames per second of guides and result")
    input_image_paths_resolved: list[ImageRef] = Field([], description="the images to travel between")

    @property
    def chained(self) -> bool:
        """Only VACE segments continue from their predecessor; i2v segments stand alone."""
        if self.model_type != "vace":
            return False
        if self.chain_segments is not None:
            return self.chain_segments
        return not self.independent_segments


class TravelParams(TravelMode, GeneratingParams):
    """A whole travel. The lists hold one entry a segment."""

    own_levels: ClassVar[frozenset[str | None]] = frozenset(LEVELS)
    #: lengths are planned per segment
    not_knobs: ClassVar[frozenset[str]] = TravelMode.not_knobs | {"video_length", "num_frames"}

    num_new_segments_to_generate: int | None = Field(None, description="segments to create")
    segment_frames_expanded: list[PositiveInt] = Field(..., description="frames per segment, 4k+1")
    frame_overlap_expanded: NonNegativeInt | list[NonNegativeInt] = Field(
        ..., description="frames shared by neighbouring segments; one number serves every join"
    )
    base_prompts_expanded: Texts = Field([], description="prompt per segment")
    negative_prompts_expanded: Texts = Field([], description="negative prompt per segment")
    enhanced_prompts_expanded: Texts = Field([], description="prompts that win over base_prompts_expanded")
    base_prompt: str = Field(
        "", description="prompt where a segment has none", validation_alias=AliasChoices("base_prompt", "prompt")
    )
    negative_prompt: str = Field("", description="negative prompt where a segment has none")
    text_before_prompts: str = Field("", description="put before every prompt")
    text_after_prompts: str = Field("", description="put after every prompt")
    seed_base: int = Field(
        DEFAULT_SEED,
        ge=-1,
        le=2**32 - 1,
        description="segment i uses seed_base + i; -1 draws random ones",
        validation_alias=AliasChoices("seed_base", "seed"),
    )
    stitch: bool | None = Field(None, description="join the segments to one video (default: only when chained)")
    crossfade_sharp_amt: float | None = Field(None, ge=0, le=2, description="sharpen the cross-fades by this amount")
    subsequent_starting_strength_adjustment: float = Field(0, ge=-1, le=1, description="fade continued frames to grey")
    desaturate_subsequent_starting_frames: float = Field(0, ge=0, le=1, description="take colour from continued frames")
    adjust_brightness_subsequent_starting_frames: float = Field(
        0, ge=-1, le=1, description="brighten (> 0) or darken continued frames"
    )

    @property
    def stitched(self) -> bool:
        return self.chained if self.stitch is None else self.stitch

    @property
    def num_segments(self) -> int:
        if self.num_new_segments_to_generate is None:
            return len(self.segment_frames_expanded)
        return self.num_new_segments_to_generate

    @model_validator(mode="after")
    def _lists_fit(self) -> Self:
        count = self.num_segments
        if count <= 0:
            return self
        if len(self.segment_frames_expanded) != count:
            raise ValueError(
                f"segment_frames_expanded has {len(self.segment_frames_expanded)} entries for {count} segments; "
                "give one length a segment"
            )
        images = len(self.input_image_paths_resolved)
        if images < count + 1 and not images == count == 1:
            raise ValueError(
                f"input_image_paths_resolved has {images} images; {count} segments need {count + 1} "
                "(a single image makes a single segment)"
            )
        if self.options.resolution is None:
            raise ValueError('parsed_resolution_wh is missing; give the size as "WIDTHxHEIGHT"')
        if not self.model:
            raise ValueError("model_name is missing; name the model that generates the segments")
        return self


class SegmentParams(TravelMode, GeneratingParams):
    """One segment. In an `individual_travel_segment` everything is inline."""

    knob_names: ClassVar[Mapping[str, str]] = {
        "segment_frames_target": "video_length",
        "seed_to_use": "seed",
        "base_prompt": "prompt",
    }
    carried: ClassVar[frozenset[str]] = _CARRIED | frozenset(
        name for name in TravelParams.model_fields if name not in TravelMode.model_fields
    )

    segment_index: int = Field(0, ge=0, description="which segment of the travel this is")
    is_first_segment: bool | None = Field(None, description="nothing to continue from (default: segment_index is 0)")
    frame_overlap_from_previous: int = Field(0, ge=0, description="frames shared with the predecessor")
    start_image_url: ImageRef | None = Field(None, description="first frame")
    end_image_url: ImageRef | None = Field(None, description="last frame")
    segment_frames_expanded: list[int] = Field([], description="lengths of the travel's segments")
    subsequent_starting_strength_adjustment: float = Field(0, ge=-1, le=1, description="fade continued frames to grey")
    desaturate_subsequent_starting_frames: float = Field(0, ge=0, le=1, description="take colour from continued frames")
    adjust_brightness_subsequent_starting_frames: float = Field(
        0, ge=-1, le=1, description="brighten (> 0) or darken continued frames"
    )

    @property
    def continues(self) -> bool:
        """Whether a predecessor's last frames come before its own."""
        first = self.segment_index == 0 if self.is_first_segment is None else self.is_first_segment
        return self.chained and not first

    @property
    def start_image(self) -> str | None:
        return self.start_image_url or self._image(0)

    @property
    def end_image(self) -> str | None:
        return self.end_image_url or self._image(1)

    def _image(self, offset: int) -> str | None:
        """The segment's own pair, or its place in the travel's list of images."""
        images = self.input_image_paths_resolved
        first = 0 if len(images) <= 2 else self.segment_index
        return images[first + offset] if first + offset < len(images) else None


class StitchParams(TravelMode):
    """The join of a travel's segments."""

    carried: ClassVar[frozenset[str]] = SegmentParams.carried | frozenset(SegmentParams.model_fields)

    num_total_segments_generated: int = Field(..., ge=1, description="segments to join")
    segment_frames_expanded: list[int] = Field(..., description="frames per segment")
    frame_overlap_settings_expanded: int | list[int] = Field(
        [],
        description="frames shared by neighbouring segments",
        validation_alias=AliasChoices("frame_overlap_settings_expanded", "frame_overlap_expanded"),
    )
    crossfade_sharp_amt: float | None = Field(None, ge=0, le=2, description="sharpen the cross-fades by this amount")
