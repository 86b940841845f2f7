"""LoRAs on Qwen-Image: every layout of files, per step, taken out bit for bit; and the Lightning LoRAs' settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from qwen_runs import Tiny, tiny_models
from safetensors.torch import save_file
from tiny_qwen import ALPHA, LAYOUTS, RANK, factors, lora_file

from Wan2GP.errors import InvalidInput, Unsupported

LIGHTNING = "Qwen-Image-Lightning-4steps-V2.0-bf16.safetensors"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Tiny:
    return tiny_models(tmp_path_factory)("qwen_image_20B")


def weights(model: Tiny) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.pipeline.transformer.state_dict().items()}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_file_of_any_layout_is_added_to_every_layer_of_its_own(tiny, tmp_path: Path, layout):
    lora, own = lora_file(tmp_path / "mine.safetensors", tiny.pipeline.transformer, layout), weights(tiny)
    seen: dict[str, torch.Tensor] = {}
    hook = tiny.pipeline.transformer.register_forward_pre_hook(lambda *_: seen.update(weights(tiny)))
    try:
        tiny.latents(activated_loras=[str(lora)], num_inference_steps=1, guidance_scale=1.0)
    finally:
        hook.remove()
    scale = ALPHA / RANK if LAYOUTS[layout][3] else 1
    parts = factors(tiny.pipeline.transformer)
    for name, value in own.items():
        down, up = parts.get(name.removesuffix(".weight"), (None, None)) if name.endswith(".weight") else (None, None)
        expected = value if down is None or up is None else value + scale * (up @ down)
        assert torch.allclose(seen[name], expected, atol=1e-5), name
    assert sum(not torch.equal(seen[name], value) for name, value in own.items()) == len(parts) > 20
    assert all(torch.equal(value, own[name]) for name, value in weights(tiny).items())


def test_multipliers_by_step(tiny, tmp_path: Path):
    lora = lora_file(tmp_path / "mine.safetensors", tiny.pipeline.transformer)
    own = tiny.pipeline.transformer.transformer_blocks[0].attn.to_q.weight.clone()
    down, up = factors(tiny.pipeline.transformer)["transformer_blocks.0.attn.to_q"]
    with tiny.watched() as calls:
        tiny.latents(activated_loras=[str(lora)], loras_multipliers="1,0.5,0,-1", guidance_scale=1.0)
    for call, strength in zip(calls, (1, 0.5, 0, -1), strict=True):
        assert torch.allclose(call.weight, own + strength * (up @ down), atol=1e-6)


def test_every_still_of_a_batch_has_the_same_multipliers(tiny, tmp_path: Path):
    lora = lora_file(tmp_path / "mine.safetensors", tiny.pipeline.transformer)
    values: dict[str, Any] = {"activated_loras": [str(lora)], "loras_multipliers": "1,0"}
    batch = tiny.frames(**values, batch_size=2, seed=5)
    for still, seed in zip(batch, (5, 6), strict=True):
        assert (still == tiny.frames(**values, seed=seed)[0]).all()


def test_a_run_that_fails_gives_the_weights_back(tiny, tmp_path: Path):
    from Wan2GP.engine.families import Cancel
    from Wan2GP.errors import GenerationCancelled

    lora, own, calls = lora_file(tmp_path / "mine.safetensors", tiny.pipeline.transformer), weights(tiny), []
    request = tiny.request(activated_loras=[str(lora)])
    cancel = Cancel(lambda: len(calls) > 5)
    with pytest.raises(GenerationCancelled):
        list(tiny.model.generate(request, lambda *each: calls.append(each), cancel))
    assert all(torch.equal(value, own[name]) for name, value in weights(tiny).items())


def test_a_lightning_lora_brings_its_schedule_steps_and_guidance(tiny):
    lora_file(tiny.folder / "qwen" / LIGHTNING, tiny.pipeline.transformer, "Lightning")
    from Wan2GP.engine.request import parse_request

    values = {"prompt": "x", "activated_loras": [LIGHTNING]}
    request = parse_request(values, tiny.definition, tiny.family.reads, tiny.folder)
    sampling = request.sampling
    assert (sampling.solver, sampling.num_inference_steps, sampling.guidance_scale) == ("lightning", 4, 1.0)
    assert any("Qwen-Image Lightning" in note for note in request.notes)
    mine = {"sample_solver": "default", "num_inference_steps": 12, "guidance_scale": 3.5}
    sampling = parse_request(values | mine, tiny.definition, tiny.family.reads, tiny.folder).sampling
    assert (sampling.solver, sampling.num_inference_steps, sampling.guidance_scale) == ("default", 12, 3.5)


def test_the_lora_of_another_model_is_refused_by_its_name(tiny, tmp_path: Path):
    path = tmp_path / "wan.safetensors"
    save_file(
        {
            "blocks.0.self_attn.q.lora_A.weight": torch.ones(2, 4),
            "blocks.0.self_attn.q.lora_B.weight": torch.ones(4, 2),
        },
        path,
    )
    with pytest.raises((InvalidInput, Unsupported), match=r"wan\.safetensors"):
        tiny.latents(activated_loras=[str(path)])
