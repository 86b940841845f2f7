"""The second pass of Qwen-Image: its size, its steps, its noise, its LoRAs, and what a mask keeps through it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_runs import picture
from qwen_runs import STILL, Asked, Tiny, tiny_models
from tiny_qwen import lora_file

from Wan2GP.engine.qwen.schedule import levels
from Wan2GP.engine.stock.hires import METHODS, enlarged, hires_of, noised
from Wan2GP.errors import InvalidInput

TWICE: dict[str, Any] = {"hires_scale": 2, "hires_steps": 3, "hires_denoise": 0.5, "guidance_scale": 1.0}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Tiny:
    return tiny_models(tmp_path_factory)("qwen_image_20B")


def asked(model: Tiny, **values: Any) -> list[Asked]:
    with model.watched() as calls:
        model.latents(**values)
    return calls


@pytest.mark.parametrize(
    "resolution, scale, made",
    [("64x64", 2, (128, 128)), ("64x48", 1.5, (96, 64)), ("80x64", 1.25, (96, 80)), ("64x64", 1.1, (64, 64))],
)
def test_the_result_has_the_first_size_times_the_scale_floored_to_whole_tokens(tiny, resolution, scale, made):
    still = tiny.frames(**TWICE | {"resolution": resolution, "hires_scale": scale})[0]
    assert (still.shape[1], still.shape[0]) == made
    assert still.std() > 10


def test_a_scale_of_one_is_a_single_pass(tiny):
    assert hires_of(tiny.request(hires_scale=1, hires_steps=3)) is None
    assert torch.equal(tiny.latents(hires_scale=1, hires_steps=3), tiny.latents())


@pytest.mark.parametrize("steps, denoise, schedule", [(3, 0.5, 6), (3, 1.0, 3), (2, 0.3, 7), (3, 0.1, 30), (1, 0.9, 2)])
def test_the_second_pass_runs_exactly_its_steps_the_last_of_a_longer_schedule(tiny, steps, denoise, schedule):
    calls = asked(tiny, **TWICE | {"hires_steps": steps, "hires_denoise": denoise})
    first, second = calls[:4], calls[4:]
    assert {call.tokens for call in first} == {16} and {call.tokens for call in second} == {64}
    assert len(second) == steps
    expected = levels(tiny.pipeline.scheduler, "default", schedule, 64)[-steps - 1 : -1]
    assert [call.timestep for call in second] == pytest.approx(expected.tolist())


def test_the_second_pass_is_the_first_picture_enlarged_with_the_noise_of_the_next_seed(tiny):
    """Run by hand: the same latents as a single pass from the same start."""
    first = tiny.latents(guidance_scale=1.0)
    larger = enlarged(first, (16, 16), "bicubic")
    noise = torch.randn((1, 4, 16, 16), generator=torch.Generator().manual_seed(STILL["seed"] + 1))
    schedule = levels(tiny.pipeline.scheduler, "default", 6, 64)[-4:]
    request = tiny.request(guidance_scale=1.0)
    start, conditions = noised(larger, noise, float(schedule[0])), tiny.model.conditions(request)
    from Wan2GP.engine.qwen.loop import denoise

    by_hand = denoise(tiny.pipeline.transformer, start, noise, schedule, conditions, None, lambda _: None)
    assert torch.equal(tiny.latents(**TWICE), by_hand)


@pytest.mark.parametrize("solver", ["default", "lightning"])
def test_both_passes_have_the_schedule_of_the_solver(tiny, solver):
    calls = asked(tiny, **TWICE | {"sample_solver": solver})
    expected = [
        *levels(tiny.pipeline.scheduler, solver, 4, 16)[:-1],
        *levels(tiny.pipeline.scheduler, solver, 6, 64)[3:-1],
    ]
    assert [call.timestep for call in calls] == pytest.approx([float(each) for each in expected])


@pytest.mark.parametrize("method", METHODS)
def test_every_way_of_enlarging_makes_a_picture_of_its_own(tiny, method):
    made = tiny.latents(**TWICE | {"hires_upscale_method": method})
    others = [tiny.latents(**TWICE | {"hires_upscale_method": other}) for other in METHODS if other != method]
    # Enlarged by 2, an area is its nearest pixel.
    same = sum(torch.equal(made, other) for other in others)
    assert same == (1 if method in ("nearest", "area") else 0)


def test_enlarging_keeps_flat_latents_and_channels_apart():
    flat = torch.full((1, 2, 4, 6), 0.5)
    flat[:, 1] = -1
    for method in METHODS:
        made = enlarged(flat, (8, 12), method)
        assert made.shape == (1, 2, 8, 12)
        assert torch.allclose(made[:, 0], torch.tensor(0.5)) and torch.allclose(made[:, 1], torch.tensor(-1.0))


def test_progress_counts_both_passes(tiny):
    seen: list[tuple[str, int, int]] = []
    from Wan2GP.engine.families import Cancel

    request = tiny.request(**TWICE)
    list(tiny.model.generate(request, lambda *each: seen.append(each), Cancel(lambda: False)))
    assert [each for each in seen if each[0] == "denoising"] == [("denoising", step, 7) for step in range(8)]


def test_a_lora_has_its_second_multiplier_in_the_second_pass(tiny, tmp_path: Path):
    lora = lora_file(tmp_path / "mine.safetensors", tiny.pipeline.transformer)
    own = tiny.pipeline.transformer.transformer_blocks[0].attn.to_q.weight.clone()
    delta = asked(tiny, activated_loras=[str(lora)], guidance_scale=1.0)[0].weight - own
    calls = asked(tiny, **TWICE, activated_loras=[str(lora)], loras_multipliers="0.85;0")
    for call in calls[:4]:
        assert torch.allclose(call.weight, own + 0.85 * delta, atol=1e-6)
    assert all(torch.equal(call.weight, own) for call in calls[4:])
    calls = asked(tiny, **TWICE, activated_loras=[str(lora)], loras_multipliers="0;1,0.5,0")
    assert all(torch.equal(call.weight, own) for call in [*calls[:4], calls[6]])
    assert torch.allclose(calls[5].weight, own + 0.5 * delta, atol=1e-6)
    assert torch.equal(tiny.pipeline.transformer.transformer_blocks[0].attn.to_q.weight, own)


def test_the_picture_to_go_by_is_shown_in_both_passes(tmp_path_factory):
    model = tiny_models(tmp_path_factory)("qwen_image_edit_20B")
    calls = asked(model, **TWICE, image_refs=[picture(3)])
    assert [call.tokens for call in calls] == [16 + 16] * 4 + [64 + 16] * 3


def test_what_a_mask_keeps_is_kept_at_the_larger_size(tiny):
    guide, mask = picture(2, 128, 128), np.zeros((128, 128, 3), np.uint8)
    mask[32:96, 32:80] = 255
    still = tiny.frames(**TWICE, image_guide=guide, image_mask=mask)[0]
    outside = mask[..., 0] == 0
    assert still.shape == (128, 128, 3)
    assert np.array_equal(still[outside], guide[outside])
    assert np.abs(still[~outside].astype(int) - guide[~outside]).mean() > 5


@pytest.mark.parametrize(
    "values, message",
    [
        ({"hires_scale": 0.5}, "hires_scale: must be from 1 to 4"),
        ({"hires_scale": 2, "hires_steps": 0}, "hires_steps"),
        ({"hires_scale": 2, "hires_denoise": 0}, "hires_denoise"),
        ({"hires_scale": 2, "hires_upscale_method": "lanczos"}, "hires_upscale_method.*nearest, bilinear"),
        ({"hires_scale": 4, "resolution": "1280x720"}, "hires_scale: 4 makes 5120x2880.*4096"),
        ({"activated_loras": ["mine.safetensors"], "loras_multipliers": "1;0"}, "loras_multipliers.*2 phases"),
    ],
)
def test_values_that_make_no_second_pass_are_refused(tiny, values, message):
    lora_file(tiny.folder / "qwen" / "mine.safetensors", tiny.pipeline.transformer)
    with pytest.raises(InvalidInput, match=message):
        tiny.request(**values)


def test_a_schedule_is_as_long_as_its_share_of_noise_asks_for(tiny):
    wanted = hires_of(tiny.request(hires_scale=1.5, hires_steps=6, hires_denoise=0.7))
    assert wanted is not None and wanted.schedule_steps == math.ceil(6 / 0.7) and wanted.size == (96, 96)
