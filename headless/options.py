"""`GenerationOptions`: every knob of the engine, declared once.

A knob passes two hands: its declaration here (name, type, bounds, aliases, help) and the engine that uses it.
Validation, the tables in the documentation and the JSON schemas are read from this class; nothing else lists its names.
To add a knob, add a field here and use it in the engine.

A field that is None was not asked for: the model's own default applies.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Annotated, Any, Self, TypeVar

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, GetJsonSchemaHandler, ValidationError
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from Wan2GP.errors import InvalidInput, did_you_mean
from Wan2GP.mask_prompts import parse_mask_prompts

Model = TypeVar("Model", bound=BaseModel)

MIN_SIDE, MAX_SIDE = 16, 4096
MAX_PIXELS = 4096 * 2304


@dataclass(frozen=True)
class Media:
    """Marks a field that names a file or URL, so that it is fetched and checked before the GPU is touched."""

    kind: str  # image | video | audio

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Says so in the JSON Schema too."""
        return handler(schema) | {"x-media": self.kind}


def size_of(value: Any) -> tuple[int, int] | None:
    """(width, height) of 832x480, "832X480" and [832, 480], however large; None for what is no text and no pair.

    Raises ValueError for a text that is no size.
    """
    if isinstance(value, (list, tuple)) and len(value) == 2:
        value = f"{value[0]}x{value[1]}"
    if not isinstance(value, str):
        return None
    match = re.fullmatch(r"\s*(\d{1,6})\s*[xX×*]\s*(\d{1,6})\s*", value)
    if not match:
        raise ValueError(f"{value!r} is not a size; write WIDTHxHEIGHT, for example 832x480")
    return int(match[1]), int(match[2])


def _size_text(value: Any) -> Any:
    """A size within the limits as "832x480"."""
    size = size_of(value)
    if size is None:
        return value
    width, height = size
    if min(width, height) < MIN_SIDE:
        raise ValueError(f"{width}x{height} is too small; both sides must be at least {MIN_SIDE} pixels")
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise ValueError(
            f"{width}x{height} is too large; at most {MAX_SIDE} pixels a side and {MAX_PIXELS:,} in all, "
            "for example 1280x720"
        )
    return f"{width}x{height}"


def _numeric_text(value: Any) -> Any:
    """A number becomes the text that the engine takes: 24 -> "24"."""
    return f"{value:g}" if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def _flag(value: Any) -> Any:
    """true and false become 1 and 0."""
    return int(value) if isinstance(value, bool) else value


def _joined(value: Any) -> Any:
    """A list of multipliers becomes the engine's form: one string, separated by spaces."""
    return " ".join(str(item) for item in value) if isinstance(value, (list, tuple)) else value


