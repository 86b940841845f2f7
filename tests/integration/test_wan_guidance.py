"""What each kind of guidance makes of the passes of a step: by numbers, and by the passes that were made."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from engine_runs import picture
from wan_runs import CLIP, Tiny

from Wan2GP.engine.sampling import Sampling
from Wan2GP.engine.wan.guidance import APG_MOMENTUM, APG_NORM, Guidance
from Wan2GP.engine.wan.steps import Step

EULER = {"sample_solver": "euler"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Tiny:
    return Tiny(tmp_path_factory.mktemp("t2v"), "t2v_1.3B")


@pytest.fixture(scope="module")
def vace(tmp_path_factory) -> Tiny:
    return Tiny(tmp_path_factory.mktemp("vace"), "vace_1.3B")


@pytest.fixture(scope="module")
def i2v(tmp_path_factory) -> Tiny:
    return Tiny(tmp_path_factory.mktemp("i2v"), "i2v")


def sampling(**values: Any) -> Sampling:
    return Sampling(num_inference_steps=4, solver="euler", flow_shift=5.0, **values)


def step(index: int = 0, guidance: float = 3.0, total: int = 10) -> Step:
    return Step(index, total, 0.9, 1, guidance, "transformer")


def two(seed: int = 1, scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (1, 4, 3, 5, 6)
    return torch.randn(shape, generator=generator) * scale, torch.randn(shape, generator=generator) * scale


def noise_of(model: Tiny) -> torch.Tensor:
    shape = model.parts.latent_shape(17, 64, 64)
    return torch.randn(shape, generator=torch.Generator().manual_seed(CLIP["seed"]))


# ---- the arithmetic


def test_plain_guidance_extrapolates():
    cond, uncond = two()
    assert torch.equal(Guidance(sampling()).combined(cond, uncond, step()), uncond + 3.0 * (cond - uncond))


def test_cfg_star_scales_the_unconditional_pass_to_what_it_explains():
    cond, uncond = two()
    found = Guidance(sampling(cfg_star=True)).combined(cond, uncond, step())
    c, u = cond.double().numpy().ravel(), uncond.double().numpy().ravel()
    projected = u * (c @ u) / (u @ u)
    assert found.numpy().ravel() == pytest.approx(projected + 3.0 * (c - projected), abs=1e-5)
    assert torch.allclose(Guidance(sampling(cfg_star=True)).combined(cond, 2 * cond, step()), cond, atol=1e-5)


@pytest.mark.parametrize("until", [-1, 0, 2])
def test_cfg_zero_predicts_nothing_up_to_its_step(until):
    guidance = Guidance(sampling(cfg_star=True, cfg_zero_step=until))
    cond, uncond = two()
    silent = [not guidance.combined(cond, uncond, step(index)).any() for index in range(5)]
    assert silent == [index <= until for index in range(5)]


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_the_first_step_of_apg_is_what_its_paper_says(scale):
    cond, uncond = two(scale=scale)
    found = Guidance(sampling(apg=True)).combined(cond, uncond, step()).double().numpy()
    expected = np.empty_like(found)
    for frame in range(3):
        c, u = (each[0, :, frame].double().numpy().ravel() for each in (cond, uncond))
        change = c - u
        change *= min(1.0, APG_NORM / np.linalg.norm(change))
        across = change - (change @ c) / (c @ c) * c
        expected[0, :, frame] = (c + 2.0 * across).reshape(expected[0, :, frame].shape)
    assert found == pytest.approx(expected, abs=1e-4)


def test_apg_carries_momentum_from_step_to_step():
    guidance, (cond, uncond) = Guidance(sampling(apg=True)), two()
    guidance.combined(cond, uncond, step(0))
    second = guidance.combined(cond, uncond, step(1))
    slower = cond - (1 + APG_MOMENTUM) * (cond - uncond)
    assert torch.allclose(second, Guidance(sampling(apg=True)).combined(cond, slower, step(0)), atol=1e-5)


def test_apg_at_scale_one_is_the_conditional_prediction():
    cond, uncond = two()
    assert torch.equal(Guidance(sampling(apg=True)).combined(cond, uncond, step(guidance=1.0)), cond)


# ---- through the loop


def test_cfg_zero_leaves_the_noise_as_it_is_at_first(tiny):
    latents = tiny.each_step(**EULER, cfg_star_switch=1, cfg_zero_step=1)
    assert torch.equal(latents[0], noise_of(tiny)) and torch.equal(latents[1], noise_of(tiny))
    assert not torch.equal(latents[2], latents[1])


def test_cfg_star_and_apg_change_every_step(tiny):
    plain = tiny.each_step(**EULER)
    for extra in ({"cfg_star_switch": 1}, {"apg_switch": 1}):
        changed = tiny.each_step(**EULER, **extra)
        assert not any(torch.equal(*pair) for pair in zip(plain, changed, strict=True)), extra


def test_one_pass_is_made_without_guidance_and_none_of_it_depends_on_the_negative_prompt(tiny):
    with tiny.watched() as calls:
        first = tiny.latents(guidance_scale=1.0)
    assert len(calls) == CLIP["num_inference_steps"]
    assert torch.equal(first, tiny.latents(guidance_scale=1.0, negative_prompt="a blue square"))


# ---- skipped layers


def test_layers_are_skipped_only_in_the_second_pass_and_only_between_the_two_ends(tiny):
    seen: list[str] = []
    hooks = [
        tiny.parts.transformer.register_forward_pre_hook(lambda *_: seen.append("pass")),
        tiny.parts.transformer.blocks[1].register_forward_pre_hook(lambda *_: seen.append("block")),
    ]
    values = {"slg_switch": 1, "slg_layers": [1], "slg_start_perc": 20, "slg_end_perc": 60, "num_inference_steps": 10}
    tiny.latents(**EULER, **values)
    for hook in hooks:
        hook.remove()
    passes = "".join(name[0] for name in seen).replace("pb", "B").replace("p", "-")
    assert passes == "BB" * 2 + "B-" * 4 + "BB" * 4


def test_skipped_layers_change_what_comes_after_the_first_step_that_skips(tiny):
    values = {"slg_switch": 1, "slg_start_perc": 50, "slg_end_perc": 100}
    plain = tiny.each_step(**EULER)
    for name in ("slg", "perturbation"):
        switched = {key.replace("slg", name): value for key, value in values.items()} | {f"{name}_layers": [0]}
        changed = tiny.each_step(**EULER, **switched)
        assert [torch.equal(*pair) for pair in zip(plain, changed, strict=True)] == [True, True, False, False]
    assert torch.equal(plain[-1], tiny.latents(**EULER, **values, slg_layers=[40]))


# ---- NAG


def test_nag_at_scale_one_changes_nothing(tiny):
    plain = tiny.latents(guidance_scale=1.0)
    assert torch.equal(plain, tiny.latents(guidance_scale=1.0, NAG_scale=1.0, NAG_tau=2.0))
    assert torch.equal(plain, tiny.latents(guidance_scale=1.0, NAG_scale=9.0, NAG_alpha=0.0))


@pytest.mark.parametrize("kind", ["tiny", "vace", "i2v"])
def test_nag_lets_the_negative_prompt_act_without_a_second_pass(kind, request):
    model = request.getfixturevalue(kind)
    values: dict[str, Any] = {"guidance_scale": 1.0, "NAG_scale": 6.0}
    if kind == "i2v":
        values["image_start"] = picture(1, 64, 64)
    processors = dict(model.parts.transformer.attn_processors)
    with model.watched() as calls:
        ring = model.latents(**values)
    square = model.latents(**values, negative_prompt="a blue square")
    assert len(calls) == CLIP["num_inference_steps"]
    assert (ring - square).abs().max() > 1e-4
    assert torch.equal(model.latents(**values), ring)
    assert model.parts.transformer.attn_processors == processors
    plain = model.latents(**{**values, "NAG_scale": 1.0})
    assert (ring - plain).abs().max() > 1e-4


def test_nag_against_the_same_prompt_is_the_plain_prediction(tiny):
    values = {"guidance_scale": 1.0, "negative_prompt": CLIP["prompt"]}
    plain, against = tiny.latents(**values), tiny.latents(**values, NAG_scale=6.0)
    assert (plain - against).abs().max() < 1e-4


def test_nag_is_bounded_by_tau(tiny):
    """One cross-attention by hand."""
    from Wan2GP.engine.wan.guidance import negative_attention

    transformer = tiny.parts.transformer
    attention = transformer.blocks[0].attn2
    generator = torch.Generator().manual_seed(0)
    hidden, prompt, against = (torch.randn(1, count, 24, generator=generator) for count in (7, 5, 5))
    plain = sampling(nag_scale=6.0, nag_tau=1.2, nag_alpha=0.4)
    identity = torch.nn.ModuleList([torch.nn.Identity(), torch.nn.Identity()])
    projection, attention.to_out = attention.to_out, identity
    positive, negative = attention(hidden, prompt), attention(hidden, against)
    attention.to_out = projection
    with torch.no_grad(), negative_attention(transformer, against, plain):
        found = attention(hidden, prompt)
    far = 6.0 * positive - 5.0 * negative
    ratio = far.abs().sum(-1, keepdim=True) / positive.abs().sum(-1, keepdim=True)
    far = torch.where(ratio > 1.2, far * 1.2 / ratio, far)
    expected = projection[0](0.4 * far + 0.6 * positive)
    assert (found - expected).abs().max() < 1e-5
    assert attention.to_out is projection
