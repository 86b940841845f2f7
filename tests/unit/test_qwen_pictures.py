"""Sizes of the pictures that Qwen-Image models are shown, their noise levels, and the form of their prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_runs import picture

from Wan2GP.definitions import load_definitions
from Wan2GP.engine.qwen.model import QwenImageEdit, QwenImageEditPlus
from Wan2GP.engine.qwen.pictures import SEEN_AREA, VAE_AREA, drawn, shown, with_kept
from Wan2GP.engine.qwen.schedule import given_levels, levels
from Wan2GP.engine.qwen.text import about_a_picture, about_pictures, about_words
from Wan2GP.engine.request import GenerationRequest, parse_request

SHAPES = [(64, 48), (100, 100), (1920, 1080), (300, 1000), (33, 1000), (1, 150)]


def request(**values: Any) -> GenerationRequest:
    definition = load_definitions()["qwen_image_edit_20B"]
    return parse_request({"prompt": "x", **values}, definition, QwenImageEdit.reads, Path())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seen", [VAE_AREA, SEEN_AREA])
def test_pictures_for_real_results_have_the_sizes_of_the_published_pipelines(shape, seen):
    from diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus import calculate_dimensions

    width, height = shape
    made = shown(request(resolution="256x256", image_refs=[picture(1, width, height)]), seen)[0]
    for ours, area in ((made.seen, seen), (made.encoded, VAE_AREA)):
        theirs = [max(32, side) for side in calculate_dimensions(area, width / height)]
        assert [ours.shape[1], ours.shape[0]] == theirs
    assert QwenImageEdit.seen_area == VAE_AREA and QwenImageEditPlus.seen_area == SEEN_AREA


def test_pictures_for_small_results_are_as_small():
    made = shown(request(resolution="64x64", image_refs=[picture(1, 1000, 1000)]), SEEN_AREA)[0]
    assert made.seen.shape == made.encoded.shape == (64, 64, 3)


def test_the_control_image_is_the_first_picture():
    guide, reference = picture(1), picture(2)
    made = shown(request(resolution="64x48", image_guide=guide, image_refs=[reference]), VAE_AREA)
    alone = shown(request(resolution="64x48", image_refs=[guide]), VAE_AREA)
    assert len(made) == 2 and np.array_equal(made[0].encoded, alone[0].encoded)


SMALL = (16, 16)


def masked(**values: Any) -> GenerationRequest:
    mask = np.zeros((16, 16, 3), np.uint8)
    mask[4:8, 4:8] = 200
    return request(resolution="16x16", image_guide=picture(2, 16, 16), image_mask=mask, **values)


def test_a_mask_draws_its_white_grown_inverted_or_as_it_is():
    plain = drawn(masked(), SMALL)
    assert plain.sum() == 16 and plain[4:8, 4:8].all()
    assert np.array_equal(drawn(masked(video_prompt_type="VAN"), SMALL), ~plain)
    grown = drawn(masked(mask_expand=2), SMALL)
    assert grown[6, 2:10].all() and not grown[6, :2].any() and not grown[6, 10:].any()


def test_a_mask_grows_by_pixels_of_the_request_whatever_the_size_it_is_used_at():
    twice = drawn(masked(mask_expand=2), (32, 32))
    assert twice[12, 4:20].all() and not twice[12, :4].any() and not twice[12, 20:].any()


def test_what_a_mask_keeps_is_the_control_image_bit_for_bit():
    made, asked = picture(1, 16, 16), masked()
    both = with_kept(made, asked)
    assert asked.image_guide is not None and np.array_equal(both[4:8, 4:8], made[4:8, 4:8])
    outside = ~drawn(asked, SMALL)
    assert np.array_equal(both[outside], asked.image_guide[outside])


@pytest.fixture
def scheduler():
    from diffusers import FlowMatchEulerDiscreteScheduler
    from tiny_qwen import SCHEDULER

    return FlowMatchEulerDiscreteScheduler(**SCHEDULER)


def test_lightning_levels_are_shifted_by_three_whatever_the_size(scheduler):
    expected = [3 * s / (1 + 2 * s) for s in (1, 0.75, 0.5, 0.25)]
    for tokens in (16, 4096):
        assert levels(scheduler, "lightning", 4, tokens).tolist() == pytest.approx([*expected, 0], abs=1e-6)


def test_default_levels_end_at_the_schedulers_last_and_shift_with_the_size(scheduler):
    small, large = (levels(scheduler, "default", 8, tokens) for tokens in (256, 8192))
    assert small[0] == large[0] == 1 and small[-1] == large[-1] == 0
    assert float(small[-2]) == pytest.approx(0.02) and float(large[-2]) == pytest.approx(0.02)
    assert large[4] > small[4]


def test_a_single_step_goes_from_noise_to_the_picture(scheduler):
    assert levels(scheduler, "default", 1, 256).tolist() == [1, 0]
    assert given_levels((1.0, 0.5)).tolist() == [1, 0.5, 0]


@pytest.mark.parametrize("chat", [about_words(), about_a_picture(), about_pictures()])
def test_a_role_replaces_the_system_message_alone(chat):
    own, lead = chat.texts("a cat", "", 1)
    given, shorter = chat.texts("a cat", "You paint signs.", 1)
    assert own.startswith(lead) and given.startswith(shorter)
    assert own[len(lead) :] == given[len(shorter) :]
    assert shorter == "<|im_start|>system\nYou paint signs.<|im_end|>\n<|im_start|>user\n"
    assert own.endswith("a cat<|im_end|>\n<|im_start|>assistant\n")


def test_pictures_are_numbered_before_the_prompt():
    text, lead = about_pictures().texts("a cat", "", 2)
    place = "<|vision_start|><|image_pad|><|vision_end|>"
    assert text[len(lead) :].startswith(f"Picture 1: {place}Picture 2: {place}a cat<|im_end|>")
    text, lead = about_a_picture().texts("a cat", "", 1)
    assert text[len(lead) :].startswith(f"{place}a cat<|im_end|>")


def test_marks_of_a_chat_in_a_prompt_or_role_are_left_out():
    text, _ = about_words().texts("a <|im_end|>cat {} {0}", "<|im_start|>You", 0)
    assert text.count("<|im_end|>") == 2 and "a cat {} {0}" in text and "system\nYou<" in text
    assert " <|im_end|>" in about_words().texts("", "", 0)[0]
