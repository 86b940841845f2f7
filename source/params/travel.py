"""Parameters of the travel tasks: a video that travels between images, segment by segment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AliasChoices, BeforeValidator, Field, NonNegativeInt, PrivateAttr, model_validator

from headless.options import AudioRef, ImageRef, VideoRef
from source.params.base import LEVELS, Given, TaskParams
from source.params.generating import GeneratingParams, ScaledLoRA
from source.params.phase import PhaseConfig
from source.params.structure_guidance import OLDER_NAMES, StructureGuidanceConfig
from source.params.vace import ReferenceImage

#: written by front ends for the worker's bookkeeping or for features of theirs; without meaning to these tasks
_CARRIED = OLDER_NAMES | {
    "is_last_segment", "frame_overlap_with_next", "fps_final_video", "main_output_dir_for_run", "original_common_args",
    "current_run_base_output_dir", "vlm_device", "debug_mode_enabled", "skip_cleanup_enabled", "steps",
    "final_stitched_output_path", "poll_interval_from_orchestrator", "poll_timeout_from_orchestrator",
    "seed_for_upscale",
}  # fmt: skip

#: in a segment's row, the levels that speak of its travel; and the strongest, which speaks of it alone
OF_TRAVEL = ("full_orchestrator_payload", "orchestrator_details")
INDIVIDUAL = LEVELS.index("individual_segment_params")
#: when a row names none
DEFAULT_SEED = 12345
LAST_SEED = 2**32 - 1


def _without_nulls(value: Any) -> Any:
    return ["" if item is None else item for item in value] if isinstance(value, list) else value


def _as_list(value: Any) -> Any:
    """LoRA -> multiplier, as a list of path and scale."""
    return [{"path": path, "scale": scale} for path, scale in value.items()] if isinstance(value, dict) else value


#: a text for each segment; an empty or null one stands for the travel's own
Texts = Annotated[list[str], BeforeValidator(_without_nulls, json_schema_input_type=list[str | None])]
Seed = Annotated[int, Field(ge=-1, le=LAST_SEED)]
#: at most what the engine's `video_length` takes
Length = Annotated[int, Field(gt=0, le=20_000)]
#: LoRAs of one segment: a list of path and scale, or an object of LoRA -> multiplier
SegmentLoRAs = Annotated[
    list[ScaledLoRA], BeforeValidator(_as_list, json_schema_input_type=list[ScaledLoRA] | dict[str, float | str])
]


class TravelMode(TaskParams):
    """What orchestrator, segments and stitch must agree on."""

    carried: ClassVar[frozenset[str]] = _CARRIED
    #: in a travel `steps` is the front end's timeline value, never denoising steps
    not_knobs: ClassVar[frozenset[str]] = frozenset({"steps"})

    model_type: Literal["vace", "i2v"] = Field("vace", description="vace: guide and mask videos; i2v: start, end image")
    chain_segments: bool | None = Field(None, description="segments continue from the previous one (default true)")
    independent_segments: bool | None = Field(None, description="older inverse of chain_segments")
    use_svi: bool = Field(
        False, description="chain image-to-video segments by the predecessor's last frames (Stable Video Infinity)"
    )
    fps_helpers: int = Field(16, ge=1, le=120, description="frames per second of guides and result")
    input_image_paths_resolved: list[ImageRef] = Field([], description="the images to travel between")
    continue_from_video_resolved_path: VideoRef | None = Field(
        None, description="video that the travel goes on from: it begins the result, and images[0] ends segment 0"
    )
    structure_guidance: StructureGuidanceConfig | None = Field(
        None, description="videos whose motion, edges or depth the travel follows (model_type vace)"
    )
    show_input_images: bool = Field(False, description="a banner of start and end image above each segment")

    _guidance: StructureGuidanceConfig = PrivateAttr(default_factory=StructureGuidanceConfig)

    @property
    def guidance(self) -> StructureGuidanceConfig:
        """Structure guidance as the row says it, in the unified form or by older names."""
        return self._guidance

    def check(self) -> None:
        """Raises Unsupported for guidance that would not act as it is asked to."""
        self.guidance.check()

    def of_row(self, raw: Mapping[str, Any]) -> Self:
        """A copy that knows the row's structure guidance. Raises InvalidInput that names the field."""
        made = self.model_copy()
        made._guidance = StructureGuidanceConfig.from_params(raw)
        return made

    @property
    def mode(self) -> Literal["vace", "i2v", "svi"]:
        return "svi" if self.use_svi else self.model_type

    @property
    def chained(self) -> bool:
        """VACE and SVI segments continue from their predecessor; i2v segments stand alone."""
        if self.mode != "vace":
            return self.mode == "svi"
        if self.chain_segments is not None:
            return self.chain_segments
        return not self.independent_segments


