"""What a model can do nothing with: content is refused, settings are named as ignored. No torch here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from Wan2GP.architecture import Architecture
from Wan2GP.definitions import ModelDefinition
from Wan2GP.engine.sampling import LEAST_CACHED_STEPS
from Wan2GP.errors import Unsupported
from Wan2GP.parameters import CONTENT, PARAMETERS, asked
from Wan2GP.post_processing import SETTINGS, PostProcessing

if TYPE_CHECKING:
    from Wan2GP.engine.request import GenerationRequest

#: what the call itself uses, whatever the model
_USED_BY_THE_CALL = frozenset({
    "resolution", "video_length", "force_fps", "repeat_generation", "image_mode", "image_prompt_type",
    "override_profile",
})  # fmt: skip

#: what the call does to the frames of any model; an answer in words has none
_DONE_TO_FRAMES = frozenset(SETTINGS)

#: what the call does to the prompt of any model that draws from one
_DONE_TO_A_PROMPT = frozenset({"prompt_enhancer", "prompt_enhancer_model"})

#: content parameter -> the input that an architecture declares for it
_INPUT_OF = {
    "image_start": "image_start",
    "image_end": "image_end",
    "video_source": "video_source",
    "image_refs": "references",
    "video_guide": "control_video",
    "video_mask": "mask",
    "image_guide": "control_video",
    "image_mask": "mask",
    "audio_guide": "audio",
    "activated_loras": "loras",
}

#: setting -> the input that it says more about
_ABOUT = {
    "alt_guidance_scale": "references",
    "image_refs_relative_size": "references",
    "remove_background_images_ref": "references",
    "frames_positions": "references",
    "keep_frames_video_source": "video_source",
    "keep_frames_video_guide": "control_video",
    "mask_expand": "mask",
    "masking_strength": "mask",
    "latent_noise_mask_strength": "mask",
    "audio_prompt_type": "audio",
    "audio_guidance_scale": "audio",
    "audio_scale": "audio",
}
_OF_VACE = frozenset({"control_net_weight", "image_refs_relative_size", "frames_positions"})
_OF_WINDOWS = frozenset(name for name in PARAMETERS if name.startswith("sliding_window_"))


def refuse_unusable(wanted: frozenset[str], definition: ModelDefinition, reads: frozenset[str]) -> None:
    """Raises Unsupported for content that was asked for and that the model, or its family, does not take."""
    always_on = {"activated_loras"} if definition.model.get("loras") else set()
    inputs = definition.architecture.inputs
    usable = {name for name in reads if _INPUT_OF.get(name) is None or _INPUT_OF[name] in inputs}
    for name in sorted((wanted | always_on) & CONTENT - usable):
        reason = "cannot use it in this version" if _INPUT_OF.get(name) in inputs else "does not take it"
        raise Unsupported(
            f"the model {definition.id} {reason}; leave it out or choose another model "
            f"(it takes: {', '.join(sorted(inputs))})",
            field=name,
        )


def ignored(wanted: frozenset[str], definition: ModelDefinition, reads: frozenset[str]) -> tuple[str, ...]:
    """One note that names the settings that were asked for and do nothing; none when all act."""
    acting = reads - _idle(definition.architecture)
    finished = frozenset() if definition.architecture.text_output else _DONE_TO_FRAMES
    enhanced = _DONE_TO_A_PROMPT if definition.architecture.draws_from_text else frozenset()
    names = sorted(wanted - acting - _USED_BY_THE_CALL - finished - enhanced - CONTENT)
    return (f"ignored by {definition.id}: {', '.join(names)}",) if names else ()


def without_effect(request: GenerationRequest, reads: frozenset[str]) -> Iterator[str]:
    """What was asked for, or promised by a default, and cannot act."""
    sampling = request.sampling
    scales = (sampling.guidance_scale, sampling.guidance2_scale, sampling.guidance3_scale)[: sampling.guidance_phases]
    if "NAG_scale" in reads and sampling.nag_scale > 1 and min(scales) > 1:
        yield "NAG_scale has no effect beside guidance: it acts in phases whose guidance_scale is 1 or less"
    if "skip_steps_cache_type" in reads and sampling.step_cache is not None:
        yield from _idle_step_cache(request)
    masked = "video_mask" in reads and request.video_mask is not None and request.initial_video is not None
    if masked and not request.masking_strength and not request.definition.architecture.vace:
        yield "video_mask has no effect at latent_noise_mask_strength 0; set it to the share of steps that keep to it"
    pictures = () if request.definition.architecture.text_output else request.references[len(request.positions) :]
    yield from _idle_finishing(PostProcessing.of(request.settings), request)
    if request.svi:
        yield from _idle_svi(request)
    elif pictures and request.settings["remove_background_images_ref"]:
        yield "reference images keep their background: this version removes none"


def _idle_step_cache(request: GenerationRequest) -> Iterator[str]:
    if request.sampling.num_inference_steps < LEAST_CACHED_STEPS:
        yield f"skip_steps_cache_type has no effect on fewer than {LEAST_CACHED_STEPS} steps: each of them counts"
    if request.model_mode and request.definition.architecture_name.startswith("sky_df"):
        yield "skip_steps_cache_type has no effect in model_mode 5, where frames are at different steps"


def _idle_finishing(wanted: PostProcessing, request: GenerationRequest) -> Iterator[str]:
    if wanted.times > 1 and request.image_output:
        yield "temporal_upsampling has no effect on stills: nothing lies between them"
    if not wanted.grain and "film_grain_saturation" in asked(request.settings):
        yield "film_grain_saturation has no effect without film_grain_intensity"


def _idle_svi(request: GenerationRequest) -> Iterator[str]:
    """An anchor where nothing goes on, or nothing is drawn after it; a 0 that a model cannot follow."""
    model, one_window = request.definition, request.num_frames <= request.windows.size
    if request.video_source is not None and not request.settings["svi2pro"]:
        yield f"svi2pro 0 has no effect: {model.id} always goes on that way"
    if request.references and not model.architecture.i2v:
        yield f"image_refs has no effect: {model.id} has no use for an anchor"
    elif request.references and request.video_source is None and one_window:
        yield "image_refs has no effect: the video begins with image_start, and nothing goes on from it"


def _idle(architecture: Architecture) -> frozenset[str]:
    """Settings that the family uses and this architecture has nothing for."""
    names = {name for name, needed in _ABOUT.items() if needed not in architecture.inputs}
    names |= {"alt_guidance_scale"} if architecture.vace else _OF_VACE
    names -= {"frames_positions"} if "F" in architecture.control else set()
    names |= _OF_WINDOWS if architecture.windows is None else set()
    # Without windows too, frames are shared with a video that goes on.
    names -= {"sliding_window_overlap"} if "video_source" in architecture.inputs else set()
    return frozenset(names | (set() if architecture.model_modes else {"model_mode"}))
