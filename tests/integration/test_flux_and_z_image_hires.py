"""The second pass of FLUX, Kontext and Z-Image, against the same two calls of diffusers' own pipelines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_runs import picture, run_engine
from PIL import Image
from stock_runs import TinyWeights
from tiny_flux import tiny_flux, tiny_kontext, tiny_z_image
from tiny_qwen import lora_file

from Wan2GP import wgp
from Wan2GP.engine.stock.hires import enlarged, first_level, hires_of, noised
from Wan2GP.engine.stock.tokens import packed, unpacked
from Wan2GP.errors import InvalidInput, Unsupported
from Wan2GP.media import read_image

BUILDERS = {"flux": tiny_flux, "flux_dev_kontext": tiny_kontext, "z_image": tiny_z_image}
PIPELINES = {"flux": "FluxPipeline", "flux_dev_kontext": "FluxKontextPipeline", "z_image": "ZImagePipeline"}
CALL = {"prompt": "a red circle", "resolution": "96x64", "num_inference_steps": 3, "seed": 5}
TWICE = {"hires_scale": 1.5, "hires_steps": 2, "hires_denoise": 0.4}
GIVEN = picture(3, 96, 64)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> TinyWeights:
    return TinyWeights(BUILDERS, lambda name: tmp_path_factory.mktemp(name))


@pytest.fixture
def engine(weights, tmp_path: Path):
    with weights.under(tmp_path / "rows", *BUILDERS):
        yield


def call(name: str, **values: Any) -> dict[str, Any]:
    shown = {"image_refs": [GIVEN]} if name == "flux_dev_kontext" else {}
    return {"model_type": name, **CALL, **shown, **values}


def given_to(name: str, width: int, height: int) -> dict[str, Any]:
    """What a stock pipeline is told beside its latents."""
    if name == "z_image":
        return {"guidance_scale": 0.0}
    told: dict[str, Any] = {"guidance_scale": 2.5}
    if name == "flux_dev_kontext":
        shown = Image.fromarray(GIVEN).resize((width, height), Image.Resampling.LANCZOS)
        told |= {"image": shown, "max_area": width * height, "_auto_resize": False}
    return told


@pytest.mark.parametrize("name", BUILDERS)
def test_two_passes_are_two_calls_of_the_stock_pipeline(engine, weights, name: str):
    import diffusers

    pipeline = getattr(diffusers, PIPELINES[name]).from_pretrained(weights.of(name))
    pipeline.set_progress_bar_config(disable=True)
    cell = pipeline.vae_scale_factor
    common = {"prompt": CALL["prompt"]}
    first = pipeline(
        **common, **given_to(name, 96, 64), width=96, height=64, num_inference_steps=3, output_type="latent",
        generator=torch.Generator().manual_seed(5),
    ).images  # fmt: skip
    channels = first if name == "z_image" else unpacked(first, (64 // cell, 96 // cell))
    larger = enlarged(channels, (96 // cell, 144 // cell), "bicubic")
    noise = torch.randn(larger.shape, generator=torch.Generator().manual_seed(6))
    # Of 5 evenly spaced levels the last 2, moved as the pipeline moves them.
    sigmas = [0.4, 0.2]
    pipeline.scheduler.set_timesteps(sigmas=sigmas, mu=shift_of(pipeline, larger))
    start = noised(larger, noise, float(pipeline.scheduler.sigmas[0]))
    theirs = pipeline(
        **common, **given_to(name, 144, 96), width=144, height=96, num_inference_steps=2, output_type="np",
        latents=start if name == "z_image" else packed(start), sigmas=sigmas,
    ).images[0]  # fmt: skip

    run = run_engine(**call(name, **TWICE, embedded_guidance_scale=2.5))
    assert run.returned and run.data("error") == []
    ours = read_image(run.files[0])
    assert ours.shape == (96, 144, 3) and ours.std() > 10
    assert np.abs(ours.astype(int) - np.rint(theirs * 255)).max() <= 2
    steps = [where for where, phase, _ in run.data("progress") if phase == "denoising"]
    assert steps == [(0, 5), (1, 5), (2, 5), (3, 5), (3, 5), (4, 5), (5, 5)]


def shift_of(pipeline: Any, latents: torch.Tensor) -> float:
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift

    config, tokens = pipeline.scheduler.config, latents.shape[2] // 2 * (latents.shape[3] // 2)
    names = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")
    return float(calculate_shift(tokens, *(config[name] for name in names)))


@pytest.mark.parametrize("name", BUILDERS)
def test_the_first_level_is_the_one_that_the_pipeline_runs(engine, name: str):
    """After a run the pipeline's scheduler holds the levels of its last call."""
    run_engine(**call(name, **TWICE))
    model: Any = wgp.wan_model
    request = wgp._parsed(call(name, **TWICE))
    wanted = hires_of(request)
    assert wanted is not None and wanted.size == (144, 96) and wanted.sigmas == pytest.approx([0.4, 0.2])
    cell = model._pipeline.vae_scale_factor
    tokens = (96 // cell // 2) * (144 // cell // 2)
    levels = model._pipeline.scheduler.sigmas
    assert len(levels) == 3 and float(levels[0]) == first_level(model._pipeline.scheduler, wanted, tokens)


@pytest.mark.parametrize("values", [{"image_guide": GIVEN}, {"image_guide": GIVEN, "image_mask": GIVEN}])
def test_a_given_image_is_drawn_anew_in_one_pass(engine, values):
    with pytest.raises(Unsupported, match="hires_scale"):
        wgp.check_generation(**call("flux", **TWICE, **values))


def test_a_batch_in_two_passes_is_each_still_of_its_own(engine):
    run = run_engine(**call("z_image", **TWICE, batch_size=2))
    batch = [read_image(file) for file in run.files]
    alone = [read_image(run_engine(**call("z_image", **TWICE, seed=seed)).files[0]) for seed in (5, 6)]
    assert np.array_equal(batch, alone) and not np.array_equal(*alone)


@pytest.mark.parametrize(
    ("done", "factor"), [({"film_grain_intensity": 0.5}, 1), ({"spatial_upsampling": "lanczos2"}, 2)]
)
def test_what_is_done_to_frames_is_done_to_those_of_the_second_pass(engine, done: dict[str, Any], factor: int):
    plain, finished = (read_image(run_engine(**call("z_image", **TWICE, **each)).files[0]) for each in ({}, done))
    assert finished.shape[:2] == (plain.shape[0] * factor, plain.shape[1] * factor)
    assert not np.array_equal(plain, finished)


def test_a_result_that_both_make_too_large_is_refused_at_once(engine):
    values = {"resolution": "1024x1024", "hires_scale": 4}
    wgp.check_generation(**call("z_image") | values)
    with pytest.raises(InvalidInput, match="spatial_upsampling: would make 16384x16384 of 4096x4096"):
        wgp.check_generation(**call("z_image") | values, spatial_upsampling="lanczos4")


def test_loras_of_a_batch_begin_anew_with_each_still_and_have_their_second_multiplier_in_the_second_pass(
    engine, tmp_path: Path
):
    model: Any = wgp.load_models("flux")[0]
    lora = str(lora_file(tmp_path / "mine.safetensors", model._pipeline.transformer))
    falling = {"activated_loras": [lora], "loras_multipliers": "1,0"}
    batch = [read_image(file) for file in run_engine(**call("flux", **falling, batch_size=2)).files]
    for still, seed in zip(batch, (5, 6), strict=True):
        assert np.array_equal(still, read_image(run_engine(**call("flux", **falling, seed=seed)).files[0]))

    layer, seen = model._pipeline.transformer.transformer_blocks[0].attn.to_q, []
    own = layer.weight.clone()
    hook = model._pipeline.transformer.register_forward_pre_hook(
        lambda *_: seen.append(float((layer.weight - own).abs().max()))
    )
    try:
        run_engine(**call("flux", **TWICE, **falling | {"loras_multipliers": "0.5;1"}))
    finally:
        hook.remove()
    assert seen[:3] == pytest.approx([seen[3] / 2] * 3) and seen[3] == seen[4] > 0
    assert torch.equal(layer.weight, own)