class SegmentSettings(TravelMode, GeneratingParams):
    """What a travel says about each of its segments, and a segment about itself."""

    text_before_prompts: str = Field("", description="put before every prompt")
    text_after_prompts: str = Field("", description="put after every prompt")
    svi_predecessor_video_url: VideoRef | None = Field(
        None, description="use_svi: video whose last frames the (first) segment continues"
    )
    svi_strength: float | None = Field(None, ge=0, le=10, description="scales the SVI LoRAs of Wan 2.2 14B")
    svi_strength_1: float | None = Field(None, ge=0, le=10, description="scales those of the high-noise expert")
    svi_strength_2: float | None = Field(None, ge=0, le=10, description="scales those of the low-noise expert")
    vace_image_refs_to_prepare_by_worker: list[ReferenceImage] = Field(
        [], description="reference images, each for the segment that it names"
    )
    subsequent_starting_strength_adjustment: float = Field(0, ge=-1, le=1, description="fade continued frames to grey")
    desaturate_subsequent_starting_frames: float = Field(0, ge=0, le=1, description="take colour from continued frames")
    adjust_brightness_subsequent_starting_frames: float = Field(
        0, ge=-1, le=1, description="brighten (> 0) or darken continued frames"
    )
    after_first_post_generation_saturation: float | None = Field(
        None, ge=0, le=10, description="saturation of each segment that continues another; 1 changes nothing"
    )
    after_first_post_generation_brightness: float | None = Field(
        None, ge=-1, le=10, description="its brightness: each pixel times 1 + this"
    )
    colour_match_videos: bool = Field(False, description="match each segment's colours to its start and end image")


class JoinSettings(TravelMode):
    """How the segments become one video."""

    crossfade_mode: Literal["ease", "equal_power", "linear", "linear_sharp"] | None = Field(
        None, description='how shared frames mix; default "linear_sharp" with crossfade_sharp_amt, else "ease"'
    )
    crossfade_sharp_amt: float | None = Field(None, ge=0, le=2, description="sharpen the cross-fades by this amount")
    regenerate_anchors: bool = Field(
        False, description="show a segment's own frame, unmixed, at the last position that it shares"
    )
    audio_url: AudioRef | None = Field(
        None, description="sound of the result, from its beginning; default: that of the continued video"
    )


class TravelParams(SegmentSettings, JoinSettings):
    """A whole travel. The lists hold one entry a segment."""

    own_levels: ClassVar[frozenset[str | None]] = frozenset(LEVELS)
    #: lengths are planned per segment
    not_knobs: ClassVar[frozenset[str]] = TravelMode.not_knobs | {"video_length", "num_frames"}

    num_new_segments_to_generate: int | None = Field(None, description="segments to create")
    segment_frames_expanded: list[Length] = Field(..., description="frames per segment, 4k+1")
    frame_overlap_expanded: NonNegativeInt | list[NonNegativeInt] = Field(
        ..., description="frames shared by neighbouring segments; one number serves every join; with use_svi it is 4"
    )
    base_prompts_expanded: Texts = Field([], description="prompt per segment")
    negative_prompts_expanded: Texts = Field([], description="negative prompt per segment")
    enhanced_prompts_expanded: Texts = Field([], description="prompts that win over base_prompts_expanded")
    base_prompt: str = Field(
        "", description="prompt where a segment has none", validation_alias=AliasChoices("base_prompt", "prompt")
    )
    negative_prompt: str = Field("", description="negative prompt where a segment has none")
    seed_base: Seed = Field(
        DEFAULT_SEED,
        description="segment i uses seed_base + i; -1 draws random ones",
        validation_alias=AliasChoices("seed_base", "seed"),
    )
    seeds_expanded: list[Seed | None] = Field([], description="seed per segment; null: from seed_base")
    phase_configs_expanded: list[PhaseConfig | None] = Field(
        [], description="phase_config per segment; null: the travel's"
    )
    loras_per_segment_expanded: list[SegmentLoRAs | None] = Field(
        [],
        description="LoRAs of each segment, beside the travel's; they win over its lists, not over a phase_config",
    )
    enhance_prompt: bool = Field(False, description="have a vision-language model write each segment's prompt")
    enhance_prompt_model: str = Field("qwen2_5_vl_7b", description="the model that does")
    consolidate_segments: bool = Field(
        False, description="chained VACE: neighbours that ask for the same share one generation of at most 81 frames"
    )
    stitch: bool | None = Field(None, description="join the segments to one video (default: only when chained)")
    upscale_factor: float = Field(
        0, ge=0, le=8, description="above 1: enlarge the stitched video by it, in its own task"
    )
    upscale_model_name: str | None = Field(None, description="what upscales")

    @property
    def stitched(self) -> bool:
        return self.chained if self.stitch is None else self.stitch

    @property
    def upscaled(self) -> bool:
        return self.upscale_factor > 1 and bool(self.upscale_model_name)

    @property
    def num_segments(self) -> int:
        if self.num_new_segments_to_generate is None:
            return len(self.segment_frames_expanded)
        return self.num_new_segments_to_generate

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        count = self.num_segments
        if count <= 0:
            return self
        if len(self.segment_frames_expanded) != count:
            raise ValueError(
                f"segment_frames_expanded has {len(self.segment_frames_expanded)} entries for {count} segments; "
                "give one length a segment"
            )
        self._check_images(count)
        if self.options.resolution is None:
            raise ValueError('parsed_resolution_wh is missing; give the size as "WIDTHxHEIGHT"')
        if not self.model:
            raise ValueError("model_name is missing; name the model that generates the segments")
        if self.consolidate_segments and not (self.mode == "vace" and self.chained):
            raise ValueError("consolidate_segments works for chained travels of model_type vace alone; leave it out")
        if self.upscaled and not self.stitched:
            raise ValueError("upscale_factor needs a stitched video; set stitch, or leave it out")
        return self

    def _check_images(self, count: int) -> None:
        images = len(self.input_image_paths_resolved)
        if self.continue_from_video_resolved_path:
            needed, hint = count, "the continued video stands for the first image"
        else:
            needed, hint = count + 1, "a single image makes a single segment"
        if images < needed and not images == count == 1:
            raise ValueError(f"input_image_paths_resolved has {images} images; {count} segments need {needed} ({hint})")