def _listed(value: Any) -> Any:
    """A comma-separated string becomes a list."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _prompts(value: Any) -> Any:
    """Entries with every name known and every number proven; JSON text is read."""
    try:
        return [each.as_json() for each in parse_mask_prompts(value)]
    except InvalidInput as error:
        raise ValueError(str(error)) from None


def _one_or_many(value: Any) -> Any:
    return [value] if isinstance(value, str) and value else value


Size = Annotated[str, BeforeValidator(_size_text)]
ImageRef = Annotated[str, Media("image")]
VideoRef = Annotated[str, Media("video")]
AudioRef = Annotated[str, Media("audio")]
Names = Annotated[list[str], BeforeValidator(_listed)]
Multipliers = Annotated[str, BeforeValidator(_joined)]
MaskPrompts = Annotated[list[dict[str, Any]], BeforeValidator(_prompts)]
Fraction01 = Annotated[float, Field(ge=0.0, le=1.0)]
Switch = Annotated[int, Field(ge=0, le=1), BeforeValidator(_flag)]


def knob(description: str, *aliases: str, default: Any = None, **bounds: Any) -> Any:
    """A field: its help text, the other names it is known by, and its bounds."""
    alias = AliasChoices(*aliases) if aliases else None
    return Field(default, description=description, validation_alias=alias, **bounds)


class GenerationOptions(BaseModel):
    """What to generate. Sizes in pixels, lengths in frames, media as paths or URLs."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)

    prompt: str | None = knob("what to show")
    system_prompt: str | None = knob("role in which the text encoder of a Qwen-Image model reads the prompt")
    negative_prompt: str | None = knob("what to avoid; used with guidance above 1")
    resolution: Size | None = knob("WIDTHxHEIGHT in pixels, floored to the model's pixel block", "parsed_resolution_wh")
    video_length: int | None = knob("frames to generate", "num_frames", ge=1, le=20_000)
    batch_size: int | None = knob("images per run, for image models", ge=1, le=16)
    repeat_generation: int | None = knob("runs of the same task", ge=1, le=25)
    seed: int | None = knob("-1 draws a random one", ge=-1, le=2**32 - 1)
    force_fps: Annotated[str, BeforeValidator(_numeric_text)] | None = knob(
        'frames per second: "" the model\'s, "auto", "control", "source", or a number'
    )
    num_inference_steps: int | None = knob("denoising steps", "steps", ge=1, le=200)
    guidance_scale: float | None = knob("classifier-free guidance in phase 1", ge=0, le=30)
    guidance2_scale: float | None = knob("guidance in phase 2", ge=0, le=30)
    guidance3_scale: float | None = knob("guidance in phase 3", ge=0, le=30)
    guidance_phases: int | None = knob("number of guidance phases", ge=1, le=3)
    switch_threshold: float | None = knob("noise level 0-1000 where phase 2 begins", ge=0, le=1000)
    switch_threshold2: float | None = knob("noise level 0-1000 where phase 3 begins", ge=0, le=1000)
    model_switch_phase: int | None = knob("phase boundary at which the low-noise expert takes over", ge=1, le=2)
    embedded_guidance_scale: float | None = knob("distilled guidance (Hunyuan, Flux)", ge=0, le=30)
    alt_guidance_scale: float | None = knob("a model's second guidance (references of Phantom)", ge=0, le=30)
    audio_guidance_scale: float | None = knob("guidance of the audio condition", ge=0, le=30)
    audio_scale: float | None = knob("strength of the driving audio", ge=0, le=5)
    flow_shift: float | None = knob("shift of the flow-matching schedule", ge=0.1, le=25)
    sample_solver: str | None = knob("sampler, from the model's list")
    sigmas: list[Fraction01] | None = knob("the exact noise levels, high to low, one a step; the last 0 is understood")
    denoising_strength: Fraction01 | None = knob(
        "share of the schedule that runs on given media", "denoise_strength", "strength"
    )
    masking_strength: Fraction01 | None = knob("share of steps during which the mask is enforced")
    image_mode: int | None = knob("0 video, 1 image, 2 image inpainting", ge=0, le=2)
    model_mode: int | str | None = knob("a mode that the model declares")

    image_prompt_type: str | None = knob("letters: S start, E end, V continue a video")
    image_start: ImageRef | None = knob("first frame", "image", "image_url")
    image_end: ImageRef | None = knob("last frame")
    video_source: VideoRef | None = knob("video to continue")
    keep_frames_video_source: str | None = knob("frames of the source to keep; negative cuts from the end")
    svi2pro: Switch | None = knob(
        "1 goes on from video_source by its last latent frame, with image_refs as the anchor (SVI 2 Pro)"
    )
    input_video_strength: Fraction01 | None = knob("adherence to the start image or source")
    video_prompt_type: str | None = knob(
        "letters that say what the control media are, and what is drawn of them first: P poses, D depth, E edges, "
        "S scribble, L motion, C greys"
    )
    video_guide: VideoRef | None = knob("control video")
    video_mask: VideoRef | None = knob("mask video: black keeps, white generates")
    image_guide: ImageRef | None = knob("control image, in image modes")
    image_mask: ImageRef | None = knob("mask image: black keeps, white generates")
    image_refs: Annotated[list[ImageRef], BeforeValidator(_one_or_many)] | None = knob(
        "reference images", "image_refs_paths"
    )
    frames_positions: str | None = knob("1-based positions of the images marked F")
    keep_frames_video_guide: str | None = knob("1-based control frames to use, as numbers and ranges a:b")
    control_net_weight: float | None = knob("weight of the first control process", ge=0, le=2)
    control_net_weight2: float | None = knob("weight of the second control process", ge=0, le=2)
    mask_expand: int | None = knob("pixels by which the mask grows or shrinks", ge=-10, le=50)
    mask_prompts: MaskPrompts | None = knob(
        "what a mask model selects: a list of {frame, object, points: [[x, y], …], labels: [1, 0, …], "
        "box: [left, top, right, bottom]} in pixels of the given video"
    )
    mask_feather: float | None = knob("pixels on either side of a new mask's edge over which it fades", ge=0, le=200)
    video_guide_outpainting: str | None = knob('"top bottom left right" in percent; "#" is off')
    image_refs_relative_size: int | None = knob("size of references in percent of the output", ge=1, le=100)
    remove_background_images_ref: int | None = knob("1 removes the background of references", ge=0, le=1)

    audio_guide: AudioRef | None = knob("driving audio")
    audio_guide2: AudioRef | None = knob("driving audio of the second speaker")
    audio_source: AudioRef | None = knob("sound track of the result")
    audio_prompt_type: str | None = knob("letters that say what the audio media are")
    speakers_locations: str | None = knob("left:right boxes in percent, one a speaker")

    activated_loras: Names | None = knob("LoRA files or URLs", "lora_names")
    loras_multipliers: Multipliers | None = knob(
        'one token a LoRA; ";" separates phases, "," steps', "lora_multipliers"
    )
    skip_model_loras: int | None = knob("1 leaves out the LoRAs that the model's definition always applies", ge=0, le=1)

    multi_prompts_gen_type: str | None = knob(
        "W gives each window of a long video its own line of the prompt, PW its own paragraph (the last one repeats); "
        "with other letters the whole text is one prompt"
    )
    sliding_window_size: int | None = knob("frames of one window", ge=5, le=2000)
    sliding_window_overlap: int | None = knob("frames shared by neighbouring windows", ge=0, le=200)
    sliding_window_overlap_noise: float | None = knob("noise on the shared frames, 0-150", ge=0, le=150)
    sliding_window_discard_last_frames: int | None = knob("frames dropped at a window's end", ge=0, le=40)
    sliding_window_color_correction_strength: Fraction01 | None = knob("colour match between windows")

    vid2vid_init_video: VideoRef | None = knob("video whose latents are the starting point")
    vid2vid_init_strength: Fraction01 | None = knob("share of noise in the starting latents")
    latent_noise_mask_strength: Fraction01 | None = knob("re-noise masked latents only")

    skip_steps_cache_type: str | None = knob('step cache: "" none, tea or mag; some steps hold the one before')
    skip_steps_multiplier: float | None = knob("speed-up asked of the step cache", ge=1, le=5)
    skip_steps_start_step_perc: float | None = knob("percent of steps before the cache may act", ge=0, le=100)
    NAG_scale: float | None = knob("normalised attention guidance; 1 is off", ge=1, le=20)
    NAG_tau: float | None = knob("NAG norm limit", ge=1, le=5)
    NAG_alpha: float | None = knob("NAG mix", ge=0, le=2)
    slg_switch: int | None = knob("1 turns skip-layer guidance on", "perturbation_switch", ge=0, le=1)
    slg_layers: list[int] | None = knob("layers skipped", "perturbation_layers")
    slg_start_perc: float | None = knob("percent of steps where it begins", "perturbation_start_perc", ge=0, le=100)
    slg_end_perc: float | None = knob("percent of steps where it ends", "perturbation_end_perc", ge=0, le=100)
    apg_switch: int | None = knob("1 turns adaptive projected guidance on", ge=0, le=1)
    cfg_star_switch: int | None = knob("1 turns CFG-star on", ge=0, le=1)
    cfg_zero_step: int | None = knob("steps whose prediction is zeroed, with CFG-star; -1 is off", ge=-1, le=39)
    RIFLEx_setting: int | None = knob("0 auto, 1 always, 2 never", ge=0, le=2)
    min_frames_if_references: int | None = knob("frames generated for one still of a video model", ge=1)
    motion_amplitude: float | None = knob("more motion for image-to-video", ge=1, le=1.4)

    hires_scale: float | None = knob(
        "second pass of an image model or LTX-Video: sides of the result by those of the first; 1 is off", ge=1, le=4
    )
    hires_steps: int | None = knob("denoising steps of the second pass", ge=1, le=100)
    hires_denoise: float | None = knob(
        "share of noise that the second pass begins with; of LTX-Video: share of its schedule", gt=0, le=1
    )
    hires_upscale_method: str | None = knob("how the latents are enlarged: nearest, bilinear, bicubic or area")

    prompt_enhancer: str | None = knob("rewrite the prompt, by letters: T use the text, I use the images, TI both")
    prompt_enhancer_model: str | None = knob(
        "the model that rewrites it, such as prompt_enhancer or prompt_enhancer_vl"
    )
    temporal_upsampling: str | None = knob("frames between the frames: rife2 or rife4 make 2 or 4 times the rate")
    spatial_upsampling: str | None = knob("larger pictures: lanczos1.5, lanczos2 … lanczos4")
    film_grain_intensity: Fraction01 | None = knob("film grain: 0 none, 1 strong")
    film_grain_saturation: Fraction01 | None = knob("film grain: 0 grey, 1 coloured")
    override_profile: int | None = knob(
        "memory profile for this task, 1 to 5, see docs/memory.md; with 2, 4 and 5 (little GPU memory) "
        "a model goes through the GPU layer by layer; -1 is the worker's",
        ge=-1,
        le=5,
    )

    @property
    def size(self) -> tuple[int, int] | None:
        """(width, height) in pixels, when a resolution was asked for."""
        if self.resolution is None:
            return None
        width, height = self.resolution.split("x")
        return int(width), int(height)

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Validate values whose names are field names or aliases. Raises InvalidInput that names the field."""
        return parse_model(cls, values)

    def to_engine(self) -> dict[str, Any]:
        """The knobs that were asked for, by the engine's names."""
        return {name: value for name, value in self if value is not None}

    def replace(self, **changes: Any) -> Self:
        """A copy with some knobs changed, validated again."""
        return self.parse(self.to_engine() | changes)

    def media(self) -> dict[str, str]:
        """The media fields that were asked for, and the kind of each (image, video or audio)."""
        return {name: kind for name, kind in media_fields(type(self)).items() if getattr(self, name)}


