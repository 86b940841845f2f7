"""Acceleration LoRAs are known by their published names, and bring the settings that they were made for."""

from __future__ import annotations

import pytest

from Wan2GP.engine.lora.accelerators import ACCELERATORS, accelerator_of, recognised, settings_for
from Wan2GP.parameters import PARAMETERS

HIGH = "wan2.2_i2v_lightx2v_4steps_lora_v1_high_noise.safetensors"
LOW = "wan2.2_i2v_lightx2v_4steps_lora_v1_low_noise.safetensors"
CAUSVID = "Wan21_CausVid_14B_T2V_lora_rank32.safetensors"
LIGHTX2V = "Wan21_T2V_14B_lightx2v_cfg_step_distill_lora_rank32.safetensors"


@pytest.mark.parametrize(
    ("file", "name"),
    [
        (CAUSVID, "CausVid"),
        ("Wan21_CausVid_bidirect2_T2V_1_3B_lora_rank32.safetensors", "CausVid"),
        ("Wan21_CausVid_14B_T2V_lora_rank32_v1_5_no_first_block.safetensors", "CausVid v2"),
        ("Wan21_CausVid_14B_T2V_lora_rank32_v2.safetensors", "CausVid v2"),
        ("Wan21_AccVid_T2V_14B_lora_rank32_fp16.safetensors", "AccVideo"),
        ("Qwen-Image-Lightning-4steps-V2.0-bf16.safetensors", "Qwen-Image Lightning, 4 steps"),
        ("Qwen-Image-2512-Lightning-4steps-V1.0-bf16.safetensors", "Qwen-Image Lightning, 4 steps"),
        ("Qwen-Image-Edit-Lightning-8steps-V1.0-bf16.safetensors", "Qwen-Image Lightning, 8 steps"),
        ("Wan21_AccVid_I2V_480P_14B_lora_rank32_fp16.safetensors", "AccVideo"),
        (LIGHTX2V, "LightX2V self-forcing"),
        ("lightx2v_I2V_14B_480p_cfg_step_distill_rank128_bf16.safetensors", "LightX2V self-forcing"),
        ("wan2.1_t2v_14b_lora_rank64_lightx2v_4step.safetensors", "LightX2V self-forcing"),
        ("Wan2.2-Lightning_T2V-A14B-4steps-lora_HIGH_fp16.safetensors", "Wan2.2 Lightning"),
        ("Wan22_A14B_T2V_LOW_Lightning_4steps_lora_250928_rank64_fp16.safetensors", "Wan2.2 Lightning"),
        ("Wan2.2-I2V-A14B-4steps-lora-rank64-Seko-V1_high_noise_model.safetensors", "Wan2.2 Lightning"),
        (
            "https://host/Wan2.2-T2V-A14B-4steps-lora-250928/high_noise_model.safetensors?download=true",
            "Wan2.2 Lightning",
        ),
        (HIGH, "Wan2.2 Lightning"),
        ("wan2.2_t2v_A14b_low_noise_lora_rank64_lightx2v_4step_1217.safetensors", "Wan2.2 Lightning"),
        ("Wan2.1_T2V_14B_FusionX_LoRA.safetensors", "FusioniX"),
        ("Wan2.1_I2V_14B_FusioniX_LoRA.safetensors", "FusioniX"),
        ("Wan2_2_5B_FastWanFullAttn_lora_rank_128_bf16.safetensors", "FastWan"),
        ("/loras/wan/self_forcing_dmd_lora.safetensors", "LightX2V self-forcing"),
        (r"C:\loras\Wan21_AccVid_T2V_14B_lora_rank32_fp16.safetensors", "AccVideo"),
    ],
)
def test_published_files_are_recognised(file, name):
    found = accelerator_of(file)
    assert found is not None and found.name == name


@pytest.mark.parametrize(
    "file",
    [
        "SVI_Wan2.2-I2V-A14B_high_noise_lora_v2.0_pro.safetensors",
        "qwen_lightning_storm_style.safetensors",
        "Wan21_14B_T2V_MoviiGen_lora_rank32_fp16.safetensors",
        "Wan2.1-Fun-14B-InP-MPS.safetensors",
        "lightning_storm_style_wan.safetensors",
        "/loras/lightx2v/my_style.safetensors",
        "high_noise_model.safetensors",
    ],
)
def test_other_loras_are_not(file):
    assert accelerator_of(file) is None and settings_for([file]) == ({}, None)


def test_every_setting_in_the_table_is_a_parameter_of_the_call():
    for row in ACCELERATORS:
        names = set(row.settings).union(*row.by_phases.values())
        assert names <= set(PARAMETERS), row.name
        assert row.settings["guidance_scale"] == 1


def test_a_distilled_lora_brings_steps_guidance_solver_shift_and_a_line_for_the_log():
    settings, note = settings_for(["style.safetensors", LIGHTX2V], "0.8 1")
    assert settings == {
        "num_inference_steps": 4, "guidance_scale": 1, "guidance2_scale": 1, "guidance3_scale": 1,
        "sample_solver": "euler", "flow_shift": 5,
    }  # fmt: skip
    assert note == (
        f"{LIGHTX2V} recognised as LightX2V self-forcing: 4 steps, guidance 1, solver euler, shift 5 "
        "(values you set are kept)"
    )
    assert recognised([LIGHTX2V]).sigmas == "wan"


@pytest.mark.parametrize(("multiplier", "steps"), [("0.3", 12), ("0.5", 8), ("1", 4), ("0.3,0.9", 4), ("", 4)])
def test_causvid_takes_more_steps_when_it_is_weaker(multiplier, steps):
    assert settings_for([CAUSVID], multiplier)[0]["num_inference_steps"] == steps


def test_accvideo_leaves_the_number_of_steps_alone():
    settings, _ = settings_for(["Wan21_AccVid_T2V_14B_lora_rank32_fp16.safetensors"])
    assert settings["guidance_scale"] == 1 and "num_inference_steps" not in settings


def test_a_pair_for_two_experts_brings_two_phases_and_the_switch():
    settings, note = settings_for([HIGH, LOW], "1;0 0;1")
    assert (settings["guidance_phases"], settings["switch_threshold"], settings["num_inference_steps"]) == (2, 876, 4)
    assert "2 phases, guidance 1 first" in note


def test_three_phases_keep_guidance_in_the_first():
    settings, _ = settings_for([HIGH, LOW], "0;1;0 0;0;1")
    chosen = [
        settings[name] for name in ("guidance_scale", "guidance2_scale", "guidance3_scale", "num_inference_steps")
    ]
    assert chosen == [3.5, 1, 1, 8]
    assert (settings["switch_threshold"], settings["switch_threshold2"], settings["model_switch_phase"]) == (
        965,
        800,
        2,
    )


@pytest.mark.parametrize("multipliers", ["0", "0;0", "0,0.0;-0"])
def test_a_lora_that_is_off_is_not_recognised(multipliers):
    assert recognised([LIGHTX2V], multipliers) is None
    assert settings_for([LIGHTX2V], multipliers) == ({}, None)


def test_an_accelerator_in_one_phase_alone_sets_nothing_and_says_so():
    settings, note = settings_for([HIGH, "style.safetensors"], "0;1 1")
    assert settings == {} and "off in phase 1" in note


def test_of_several_the_strongest_counts():
    accvid = "Wan21_AccVid_T2V_14B_lora_rank32_fp16.safetensors"
    assert recognised([accvid, CAUSVID], "0.5 1").name == "CausVid"
    assert recognised([accvid, CAUSVID], "0.5 0.3").name == "AccVideo"
