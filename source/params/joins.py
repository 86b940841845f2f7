"""Parameters of the tasks that put videos together: joins by generated transitions, edits, inpainting."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, AliasChoices, Field, NonNegativeInt, PositiveInt, model_validator

from headless.options import AudioRef, VideoRef
from source.params.base import LEVELS, Part, TaskParams
from source.params.generating import GeneratingParams

DEFAULT_MODEL = "wan_2_2_vace_lightning_baseline_2_2_2"
DEFAULT_FPS = 16.0
#: frames a second by which a video may differ from the rate asked for and still keep its frames one for one
FPS_TOLERANCE = 0.5
#: the same in an edit, whose portions are counted in frames
EDIT_FPS_TOLERANCE = 0.01
#: rates no further apart are one rate, rounded for writing it down, frames a second
SAME_FPS = 0.005
#: frames of context that are held in memory on each side
MAX_CONTEXT = 81

#: written by front ends and servers for themselves; without meaning to these tasks
_CARRIED = frozenset(
    [
        "max_wait_time",
        "join_output_dir",
        "output_base_dir",
        "current_run_base_output_dir",
        "main_output_dir_for_run",
        "vlm_device",
        "num_joins",
        "debug",
        "debug_mode_enabled",
        "skip_cleanup_enabled",
    ]
)
#: what the orchestrators alone read; their children carry it
_OF_PROJECTS = frozenset(
    [
        "clip_list",
        "loop_first_clip",
        "per_join_settings",
        "source_video_url",
        "portions_to_regenerate",
        "source_video_fps",
        "source_video_total_frames",
    ]
)
#: the lengths of generations are planned
_PLANNED = frozenset({"video_length", "num_frames"})


def _proportion(value: str) -> str:
    match = re.fullmatch(r"\s*(\d{1,5})\s*:\s*(\d{1,5})\s*", value)
    if not match or not int(match[1]) or not int(match[2]):
        raise ValueError(f'{value!r} is no aspect ratio; write "WIDTH:HEIGHT", for example "16:9"')
    return f"{int(match[1])}:{int(match[2])}"


AspectRatio = Annotated[str, AfterValidator(_proportion)]


def as_fraction(aspect: str) -> Fraction:
    """Width / height of an `AspectRatio`."""
    width, height = aspect.split(":")
    return Fraction(int(width), int(height))


class ClipRange(Part):
    """The frames start..stop-1 of a video as the whole project sees it: at the common rate."""

    path: VideoRef | None = Field(None, description="path or URL of the video")
    task_id: str | None = Field(None, description="or the task whose output it is")
    start: NonNegativeInt = Field(0, description="first frame")
    stop: PositiveInt = Field(..., description="frame after the last one")
    num_frames: PositiveInt = Field(..., description="frames of the whole video, to notice one that was exchanged")

    @model_validator(mode="after")
    def _frames_of_one_video(self) -> Self:
        if (self.path is None) == (self.task_id is None):
            raise ValueError("give the path of the video, or the task_id whose output it is")
        if not self.start < self.stop <= self.num_frames:
            raise ValueError(f"{self.start} to {self.stop} are no frames of a video that has {self.num_frames}")
        return self

    @property
    def length(self) -> int:
        return self.stop - self.start


class JoinPlan(Part):
    """The frame numbers of one transition: context of the clip before, new frames, context of the clip after."""

    context_before: PositiveInt = Field(..., description="frames shown of the clip before")
    gap: PositiveInt = Field(..., description="frames to generate")
    context_after: PositiveInt = Field(..., description="frames shown of the clip after")
    replaced_before: NonNegativeInt = Field(0, description="frames that the gap replaces at the end of the clip before")
    replaced_after: NonNegativeInt = Field(0, description="frames that the gap replaces at the start of the clip after")
    sound_before: NonNegativeInt = Field(0, description="frames of the gap that the sound of the clip before runs on")
    sound_after: NonNegativeInt = Field(0, description="frames of the gap in which the sound of the clip after begins")

    @property
    def length(self) -> int:
        """Frames of the generation."""
        return self.context_before + self.gap + self.context_after


class Harmonised(TaskParams):
    """What all clips of a project have in common."""

    aspect_ratio: AspectRatio | None = Field(None, description='"W:H"; clips are cropped to it around their centre')
    fps: float | None = Field(None, gt=0, le=240, description="frames per second of the result (default 16)")
    exact_fps: str | None = Field(
        None, pattern=r"^[1-9]\d{0,8}/[1-9]\d{0,8}$", description="the same as a fraction, as planned"
    )
    fps_tolerance: float = Field(
        FPS_TOLERANCE, ge=0, le=5, description="a clip whose rate differs by no more keeps its frames one for one"
    )
    use_input_video_resolution: bool = Field(False, description="the first clip's size, whatever `resolution` says")
    use_input_video_fps: bool = Field(False, description="the first clip's frame rate, whatever `fps` says")


class JoinParams(Harmonised, GeneratingParams):
    """How clips are joined. `resolution` is the result's size; without one it is the first clip's."""

    carried: ClassVar[frozenset[str]] = _CARRIED
    not_knobs: ClassVar[frozenset[str]] = _PLANNED

    context_frame_count: int = Field(8, ge=1, le=MAX_CONTEXT, description="frames shown of the clip on each side")
    gap_frame_count: PositiveInt = Field(53, description="frames to generate; up to 3 fewer, so that all is 4k+1")
    replace_mode: bool = Field(False, description="the gap replaces frames at the boundary (else it is inserted)")
    keep_bridging_images: bool = Field(False, description="show the frames at the boundary within the gap as well")
    regenerate_anchors: bool = Field(False, description="generate the 3 frames of context next to the gap anew")
    enhance_prompt: bool = Field(False, description="have a vision-language model write the prompt of each join")
    enhance_prompt_model: str = Field("qwen2_5_vl_7b", description="the model that writes the prompts")
    audio_url: AudioRef | None = Field(None, description="sound of the result, instead of the clips' own")

    @property
    def init_strength(self) -> float | None:
        """Share of noise with which a replacing transition begins from what it replaces; None from noise alone."""
        strength = self.options.vid2vid_init_strength
        return strength if self.replace_mode and strength is not None and strength < 1 else None


class JoinSegmentParams(JoinParams):
    """One transition. Without `join` it stands alone: it is planned and spliced by the task itself."""

    carried: ClassVar[frozenset[str]] = _CARRIED | _OF_PROJECTS

    starting_video_path: VideoRef | None = Field(None, description="clip A (default: the join it depends on)")
    ending_video_path: VideoRef | None = Field(None, description="clip B")
    join_index: int = Field(0, ge=0, description="which join of the project this is")
    is_first_join: bool = Field(False, description="nothing is joined before")
    is_last_join: bool = Field(False, description="nothing is joined after; audio_url belongs to this one")
    join: JoinPlan | None = Field(None, description="frame numbers, planned by an orchestrator")
    before: ClipRange | None = Field(None, description="clip A, as planned")
    after: ClipRange | None = Field(None, description="clip B, as planned")


class ListedClip(Part):
    """A clip of a project."""

    url: VideoRef = Field(..., description="path or URL", validation_alias=AliasChoices("url", "path"))
    name: str | None = Field(None, description="for people")


class ProjectParams(JoinParams):
    """What the orchestrators share."""

    own_levels: ClassVar[frozenset[str | None]] = frozenset(LEVELS)

    per_join_settings: list[dict[str, Any]] = Field([], description="for each join in order: settings that differ")


class JoinClipsParams(ProjectParams):
    """Clips that are joined in order."""

    clip_list: list[ListedClip] = Field(..., description="the clips: url and name of each")
    loop_first_clip: bool = Field(False, description="join the first clip to itself played backwards")

    @model_validator(mode="after")
    def _enough_clips(self) -> Self:
        needed = 1 if self.loop_first_clip else 2
        if len(self.clip_list) < needed:
            raise ValueError(f"clip_list has {len(self.clip_list)} clips; give at least {needed}")
        return self


class Portion(Part):
    """Frames of a video that are generated anew."""

    start_frame: NonNegativeInt = Field(..., description="first frame")
    end_frame: NonNegativeInt = Field(..., description="last frame, itself included")
    prompt: str | None = Field(None, description="prompt of this portion")
    gap_frame_count: PositiveInt | None = Field(
        None, description="frames to generate", validation_alias=AliasChoices("gap_frame_count", "frame_count")
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.end_frame < self.start_frame:
            raise ValueError(f"end_frame {self.end_frame} lies before start_frame {self.start_frame}")
        return self

    @property
    def settings(self) -> dict[str, Any]:
        """What it says about its join."""
        given = {"prompt": self.prompt, "gap_frame_count": self.gap_frame_count}
        return {name: value for name, value in given.items() if value is not None}


class EditVideoParams(ProjectParams):
    """One video, portions of which are generated anew. `replace_mode` keeps the portions' first and last frames."""

    source_video_url: VideoRef = Field(..., description="the video")
    portions_to_regenerate: list[Portion] = Field(..., min_length=1, description="start_frame and end_frame of each")
    source_video_fps: float | None = Field(
        None, gt=0, le=240, description="rate at which the portions were counted; the result has it (default: fps)"
    )
    source_video_total_frames: PositiveInt | None = Field(None, description="frames of the video, as counted before")