@cache
def aliases(model: type[BaseModel]) -> MappingProxyType[str, str]:
    """Every accepted name of a model's fields -> the field's name."""
    names: dict[str, str] = {}
    for field_name, field in model.model_fields.items():
        names[field_name] = field_name
        if isinstance(field.validation_alias, AliasChoices):
            names |= {str(choice): field_name for choice in field.validation_alias.choices}
    return MappingProxyType(names)


def media_fields(model: type[BaseModel]) -> dict[str, str]:
    """Field name -> kind of media, for the fields that name a file or URL."""
    return {
        name: kind
        for name, field in model.model_fields.items()
        if (kind := _media_kind([field.annotation, *field.metadata]))
    }


def _media_kind(parts: Iterable[Any]) -> str | None:
    for part in parts:
        if isinstance(part, Media):
            return part.kind
        nested = [*getattr(part, "__metadata__", ()), *getattr(part, "__args__", ())]
        if nested and (kind := _media_kind(nested)):
            return kind
    return None


def parse_model(model: type[Model], values: Mapping[str, Any], written: Mapping[str, str] | None = None) -> Model:
    """`model.model_validate` whose failure is an InvalidInput for people.

    `written` gives the name under which somebody wrote a field, so that the message speaks of that.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise invalid_input(error, model, written or {}) from None


def invalid_input(error: ValidationError, model: type[BaseModel], written: Mapping[str, str]) -> InvalidInput:
    """Turn pydantic's report into one message that names every field at fault."""
    known = aliases(model)
    faults: dict[str, str] = {}
    for item in error.errors():
        location = [str(part) for part in item["loc"]]
        where = ".".join([written.get(part, part) for part in location[:1]] + location[1:]) or "parameters"
        if item["type"] == "extra_forbidden":
            message = f"there is no parameter of that name.{did_you_mean(where, known)}"
        else:
            shown = "" if item["type"] in ("missing", "value_error") else f" (given: {item.get('input')!r:.80})"
            message = item["msg"].removeprefix("Value error, ") + shown
        faults[where] = f"{faults[where]}; {message}" if where in faults else message
    first = error.errors()[0]["loc"]
    failure = InvalidInput("; ".join(f"{where}: {message}" for where, message in faults.items()))
    failure.field = written.get(str(first[0]), str(first[0])) if first else None
    failure.faults = faults
    return failure
