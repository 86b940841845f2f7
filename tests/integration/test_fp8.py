"""Linear layers in 8 bits: what they compute, what they are read from, LoRAs beside them, where they are refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_loras
import torch
from safetensors.torch import save_file
from tiny_models import tiny_wan_vace
from wan_runs import tiny_definition

from Wan2GP.engine.families import Place
from Wan2GP.engine.lora.merging import LoraSet
from Wan2GP.engine.residency.placement import stream_through
from Wan2GP.engine.residency.standby import Standby, num_bytes, tensors_of
from Wan2GP.engine.speed.compiling import compile_blocks
from Wan2GP.engine.speed.fp8 import IN_16_BITS, IN_FP8, Fp8Choice, Timed, check_fp8, in_fp8, working_layers
from Wan2GP.engine.wan.loading import load_parts
from Wan2GP.errors import ModelUnavailable, Unsupported
from Wan2GP.weights.fp8 import E4M3, Fp8Linear, quantised
from Wan2GP.weights.transformers import transformer_from_files

CPU = torch.device("cpu")
#: the kernels take sides that are multiples of 16
DIM, FFN = 64, 128
CONFIG: dict[str, Any] = {
    "patch_size": (1, 2, 2), "num_attention_heads": 2, "attention_head_dim": 32, "in_channels": 16, "out_channels": 16,
    "text_dim": 32, "freq_dim": 32, "ffn_dim": FFN, "num_layers": 2, "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads", "rope_max_seq_len": 32,
}  # fmt: skip


@pytest.fixture(scope="module")
def plain() -> torch.nn.Module:
    from diffusers import WanTransformer3DModel

    torch.manual_seed(0)
    return WanTransformer3DModel(**CONFIG).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def file(plain: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "plain.safetensors"
    save_file(plain.state_dict(), path)
    return path


@pytest.fixture
def small(file: Path) -> Iterator[torch.nn.Module]:
    """The same model in 8 bits."""
    return read(file)


def read(path: Path, fp8: bool = True) -> Any:
    from diffusers import WanTransformer3DModel

    chosen = working_layers if fp8 else None
    return transformer_from_files([path], config=CONFIG, cls=WanTransformer3DModel, dtype=torch.float32, in_fp8=chosen)


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_is_its_numbers_in_8_bits_times_its_scale(dtype: torch.dtype) -> None:
    rows = torch.randn(5, 64, generator=torch.Generator().manual_seed(0)).mul(
        torch.tensor([[1e-3], [1], [300], [0], [7]])
    )
    data, scale = quantised(rows.to(dtype))
    back = data.float() * scale
    assert (data.dtype, scale.shape, scale.dtype) == (E4M3, (5, 1), torch.float32)
    # Half a step of 3 bits of mantissa; below its smallest normal number half of its smallest step.
    bound = torch.maximum(rows.abs() / 16, scale * 2**-10) * (1.01 if dtype == torch.float32 else 1.1)
    assert bool(((back - rows).abs() <= bound + 1e-12).all())


def test_a_layer_computes_the_product_of_its_8_bit_factors() -> None:
    torch.manual_seed(0)
    linear = torch.nn.Linear(DIM, FFN).requires_grad_(False)
    layer, rows = in_fp8(linear), torch.randn(2, 7, DIM)
    data, scale = quantised(rows)
    weight = layer.weight.float() * layer.scale.t()
    expected = (data.float() * scale) @ weight.t() + linear.bias
    assert error(layer(rows), expected) < 1e-6
    assert 0.005 < error(layer(rows), linear(rows)) < 0.06


def test_a_transformer_computes_about_the_same_in_8_bits(plain: torch.nn.Module, small: torch.nn.Module) -> None:
    layers = [each for each in small.modules() if isinstance(each, Fp8Linear)]
    assert len(layers) == 2 * 8  # of two blocks: queries, keys, values and results of the one attention …
    assert {type(small.get_submodule(f"blocks.0.attn2.{name}")) for name in ("to_k", "to_v")} == {torch.nn.Linear}
    assert 0.001 < error(tiny_loras.predict(small), tiny_loras.predict(plain)) < 0.1


def test_the_memory_of_8_bits_is_counted_and_their_layers_stand_by(
    small: torch.nn.Module, plain: torch.nn.Module
) -> None:
    sizes = {name: layer.weight.numel() for name, layer in working_layers(plain).items()}
    scales = sum(4 * layer.out_features for layer in working_layers(plain).values())
    saved = num_bytes(tensors_of(plain)) - num_bytes(tensors_of(small))
    assert saved == 3 * sum(sizes.values()) - scales
    before = tiny_loras.predict(small)
    standby = Standby(small, CPU, apart=True)
    standby.bring(ahead=True)
    assert torch.equal(tiny_loras.predict(small), before)
    standby.park()
    standby.bring()
    assert torch.equal(tiny_loras.predict(small), before)


def test_layers_in_8_bits_come_one_by_one_with_a_lora_beside_them(small: torch.nn.Module, tmp_path: Path) -> None:
    lora = write_lora(small, tmp_path)
    with LoraSet({"transformer": small}, [lora], [(1.0,)]) as loras:
        loras.at_step(0)
        whole = tiny_loras.predict(small)
    stream_through(small, CPU, overlapped=False, pinned=False)
    with LoraSet({"transformer": small}, [lora], [(1.0,)]) as loras:
        loras.at_step(0)
        assert torch.equal(tiny_loras.predict(small), whole)


@pytest.mark.slow
def test_compiled_blocks_in_8_bits_compute_the_same(small: torch.nn.Module, tmp_path: Path) -> None:
    before = tiny_loras.predict(small)
    compile_blocks(small, tmp_path, backend="eager")
    assert torch.equal(tiny_loras.predict(small), before)


# ---- files that hold 8 bits already


@pytest.mark.parametrize("per_row", [False, True], ids=["one scale", "one scale a row"])
def test_a_file_of_scaled_8_bits_is_taken_as_it_is(plain: torch.nn.Module, tmp_path: Path, per_row: bool) -> None:
    tensors = dict(plain.state_dict())
    for name in working_layers(plain):
        weight = tensors[f"{name}.weight"]
        scale = weight.abs().amax(1, keepdim=True) / 448 if per_row else weight.abs().max() / 448
        tensors |= {f"{name}.weight": (weight / scale).to(E4M3), f"{name}.scale_weight": scale.reshape(-1)}
    save_file(tensors | {"scaled_fp8": torch.empty(2).to(E4M3)}, tmp_path / "scaled.safetensors")
    found = read(tmp_path / "scaled.safetensors")
    for name in working_layers(plain):
        layer = found.get_submodule(name)
        assert torch.equal(layer.weight.view(torch.uint8), tensors[f"{name}.weight"].view(torch.uint8))
        assert torch.equal(layer.scale[0], tensors[f"{name}.scale_weight"].expand(layer.out_features))
    wide = read(tmp_path / "scaled.safetensors", fp8=False)
    assert error(tiny_loras.predict(found), tiny_loras.predict(wide)) < 0.1


def test_a_file_of_8_bits_without_scales_is_taken_as_it_is(plain: torch.nn.Module, tmp_path: Path) -> None:
    tensors = {k: v.to(E4M3) if v.dim() == 2 else v for k, v in plain.state_dict().items()}
    save_file(tensors, tmp_path / "plain.safetensors")
    layer = read(tmp_path / "plain.safetensors").blocks[0].ffn.net[2]
    assert torch.equal(layer.weight.view(torch.uint8), tensors["blocks.0.ffn.net.2.weight"].view(torch.uint8))
    assert bool((layer.scale == 1).all())


# ---- LoRAs


def write_lora(model: torch.nn.Module, folder: Path, strength: float = 1.0, name: str = "mine.safetensors") -> Path:
    factors = tiny_loras.factors(model, tiny_loras.linears(model))
    factors = {layer: (down, up * strength) for layer, (down, up) in factors.items()}
    return tiny_loras.write(folder, tiny_loras.LAYOUTS["diffusers"](factors), name)


def test_a_weak_lora_acts_on_8_bits_as_it_does_on_whole_numbers(
    plain: torch.nn.Module, small: torch.nn.Module, tmp_path: Path
) -> None:
    """Merged into 8 bits, what is less than half of their step would be rounded away."""
    lora = write_lora(plain, tmp_path, strength=0.01)
    effects = []
    for model in (plain, small):
        before = tiny_loras.predict(model)
        with LoraSet({"transformer": model}, [lora], [(1.0, 0.0)]) as loras:
            loras.at_step(0)
            layer = model.get_submodule("blocks.0.ffn.net.2")
            rows = torch.randn(9, FFN, generator=torch.Generator().manual_seed(1))
            changed = layer(rows)
            loras.at_step(1)
            effects.append(changed - layer(rows))
            assert torch.equal(tiny_loras.predict(model), before)
        assert torch.equal(tiny_loras.predict(model), before)
    assert error(effects[1], effects[0]) < 1e-3


def test_several_loras_stand_beside_8_bits_with_their_multipliers(
    plain: torch.nn.Module, small: torch.nn.Module, tmp_path: Path
) -> None:
    files = [write_lora(plain, tmp_path, strength, f"{strength}.safetensors") for strength in (0.2, 0.5)]
    predictions = []
    for model in (plain, small):
        with LoraSet({"transformer": model}, files, [(1.0, 0.5), (0.3, -1.0)]) as loras:
            loras.at_step(1)
            predictions.append(tiny_loras.predict(model))
    alone = tiny_loras.predict(plain)
    assert error(predictions[1], predictions[0]) < 0.2 * error(alone, predictions[0])


def test_a_lora_that_is_no_product_of_two_small_matrices_is_refused(small: torch.nn.Module, tmp_path: Path) -> None:
    layer = {"diffusion_model.blocks.0.ffn.2.diff": torch.zeros(DIM, FFN)}
    file = tiny_loras.write(tmp_path, layer)
    with pytest.raises(Unsupported, match=r"ffn.net.2.weight .Direct.* no other LoRA; .* bf16"):
        LoraSet({"transformer": small}, [file], [(1.0,)])


# ---- where


def test_a_device_that_does_not_multiply_8_bits_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"fp8 on cpu: .* 8\.9 .* bf16"):
        check_fp8(CPU)
    definition = tiny_definition(tmp_path / "rows", "vace_1.3B", tiny_wan_vace(tmp_path / "weights"))
    with pytest.raises(ModelUnavailable, match="compute in fp8 on cpu"):
        load_parts(definition, Place(tmp_path, "cpu", fp8=True))


def test_layers_of_vace_blocks_compute_in_8_bits_too() -> None:
    from diffusers import WanVACETransformer3DModel

    model = WanVACETransformer3DModel(**CONFIG, vace_layers=[0], vace_in_channels=96)
    assert "vace_blocks.0.attn1.to_q" in working_layers(model)
    assert not working_layers(tiny_loras.transformer()), "its sides are no multiples of 16"


def test_each_size_is_measured_once_and_used_where_it_is_faster(plain: torch.nn.Module, tmp_path: Path) -> None:
    found = Fp8Choice(CPU, tmp_path, tokens=32).layers(plain)
    kept = json.loads((tmp_path / "measured_choices.json").read_text())
    assert len(kept) == 3 and all("on cpu, torch" in key for key in kept)
    for name, layer in working_layers(plain).items():
        [form] = [kept[key] for key in kept if key.startswith(f"linear {layer.out_features}x{layer.in_features} ")]
        assert (form == IN_FP8) == (name in found)
    (tmp_path / "measured_choices.json").write_text(json.dumps(dict.fromkeys(kept, IN_FP8)))
    assert set(Fp8Choice(CPU, tmp_path, tokens=32).layers(plain)) == set(working_layers(plain))


def test_8_bits_must_be_faster_by_more_than_noise() -> None:
    assert [Timed(1.0, fp8).better for fp8 in (0.5, 0.96, 0.98, 2.0)] == [IN_FP8, IN_FP8, IN_16_BITS, IN_16_BITS]
