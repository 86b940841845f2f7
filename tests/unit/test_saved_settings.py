"""Settings that Wan2GP saved become our options: what both know survives the way there and back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from upstream_checkouts import OLD, PARAMETERS, RENAMED

from headless.bridge.keywords import prompt_kind, settings_of, understood
from headless.generation import ModelInfo
from headless.options import GenerationOptions
from Wan2GP.definitions import load_definitions
from Wan2GP.errors import InvalidInput
from Wan2GP.parameters import CONTENT, PLUMBING
from Wan2GP.parameters import PARAMETERS as OURS

MODEL = load_definitions()["t2v"]

#: a value of each option that both generations of the call have
ASKED: dict[str, Any] = {
    "prompt": "a cat", "negative_prompt": "blur", "resolution": "640x480", "video_length": 33, "batch_size": 2,
    "repeat_generation": 3, "seed": 5, "force_fps": "24", "num_inference_steps": 8, "guidance_scale": 3.5,
    "guidance2_scale": 1.0, "guidance3_scale": 2.0, "guidance_phases": 2, "switch_threshold": 875.0,
    "switch_threshold2": 500.0, "model_switch_phase": 2, "embedded_guidance_scale": 4.0, "audio_guidance_scale": 3.0,
    "flow_shift": 7.0, "sample_solver": "euler", "denoising_strength": 0.5, "image_mode": 0, "model_mode": 3,
    "image_prompt_type": "SEV", "image_start": "a.png", "image_end": "b.png", "video_source": "v.mp4",
    "keep_frames_video_source": "-3", "video_prompt_type": "PVAI", "video_guide": "g.mp4", "video_mask": "m.mp4",
    "image_guide": "g.png", "image_mask": "m.png", "image_refs": ["r.png", "s.png"], "frames_positions": "1 L",
    "keep_frames_video_guide": "1:5", "control_net_weight": 0.5, "control_net_weight2": 0.7, "mask_expand": 4,
    "video_guide_outpainting": "10 0 0 0", "image_refs_relative_size": 40, "remove_background_images_ref": 0,
    "audio_guide": "a.wav", "audio_guide2": "b.wav", "audio_source": "c.wav", "audio_prompt_type": "AB",
    "speakers_locations": "0:50 50:100", "activated_loras": ["x.safetensors"], "loras_multipliers": "1;0",
    "multi_prompts_gen_type": "W", "sliding_window_size": 81, "sliding_window_overlap": 9,
    "sliding_window_overlap_noise": 20.0, "sliding_window_discard_last_frames": 4,
    "sliding_window_color_correction_strength": 0.3, "skip_steps_cache_type": "tea", "skip_steps_multiplier": 2.0,
    "skip_steps_start_step_perc": 20.0, "NAG_scale": 2.0, "NAG_tau": 2.5, "NAG_alpha": 0.3, "slg_switch": 1,
    "slg_layers": [3, 4], "slg_start_perc": 5.0, "slg_end_perc": 80.0, "apg_switch": 1, "cfg_star_switch": 0,
    "cfg_zero_step": 4, "RIFLEx_setting": 2, "min_frames_if_references": 5, "prompt_enhancer": "T",
    "temporal_upsampling": "rife2", "spatial_upsampling": "lanczos2", "film_grain_intensity": 0.2,
    "film_grain_saturation": 0.4, "override_profile": 4,
}  # fmt: skip


def saved_by(version: str, options: GenerationOptions) -> dict[str, Any]:
    """The settings as that version writes them into a file."""
    info = ModelInfo.of("t2v", MODEL.architecture_name, MODEL.architecture)
    defaults = {"multi_prompts_gen_type": 0 if version == OLD else "PG"}
    told = settings_of(options, info, parameters=PARAMETERS[version], defaults=defaults).values
    about = {"settings_version": 2.74, "model_type": "t2v", "base_model_type": "t2v", "type": "WanGP", "_api": {"x": 1}}
    return json.loads(json.dumps(dict(told) | about))


@pytest.mark.parametrize("version", [OLD, RENAMED])
def test_options_come_back_as_they_went_whichever_version_saved_them(version: str) -> None:
    options = GenerationOptions.parse(ASKED)
    saved = saved_by(version, options)
    back = understood(saved)
    assert back.notes == ()
    assert {name: getattr(back.options, name) for name in ASKED} == {name: getattr(options, name) for name in ASKED}
    again = {name: saved_by(version, back.options)[name] for name in saved}
    assert again == saved


@pytest.mark.parametrize("version", [OLD, RENAMED])
def test_settings_in_which_nothing_was_touched_make_no_notes_and_can_be_run(version: str) -> None:
    back = understood(saved_by(version, GenerationOptions(prompt="a cat")))
    assert back.notes == ()
    assert back.options.num_inference_steps == 30 and back.options.image_start is None


def test_every_option_of_the_newest_version_that_we_have_is_in_this_test() -> None:
    known = (set(PARAMETERS[RENAMED]) | set(PARAMETERS[OLD])) & set(GenerationOptions.model_fields)
    newer = {"alt_guidance_scale", "audio_scale", "input_video_strength", "masking_strength", "motion_amplitude"}
    assert known - set(ASKED) == newer


def test_media_without_their_letters_are_announced_as_the_graphical_interface_does() -> None:
    back = understood({"prompt": "x", "image_start": "a.png", "image_end": "b.png", "image_prompt_type": "S"}).options
    assert back.image_prompt_type == "SE"
    assert understood({"prompt": "x", "image_prompt_type": ""}).options.image_prompt_type is None


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("mode", "edit_postprocessing", "mode: "),
        ("video_guide2", "b.mp4", "video_guide2: nothing here takes it"),
        ("custom_guide", "t.json", "custom_guide: "),
        ("seedvc_voice_sample", "v.wav", "seedvc_voice_sample: "),
        ("num_inference_steps", 0, "num_inference_steps"),
        ("resolution", "wide", "resolution"),
        ("guidance_scale", "much", "guidance_scale"),
        ("image_mode", 7, "image_mode"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(setting: str, value: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        understood({"prompt": "x", setting: value})


@pytest.mark.parametrize(
    ("setting", "value", "noted"),
    [
        ("temperature", 0.5, True),
        ("temperature", OURS["temperature"].default, False),
        ("self_refiner_setting", 1, True),
        ("MMAudio_setting", 1, True),
        ("postprocess_audio", "mmaudio", True),
        ("pace", 0.9, True),
        ("pace", 0.5, False),
        ("of_a_later_version", "yes", True),
        ("of_a_later_version", "", False),
        ("override_profile", 3.5, True),
        ("override_profile", -1, False),
        ("plugin_data", {"x": 1}, False),
    ],
)
def test_what_was_asked_for_and_has_no_counterpart_is_noted_by_name(setting: str, value: Any, noted: bool) -> None:
    notes = understood({"prompt": "x", setting: value}).notes
    assert [note.split()[0] for note in notes] == ([setting] if noted else [])


def test_each_setting_of_the_newest_version_is_known_noted_or_refused_when_it_is_asked_for() -> None:
    """None is dropped silently: the table of names is whole."""
    silent = set()
    for name in sorted(set(PARAMETERS[RENAMED]) - PLUMBING - set(GenerationOptions.model_fields)):
        asked_for = {"slg": 1}.get(name, "x" if isinstance(OURS[name].default, str) else 2)
        try:
            meant = understood({"prompt": "p", name: asked_for})
        except InvalidInput:
            assert name in CONTENT or name.startswith("perturbation")
            continue
        if not meant.notes and not name.startswith("perturbation"):
            silent.add(name)
    assert silent == set()


@pytest.mark.parametrize(
    ("kind", "meant"),
    [(0, "G"), (1, "W"), (2, "FG"), ("", "FG"), ("P", "PG"), ("PG", "PG"), ("PW", "PW"), (None, "PG")],
)
def test_what_becomes_of_several_lines_is_read_in_every_spelling(kind: Any, meant: str) -> None:
    assert prompt_kind({} if kind is None else {"multi_prompts_gen_type": kind}) == meant
