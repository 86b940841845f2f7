"""Every parameter of the generation call, declared once as data.

The names are those of both generations of the call that users know (`generate_video`, `generate_media`), so one caller
can drive either. A parameter whose value equals its default, or is None, counts as not asked for.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from Wan2GP.errors import did_you_mean
from Wan2GP.memory_profiles import PROFILES

#: memory profiles at which a model takes little of an accelerator, and the one that takes least of everything
LOW_MEMORY_PROFILES = frozenset(number for number, profile in PROFILES.items() if profile.streamed)
LEAST_MEMORY_PROFILE = max(PROFILES)


class Role(Enum):
    """What a parameter is, which decides what happens when a model cannot use it."""

    PLUMBING = "plumbing"  # how the call talks to its caller: never a model's business
    CONTENT = "content"  # media or LoRAs: refused by a model that cannot honour it
    SETTING = "setting"  # a knob: ignored with a note


@dataclass(frozen=True)
class Parameter:
    """One keyword argument of the generation call."""

    name: str
    default: Any
    role: Role


def _rows(role: Role, **defaults: Any) -> tuple[Parameter, ...]:
    return tuple(Parameter(name, default, role) for name, default in defaults.items())


_CALL = _rows(Role.PLUMBING, task=None, send_cmd=None, client_id="")

_PICTURE = _rows(
    Role.SETTING,
    image_mode=0,
    prompt="",
    alt_prompt="",
    negative_prompt="",
    system_prompt="",
    resolution="832x480",
    video_length=81,
    duration_seconds=0,
    pause_seconds=0,
    batch_size=1,
    seed=-1,
    force_fps="",
    repeat_generation=1,
    multi_prompts_gen_type="PG",
    multi_images_gen_type=0,
    model_mode=None,
    config="",
    custom_settings=None,
    output_filename="",
)

_SAMPLING = _rows(
    Role.SETTING,
    num_inference_steps=30,
    guidance_scale=5.0,
    guidance2_scale=5.0,
    guidance3_scale=5.0,
    switch_threshold=0,
    switch_threshold2=0,
    guidance_phases=1,
    model_switch_phase=1,
    alt_guidance_scale=1.0,
    alt_scale=0.0,
    audio_guidance_scale=1.0,
    audio_scale=1.0,
    flow_shift=3.0,
    sample_solver="",
    sigmas=(),
    embedded_guidance_scale=6.0,
    denoising_strength=1.0,
    masking_strength=1.0,
    motion_amplitude=1.0,
    NAG_scale=1.0,
    NAG_tau=3.5,
    NAG_alpha=0.5,
    slg_switch=0,
    slg_layers=(9,),
    slg_start_perc=10,
    slg_end_perc=90,
    perturbation_switch=0,
    perturbation_layers=(9,),
    perturbation_start_perc=10,
    perturbation_end_perc=90,
    apg_switch=0,
    cfg_star_switch=0,
    cfg_zero_step=-1,
    RIFLEx_setting=0,
    skip_steps_cache_type="",
    skip_steps_multiplier=1.75,
    skip_steps_start_step_perc=0,
    latent_noise_mask_strength=0.0,
    vid2vid_init_strength=0.7,
    temperature=0.8,
    top_p=0.9,
    top_k=50,
    self_refiner_setting=0,
    self_refiner_plan="",
    self_refiner_f_uncertainty=0.0,
    self_refiner_certain_percentage=0.999,
    attention_sparsity=1.0,
    override_attention="",
    override_profile=-1,
    prompt_enhancer="",
    prompt_enhancer_model="prompt_enhancer",
    min_frames_if_references=1,
    hires_scale=1.0,
    hires_steps=6,
    hires_denoise=0.5,
    hires_upscale_method="bicubic",
)

_MEDIA = _rows(
    Role.CONTENT,
    activated_loras=(),
    image_start=None,
    image_end=None,
    video_source=None,
    image_refs=None,
    video_guide=None,
    video_guide2=None,
    image_guide=None,
    video_mask=None,
    image_mask=None,
    audio_guide=None,
    audio_guide2=None,
    audio_source=None,
    custom_guide=None,
    vid2vid_init_video=None,
    replace_voice_sample=None,
    replace_voice_sample2=None,
)

_MEDIA_SETTINGS = _rows(
    Role.SETTING,
    loras_multipliers="",
    skip_model_loras=0,
    svi2pro=0,
    image_prompt_type="",
    keep_frames_video_source="",
    input_video_strength=1.0,
    video_prompt_type="",
    frames_positions="",
    keep_frames_video_guide="",
    video_guide_outpainting="#",
    video_guide_outpainting_ratio="",
    control_net_weight=1.0,
    control_net_weight2=1.0,
    control_net_weight_alt=1.0,
    mask_expand=0,
    mask_prompts=(),
    mask_feather=0.0,
    image_refs_relative_size=50,
    remove_background_images_ref=1,
    audio_prompt_type="",
    speakers_locations="0:45 55:100",
    replace_voice_method="",
)

_WINDOWS_AND_FINISH = _rows(
    Role.SETTING,
    sliding_window_size=129,
    sliding_window_overlap=5,
    sliding_window_overlap_noise=0,
    sliding_window_color_correction_strength=0.0,
    sliding_window_discard_last_frames=0,
    sliding_window_trim_first_frames=0,
    sub_parallel_window_size=0,
    sub_parallel_window_overlap=17,
    temporal_upsampling="",
    spatial_upsampling="",
    film_grain_intensity=0.0,
    film_grain_saturation=0.5,
    MMAudio_setting=0,
    MMAudio_prompt="",
    MMAudio_neg_prompt="",
    postprocess_audio="",
    postprocess_audio_prompt="",
    postprocess_audio_neg_prompt="",
)

_END = _rows(Role.PLUMBING, state=None, model_type="", model_filename="", mode="", plugin_data=None)

#: name -> parameter, in the order of the signature
PARAMETERS: Mapping[str, Parameter] = {
    parameter.name: parameter
    for parameter in (*_CALL, *_PICTURE, *_SAMPLING, *_MEDIA, *_MEDIA_SETTINGS, *_WINDOWS_AND_FINISH, *_END)
}

CONTENT = frozenset(name for name, parameter in PARAMETERS.items() if parameter.role is Role.CONTENT)
PLUMBING = frozenset(name for name, parameter in PARAMETERS.items() if parameter.role is Role.PLUMBING)

SIGNATURE = inspect.Signature(
    [
        inspect.Parameter(parameter.name, inspect.Parameter.KEYWORD_ONLY, default=parameter.default)
        for parameter in PARAMETERS.values()
    ]
)


def check_names(function: str, names: Iterable[str]) -> None:
    """Raises TypeError, as a call with a wrong keyword does, naming the nearest parameter."""
    for name in names:
        if name not in PARAMETERS:
            raise TypeError(
                f"{function}() got an unexpected keyword argument {name!r}.{did_you_mean(name, PARAMETERS)}"
            )


def asked(values: Mapping[str, Any]) -> frozenset[str]:
    """The parameters whose value differs from the default: what the caller really asked for.

    Settings of a run may also hold what was found out on the way (`enhanced_prompt`): nobody asked for that.
    """
    return frozenset(
        name
        for name, value in values.items()
        if value is not None and name in PARAMETERS and not _same(value, PARAMETERS[name].default)
    )


def _same(value: Any, default: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return tuple(value) == (tuple(default) if isinstance(default, (list, tuple)) else ())
    if isinstance(value, (str, int, float, dict)):
        return bool(value == default) or value in ("", {})
    return False
