"""The order of a form: what is used most stands first, the rest in sections that can be opened."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from source.page.form.controls import Control
from source.params.base import TaskParams
from source.params.generating import GeneratingParams

#: parameters that most people set, in the order in which they think of them
USUAL = (
    "prompt", "image_url", "mask_url", "image", "input_image_path", "input_image_paths_resolved", "source_video_url",
    "video_path", "input_video_path", "starting_video_path", "ending_video_path", "clip_list",
    "portions_to_regenerate", "workflow", "image_start", "image_end", "video_guide", "video_source",
    "base_prompts_expanded", "base_prompt", "negative_prompt", "segment_frames_expanded", "frame_overlap_expanded",
    "context_frame_count", "gap_frame_count", "replace_mode",
    "model", "model_type", "resolution", "video_length", "fps_helpers", "num_inference_steps", "guidance_scale", "seed",
    "seed_base", "loras",
)  # fmt: skip
#: those that only types without media or lengths of their own leave to the engine
_ENGINES = frozenset(("image_start", "image_end", "video_guide", "video_source", "video_length"))

#: a type with no more of its own than that shows them all
_FEW = 14
_OWN = "More of this task type"
_OTHER = "More of the engine"

#: the engine's knobs by subject
SECTIONS: dict[str, tuple[str, ...]] = {
    "Prompt": ("prompt", "negative_prompt", "system_prompt", "prompt_enhancer", "prompt_enhancer_model",
               "multi_prompts_gen_type"),
    "Size and length": ("resolution", "video_length", "batch_size", "repeat_generation", "force_fps",
                        "min_frames_if_references"),
    "Sampling": ("seed", "num_inference_steps", "guidance_scale", "guidance2_scale", "guidance3_scale",
                 "guidance_phases", "switch_threshold", "switch_threshold2", "model_switch_phase",
                 "embedded_guidance_scale", "alt_guidance_scale", "flow_shift", "sample_solver", "sigmas",
                 "denoising_strength", "image_mode", "model_mode", "phase_config"),
    "LoRAs": ("loras", "additional_loras", "activated_loras", "loras_multipliers", "skip_model_loras"),
    "Start, end and source": ("image_prompt_type", "image_start", "image_end", "video_source",
                              "keep_frames_video_source", "svi2pro", "input_video_strength", "vid2vid_init_video",
                              "vid2vid_init_strength", "motion_amplitude"),
    "Control, masks and references": (
        "video_prompt_type", "video_guide", "video_mask", "image_guide", "image_mask", "image_refs",
        "frames_positions", "keep_frames_video_guide", "control_net_weight", "control_net_weight2", "mask_expand",
        "mask_prompts", "mask_feather", "masking_strength", "latent_noise_mask_strength", "video_guide_outpainting",
        "image_refs_relative_size", "remove_background_images_ref"),
    "Sound": ("audio_guide", "audio_guide2", "audio_source", "audio_prompt_type", "speakers_locations",
              "audio_guidance_scale", "audio_scale"),
    "Long videos": ("sliding_window_size", "sliding_window_overlap", "sliding_window_overlap_noise",
                    "sliding_window_discard_last_frames", "sliding_window_color_correction_strength",
                    "RIFLEx_setting"),
    "Refined guidance and step caches": (
        "skip_steps_cache_type", "skip_steps_multiplier", "skip_steps_start_step_perc", "NAG_scale", "NAG_tau",
        "NAG_alpha", "slg_switch", "slg_layers", "slg_start_perc", "slg_end_perc", "apg_switch", "cfg_star_switch",
        "cfg_zero_step"),
    "Second pass, finishing and memory": (
        "hires_scale", "hires_steps", "hires_denoise", "hires_upscale_method", "temporal_upsampling",
        "spatial_upsampling", "film_grain_intensity", "film_grain_saturation", "override_profile"),
}  # fmt: skip

_PLACES = {name: title for title, names in SECTIONS.items() for name in names}
_SHARED = frozenset(GeneratingParams.model_fields)


@dataclass(frozen=True)
class Section:
    """Controls that belong together; the first one of a form has no title."""

    title: str
    controls: tuple[Control, ...]

    @property
    def open(self) -> bool:
        """Whether a reader should see it at once."""
        return not self.title or any(each.given or each.faulty for each in self.controls)

    @property
    def given(self) -> int:
        """How many controls say something."""
        return sum(each.given for each in self.controls)


def sections_of(params: type[TaskParams], controls: Iterable[Control]) -> tuple[Section, ...]:
    """The controls of a task type in sections; none is empty."""
    controls = tuple(controls)
    own = {each.field.name for each in controls if each.field.name in params.model_fields} - _SHARED
    found: dict[str, list[Control]] = {title: [] for title in ("", _OWN, *SECTIONS, _OTHER)}
    for each in controls:
        found[_title(each, own)].append(each)
    found[""].sort(key=lambda each: _rank(each, own))
    return tuple(Section(title, tuple(each)) for title, each in found.items() if each)


def _title(control: Control, own: set[str]) -> str:
    name = control.field.name
    usual = name in USUAL and not (own and name in _ENGINES)
    if control.field.needed or usual or (name in own and len(own) <= _FEW):
        return ""
    return _OWN if name in own else _PLACES.get(name, _OTHER)


def _rank(control: Control, own: set[str]) -> tuple[bool, int]:
    """What the type is about, then what it shares with others; each as people think of it."""
    name = control.field.name
    return not (control.field.needed or name in own), USUAL.index(name) if name in USUAL else len(USUAL)