def _own_images(raw: Mapping[str, Any], standalone: bool) -> list[str]:
    """Images given for the segment itself: by its individual parameters, or as a pair in the row's own level."""
    individual = raw.get("individual_segment_params")
    for level, whole in ((individual, True), (raw, standalone)):
        images = level.get("input_image_paths_resolved") if isinstance(level, Mapping) else None
        if isinstance(images, list) and images and (whole or len(images) == 2):
            return images
    return []


class SegmentParams(SegmentSettings):
    """One segment of a travel."""

    knob_names: ClassVar[Mapping[str, str]] = {
        "segment_frames_target": "video_length",
        "seed_to_use": "seed",
        "base_prompt": "prompt",
    }
    carried: ClassVar[frozenset[str]] = _CARRIED | frozenset(
        name for name in TravelParams.model_fields if name not in TravelMode.model_fields
    )
    #: whether everything is said in the row itself
    standalone: ClassVar[bool] = False

    segment_index: int = Field(0, ge=0, description="which segment of the travel this is")
    is_first_segment: bool | None = Field(None, description="nothing to continue from (default: segment_index is 0)")
    frame_overlap_from_previous: int = Field(0, ge=0, description="frames shared with the predecessor")
    frame_overlap_with_next: int = Field(0, ge=0, description="frames shared with the following segment")
    start_image_url: ImageRef | None = Field(None, description="first frame")
    end_image_url: ImageRef | None = Field(None, description="last frame")
    segment_frames_expanded: list[int] = Field([], description="lengths of the travel's segments")
    frame_overlap_expanded: NonNegativeInt | list[NonNegativeInt] = Field(0, description="frames that they share")
    continue_from_video_resolved_path_for_guide: VideoRef | None = Field(
        None, description="the video that this first segment continues"
    )
    consolidated_end_anchor_idx: int | None = Field(
        None, ge=0, description="index of the image that ends this generation of several segments"
    )
    consolidated_keyframe_positions: list[NonNegativeInt] = Field(
        [], description="frames of this generation that show the images up to that one"
    )
    total_frames: int | None = Field(None, ge=1, description="frames of the whole travel")

    _own_images: tuple[str, ...] = PrivateAttr(())
    _guided_by_travel: bool = PrivateAttr(False)
    _given: Mapping[str, Given] = PrivateAttr(default_factory=dict)

    def resolved(self, given: Mapping[str, Given]) -> Self:
        """A copy that also knows by which names, and how strongly, the row says what it says."""
        made = super().resolved(given).model_copy()
        made._given = given
        return made

    def of_row(self, raw: Mapping[str, Any]) -> Self:
        """A copy that also knows which images and which guidance were given for this very segment."""
        made = super().of_row(raw)
        made._own_images = tuple(_own_images(raw, self.standalone))
        own = {name: value for name, value in raw.items() if name not in OF_TRAVEL}
        made._guided_by_travel = not StructureGuidanceConfig.from_params(own).enabled
        return made

    @property
    def guided_by_travel(self) -> bool:
        """Whether its guidance is that of the whole travel, and says nothing of where the segment begins."""
        return self._guided_by_travel

    def name_of(self, field: str) -> str:
        """The name under which the row gives a field, for messages."""
        return self._given[field].name if field in self._given else field

    def name_of_image(self, image: str) -> str:
        """The same for one of its pictures."""
        urls = {self.end_image_url: "end_image_url", self.start_image_url: "start_image_url"}
        images = self._own_images or self.input_image_paths_resolved
        return urls.get(image) or f"input_image_paths_resolved[{images.index(image)}]"

    @property
    def has_own_prompt(self) -> bool:
        """Whether its individual parameters say a prompt: that wins over all others."""
        given = self._given.get("prompt")
        return given is not None and given.level == INDIVIDUAL and bool(str(given.value).strip())

    @property
    def continued_video(self) -> str | None:
        """The video that this first segment continues."""
        own_start = self._own_images or self.start_image_url
        return None if self.segment_index or own_start else self._video_of_travel

    @property
    def _video_of_travel(self) -> str | None:
        return self.continue_from_video_resolved_path_for_guide or self.continue_from_video_resolved_path

    @property
    def continues(self) -> bool:
        """Whether another video's last frames come before its own."""
        if not self.chained or (self.standalone and self.mode == "vace" and not self.continued_video):
            return False
        if self.continued_video or (self.mode == "svi" and self.svi_predecessor_video_url):
            return True
        return not (self.segment_index == 0 if self.is_first_segment is None else self.is_first_segment)

    @property
    def start_image(self) -> str | None:
        """The picture of its first frame: its own, else that of its place in the travel."""
        if self.start_image_url:
            return self.start_image_url
        if self._own_images:
            return self._own_images[0]
        return self._image(self._first_image)

    @property
    def end_images(self) -> tuple[str | None, ...]:
        """The pictures that it passes and ends with: one, unless it stands for several segments."""
        positions, last = self.consolidated_keyframe_positions, self.consolidated_end_anchor_idx
        if last is None or not positions:
            return (self.end_image,)
        before = range(last - len(positions) + 1, last)
        return (*(self._image(index) for index in before), self.end_image_url or self._image(last))

    @property
    def end_image(self) -> str | None:
        if self.end_image_url:
            return self.end_image_url
        if self._own_images:
            return self._own_images[1] if len(self._own_images) > 1 else None
        if self.consolidated_end_anchor_idx is not None:
            return self._image(self.consolidated_end_anchor_idx)
        found = self._image(self._first_image + 1)
        images = self.input_image_paths_resolved
        return images[-1] if found is None and images and self.mode == "svi" and self.continues else found

    @property
    def _first_image(self) -> int:
        """Index of its start image in the travel's list, which begins one later where a video is continued."""
        if self.consolidated_end_anchor_idx is not None and self.consolidated_keyframe_positions:
            return self.consolidated_end_anchor_idx - len(self.consolidated_keyframe_positions)
        return self.segment_index - 1 if self._video_of_travel else self.segment_index

    def _image(self, index: int) -> str | None:
        images = self.input_image_paths_resolved
        return images[index] if 0 <= index < len(images) else None


class IndividualSegmentParams(SegmentParams):
    """One segment on its own: everything is inline."""

    standalone: ClassVar[bool] = True


class StitchParams(JoinSettings):
    """The join of a travel's segments."""

    carried: ClassVar[frozenset[str]] = SegmentParams.carried | frozenset(SegmentParams.model_fields)

    num_total_segments_generated: int = Field(..., ge=1, description="segments to join")
    segment_frames_expanded: list[int] = Field(..., description="frames per segment")
    frame_overlap_settings_expanded: int | list[int] = Field(
        [], description="frames shared by neighbouring segments",
        validation_alias=AliasChoices("frame_overlap_settings_expanded", "frame_overlap_expanded"),
    )  # fmt: skip
    generation_starts: list[NonNegativeInt] = Field([], description="segments that begin a generation (default: each)")
    continued_frames: int = Field(0, ge=0, description="frames of the video before the first segment")
    initial_continued_video_path: VideoRef | None = Field(None, description="that video, which begins the result")
