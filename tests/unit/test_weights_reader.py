"""Weights in every layout of single files come out as the same tensors, and files that would be wrong are refused."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import pytest
import torch
from diffusers import WanTransformer3DModel, WanVACETransformer3DModel
from safetensors.torch import save_file

from Wan2GP.errors import ModelUnavailable
from Wan2GP.wan_keys import original_name
from Wan2GP.weights.reader import read_state_dict
from Wan2GP.weights.transformers import check_fit, transformer_from_files

CONFIG = {
    "patch_size": (1, 2, 2),
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": 32,
    "freq_dim": 32,
    "ffn_dim": 64,
    "num_layers": 2,
    "rope_max_seq_len": 32,
}
VACE = {**CONFIG, "vace_layers": [0], "vace_in_channels": 8}


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {name: tensor.clone() for name, tensor in WanTransformer3DModel(**CONFIG).state_dict().items()}


@pytest.fixture(scope="module")
def original(weights) -> dict[str, torch.Tensor]:
    return {original_name(name): tensor for name, tensor in weights.items()}


def saved(path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path


def load(*files: Path, config=CONFIG, cls=WanTransformer3DModel, dtype=torch.float32):
    return transformer_from_files(files, config=config, cls=cls, dtype=dtype)


def worst(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """The largest error of any tensor, as a share of that tensor's largest value."""
    assert set(found) == set(expected)
    return max(
        float((found[name].float() - tensor).abs().max() / tensor.abs().max().clamp(min=1e-9))
        for name, tensor in expected.items()
    )


def matrices(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in tensors.items() if tensor.dim() == 2}


@pytest.mark.parametrize(
    "prefix", ["", "diffusion_model.", "model.diffusion_model.", "model.", "base_model.model.", "transformer."]
)
def test_every_prefix_gives_exactly_the_same_weights(tmp_path: Path, weights, original, prefix):
    for number, layout in enumerate((weights, original)):
        path = saved(tmp_path / f"{number}.safetensors", {prefix + name: t for name, t in layout.items()})
        assert worst(load(path).state_dict(), weights) == 0


def test_sharded_files_are_read_from_their_folder_and_from_their_index(tmp_path: Path, weights):
    names = sorted(weights)
    halves = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in halves.items():
        saved(tmp_path / file, {name: weights[name] for name in part})
    index = tmp_path / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {name: file for file, part in halves.items() for name in part}}))
    assert worst(load(tmp_path).state_dict(), weights) == 0
    assert worst(load(index).state_dict(), weights) == 0
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(ModelUnavailable, match=r"b\.safetensors"):
        load(index)


def test_a_pytorch_file_is_read_without_running_what_is_in_it(tmp_path: Path, weights, original):
    path = tmp_path / "model.pth"
    torch.save({"state_dict": original}, path)
    assert worst(load(path).state_dict(), weights) == 0


@pytest.mark.parametrize("scale_name", ["scale_weight", "weight_scale"])
@pytest.mark.parametrize("per_row", [False, True])
def test_scaled_fp8_weights_come_back_within_fp8_rounding(tmp_path: Path, weights, original, scale_name, per_row):
    stored = {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}
    for name, tensor in original.items():
        if tensor.dim() != 2:
            stored[name] = tensor
            continue
        scale = (tensor.abs().amax(1, keepdim=True) if per_row else tensor.abs().max()) / 448
        stored[name] = (tensor / scale).to(torch.float8_e4m3fn)
        stored[name.removesuffix("weight") + scale_name] = scale
        stored[name.removesuffix("weight") + "scale_input"] = torch.ones(())
    found = load(saved(tmp_path / "scaled.safetensors", stored)).state_dict()
    # fp8 with three bits of mantissa rounds by at most 1/16; over a whole matrix that is about 2.6 %.
    differences = {name: (found[name] - tensor) for name, tensor in matrices(weights).items()}
    assert all(float(d.abs().max() / weights[n].abs().max()) < 0.04 for n, d in differences.items())
    mean = sum(float(d.abs().mean() / weights[n].abs().max()) for n, d in differences.items()) / len(differences)
    assert mean < 0.02
    assert all(torch.equal(found[name], weights[name]) for name in set(weights) - set(differences))


def test_a_scaled_fp8_file_without_a_scale_is_refused_by_name(tmp_path: Path, original):
    stored = {name: t.to(torch.float8_e4m3fn) if t.dim() == 2 else t for name, t in original.items()}
    path = saved(tmp_path / "lost.safetensors", stored | {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)})
    with pytest.raises(
        ModelUnavailable, match=r"lost\.safetensors: \S+weight is quantised and the file lacks its scale"
    ):
        load(path)


def test_unscaled_values_of_fp8_are_refused_even_without_the_marker(tmp_path: Path, original):
    name = "blocks.0.self_attn.q.weight"
    scaled_up = original[name] / original[name].abs().max() * 448
    path = saved(tmp_path / "raw.safetensors", original | {name: scaled_up.to(torch.float8_e4m3fn)})
    with pytest.raises(ModelUnavailable, match=r"blocks\.0\.attn1\.to_q\.weight are too large for weights"):
        load(path)