_OF_JOINS = _OF_PROJECTS | (frozenset(JoinSegmentParams.model_fields) - {"model", "options"})


class FinalStitchParams(Harmonised):
    """The splice of clips and their transitions."""

    carried: ClassVar[frozenset[str]] = _CARRIED | _OF_JOINS

    clips: list[ClipRange] = Field(..., min_length=1, description="the clips in order, as planned")
    joins: list[JoinPlan] = Field([], description="the frame numbers of the transitions between them, as planned")
    total_frames: PositiveInt | None = Field(None, description="frames of the result, as planned")
    audio_url: AudioRef | None = Field(None, description="sound of the result, instead of the clips' own")

    @model_validator(mode="after")
    def _one_join_between_two_clips(self) -> Self:
        if len(self.joins) != len(self.clips) - 1:
            raise ValueError(f"{len(self.clips)} clips need one join fewer, but {len(self.joins)} are given")
        return self


class ReverseParams(Harmonised):
    """A clip to be played backwards."""

    carried: ClassVar[frozenset[str]] = _CARRIED | _OF_JOINS

    clip: ClipRange = Field(..., description="the clip, as planned")


class InpaintParams(GeneratingParams):
    """Frames within a video that are generated anew, exactly as many."""

    carried: ClassVar[frozenset[str]] = _CARRIED
    not_knobs: ClassVar[frozenset[str]] = _PLANNED

    video_path: VideoRef = Field(..., description="the video: path or URL")
    inpaint_start_frame: NonNegativeInt = Field(..., description="first frame that is generated anew")
    inpaint_end_frame: PositiveInt = Field(..., description="frame after the last one that is generated anew")
    context_frame_count: int = Field(
        8, ge=1, le=MAX_CONTEXT, description="frames shown on each side; up to 3 more or fewer, so that all is 4k+1"
    )
    fps: float | None = Field(None, gt=0, le=240, description="frames per second of a patch (default: the video's)")
    patch_only: bool = Field(False, description="give context, new frames and context alone, not the whole video")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.inpaint_end_frame <= self.inpaint_start_frame:
            raise ValueError(
                f"inpaint_end_frame {self.inpaint_end_frame} must be larger than inpaint_start_frame "
                f"{self.inpaint_start_frame}; the end is not included"
            )
        return self