def test_quanto_int8_weights_come_back_within_int8_rounding(tmp_path: Path, weights, original):
    stored = {}
    for name, tensor in original.items():
        if tensor.dim() != 2:
            stored[name] = tensor
            continue
        scale = tensor.abs().amax(1, keepdim=True) / 127
        stored[f"{name}._data"] = (tensor / scale).round().to(torch.int8)
        stored[f"{name}._scale"] = scale
        stored[name.removesuffix("weight") + "input_scale"] = torch.ones(())
        stored[name.removesuffix("weight") + "output_scale"] = torch.ones(())
    found = load(saved(tmp_path / "quanto_mbf16_int8.safetensors", stored)).state_dict()
    for name, tensor in matrices(weights).items():
        rows = tensor.abs().amax(1, keepdim=True)
        assert ((found[name] - tensor).abs() <= rows / 127 * 0.5001).all()
        assert float((found[name] - tensor).abs().max()) < 8e-4
    del stored["head.head.weight._scale"]
    with pytest.raises(ModelUnavailable, match=r"head\.head\.weight\._data is quantised and the file lacks its scale"):
        load(saved(tmp_path / "lost.safetensors", stored))


def test_gguf_q8_comes_back_with_shapes_of_five_dimensions(tmp_path: Path, weights, original):
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "wan")
    for name, tensor in original.items():
        values = tensor.numpy()
        if tensor.dim() == 2 and tensor.shape[1] % 32 == 0:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
            continue
        if tensor.dim() == 5:
            writer.add_array(f"comfy.gguf.orig_shape.{name}", [int(n) for n in tensor.shape])
            values = values.reshape(-1)
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = load(path).state_dict()
    assert torch.equal(found["patch_embedding.weight"], weights["patch_embedding.weight"])
    assert worst(found, weights) < 5e-3
    (tmp_path / "cut.gguf").write_bytes(path.read_bytes()[:200])
    with pytest.raises(ModelUnavailable, match=r"cut\.gguf cannot be read"):
        load(tmp_path / "cut.gguf")


def test_a_module_laid_over_its_base_equals_the_whole_model(tmp_path: Path):
    torch.manual_seed(1)
    whole = WanVACETransformer3DModel(**VACE)
    named = {original_name(name): tensor for name, tensor in whole.state_dict().items()}
    module = saved(tmp_path / "module.safetensors", {n: t for n, t in named.items() if n.startswith("vace_")})
    base = saved(
        tmp_path / "base.safetensors", {f"model.diffusion_model.{n}": t for n, t in named.items() if "vace_" not in n}
    )
    merged = load(base, module, config=VACE, cls=WanVACETransformer3DModel)
    assert worst(merged.state_dict(), whole.state_dict()) == 0
    inputs = {
        "hidden_states": torch.randn(1, 4, 2, 4, 4),
        "timestep": torch.tensor([500]),
        "encoder_hidden_states": torch.randn(1, 5, 32),
        "control_hidden_states": torch.randn(1, 8, 2, 4, 4),
        "control_hidden_states_scale": torch.ones(1),
    }
    with torch.inference_mode():
        assert torch.equal(merged(**inputs)[0], whole.eval()(**inputs)[0])
    with pytest.raises(ModelUnavailable, match=r"base\.safetensors does not fit WanVACE\S+: it lacks vace_blocks\.0"):
        load(base, config=VACE, cls=WanVACETransformer3DModel)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("proj_out.bias"), r"it lacks proj_out\.bias"),
        (lambda w: w.update({"blocks.9.extra": torch.ones(1)}), r"no place for: blocks\.9\.extra"),
        (lambda w: w.update({"proj_out.bias": torch.ones(3)}), r"other shapes: proj_out\.bias \(3,\) for \(16,\)"),
        (
            lambda w: w.update({"proj_out.bias": torch.full((16,), torch.nan)}),
            r"proj_out\.bias holds values that are not",
        ),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_name(tmp_path: Path, weights, change, message):
    changed = dict(weights)
    change(changed)
    path = saved(tmp_path / "odd.safetensors", changed)
    with pytest.raises(ModelUnavailable, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("kept", [4, 200, -10])
def test_a_truncated_file_is_refused_by_name(tmp_path: Path, weights, kept):
    path = saved(tmp_path / "cut.safetensors", weights)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ModelUnavailable, match=r"cut\.safetensors cannot be read .*delete it and fetch again"):
        load(path)


def test_a_file_of_another_kind_is_refused(tmp_path: Path):
    (tmp_path / "model.onnx").write_bytes(b"onnx")
    with pytest.raises(ModelUnavailable, match=r"model\.onnx: this version reads"):
        read_state_dict(tmp_path / "model.onnx")


def test_what_the_class_keeps_exact_stays_in_float32(tmp_path: Path, weights):
    model = load(saved(tmp_path / "model.safetensors", weights), dtype=torch.bfloat16)
    assert model.blocks[0].attn1.to_q.weight.dtype == torch.bfloat16
    assert model.condition_embedder.time_embedder.linear_1.weight.dtype == torch.float32
    assert not any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))


def test_the_fit_is_checked_without_reading_weights(tmp_path: Path, weights):
    path = saved(tmp_path / "model.safetensors", weights)
    assert check_fit([path], config=CONFIG, cls=WanTransformer3DModel) == len(weights)
    with pytest.raises(ModelUnavailable, match="lacks vace"):
        check_fit([path], config=VACE, cls=WanVACETransformer3DModel)
