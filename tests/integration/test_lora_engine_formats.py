"""Every layout of LoRA files gives the weights that it means; what cannot be applied right is refused by name."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path

import pytest
import torch
from tiny_loras import ALPHA, DIM, FFN, LAYOUTS, RANK, Tensors, factors, linears, predict, transformer, write
from torch import Tensor, nn

from Wan2GP.engine.lora.merging import LoraSet
from Wan2GP.errors import InvalidInput, Unsupported
from Wan2GP.wan_keys import original_name


def with_lora(model: nn.Module, path: Path, multiplier: float = 1.0) -> Tensor:
    with LoraSet({"transformer": model}, [path], [(multiplier,)]) as loras:
        loras.at_step(0)
        return predict(model)


def weights_with(model: nn.Module, path: Path, multiplier: float = 1.0) -> Tensors:
    with LoraSet({"transformer": model}, [path], [(multiplier,)]) as loras:
        loras.at_step(0)
        return {name: value.clone() for name, value in model.state_dict().items()}


def by_peft(model: nn.Module, lora: dict[str, tuple[Tensor, Tensor]], scale: float) -> Tensor:
    """The same LoRA through diffusers and PEFT: up multiplied by the scale, no alpha."""
    theirs = copy.deepcopy(model)
    state = {f"{name}.lora_A.weight": down for name, (down, _) in lora.items()}
    state |= {f"{name}.lora_B.weight": up * scale for name, (_, up) in lora.items()}
    theirs.load_lora_adapter(state, prefix=None)
    return predict(theirs)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_equals_the_same_lora_through_peft(tmp_path: Path, layout):
    model = transformer()
    lora = factors(model, linears(model))
    tensors = LAYOUTS[layout](lora)
    expected = by_peft(model, lora, ALPHA / RANK if any(key.endswith(".alpha") for key in tensors) else 1)
    ours = with_lora(model, write(tmp_path, tensors))
    assert (expected - predict(model)).abs().max() > 0.05
    assert (ours - expected).abs().max() <= 1e-5


def test_layers_outside_the_blocks_are_reached(tmp_path: Path):
    model = transformer()
    outside = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and "blocks" not in name]
    assert {"proj_out", "condition_embedder.time_proj", "condition_embedder.text_embedder.linear_1"} <= set(outside)
    lora = factors(model, outside)
    for layout in ("comfy", "musubi", "diffusers"):
        changed = weights_with(model, write(tmp_path, LAYOUTS[layout](lora)))
        for name, (down, up) in lora.items():
            scale = 1 if layout == "diffusers" else ALPHA / RANK
            expected = model.get_submodule(name).weight + scale * up @ down
            assert torch.allclose(changed[f"{name}.weight"], expected, atol=1e-6), (layout, name)


@pytest.mark.parametrize("multiplier", [0.5, -1.0, 2.0])
def test_the_multiplier_scales_the_difference(tmp_path: Path, multiplier):
    model = transformer()
    lora = factors(model, linears(model))
    ours = with_lora(model, write(tmp_path, LAYOUTS["diffusers"](lora)), multiplier)
    assert (ours - by_peft(model, lora, multiplier)).abs().max() <= 1e-5


@pytest.mark.parametrize("within", [("self_attn",), ("ffn",)])
def test_a_musubi_file_with_some_layers_only_is_applied(tmp_path: Path, within):
    model = transformer()
    names = [name for name in linears(model) if any(part in original_name(name) for part in within)]
    lora = factors(model, names)
    ours = with_lora(model, write(tmp_path, LAYOUTS["musubi"](lora)))
    assert (ours - by_peft(model, lora, ALPHA / RANK)).abs().max() <= 1e-5


def test_the_alpha_of_the_adapters_configuration_counts(tmp_path: Path):
    model = transformer()
    lora = factors(model, linears(model))
    config = {
        "transformer.r": RANK,
        "transformer.lora_alpha": 12,
        "transformer.alpha_pattern": {"blocks.0.attn1.to_q": 3},
    }
    path = write(tmp_path, LAYOUTS["diffusers"](lora), lora_adapter_metadata=json.dumps(config))
    changed = weights_with(model, path)
    for name, alpha in (("blocks.0.attn1.to_q", 3), ("blocks.1.attn1.to_q", 12)):
        down, up = lora[name]
        difference = changed[f"{name}.weight"] - model.get_submodule(name).weight
        assert torch.allclose(difference, alpha / RANK * up @ down, atol=1e-6)


def test_direct_differences_of_weights_biases_norms_and_tables_are_added(tmp_path: Path):
    """Files such as LightX2V's: `.diff` and `.diff_b`, on some layers only."""
    model = transformer()
    keys = {
        "diffusion_model.patch_embedding.diff": "patch_embedding.weight",
        "diffusion_model.patch_embedding.diff_b": "patch_embedding.bias",
        "diffusion_model.head.head.diff": "proj_out.weight",
        "diffusion_model.head.modulation.diff": "scale_shift_table",
        "diffusion_model.blocks.0.modulation.diff": "blocks.0.scale_shift_table",
        "diffusion_model.blocks.0.norm3.diff": "blocks.0.norm2.weight",
        "diffusion_model.blocks.0.norm3.diff_b": "blocks.0.norm2.bias",
        "diffusion_model.blocks.1.cross_attn.norm_k.diff": "blocks.1.attn2.norm_k.weight",
        "diffusion_model.blocks.1.ffn.2.diff_b": "blocks.1.ffn.net.2.bias",
        "diffusion_model.time_projection.1.diff_b": "condition_embedder.time_proj.bias",
    }
    before = {name: value.clone() for name, value in model.state_dict().items()}
    lora = factors(model, ["blocks.1.ffn.net.2"])
    differences = {key: torch.randn(before[name].shape) for key, name in keys.items()}
    changed = weights_with(model, write(tmp_path, {**differences, **LAYOUTS["comfy"](lora)}), 0.5)
    for key, name in keys.items():
        assert torch.allclose(changed.pop(name) - before[name], 0.5 * differences[key], atol=1e-6), key
    assert not torch.equal(changed.pop("blocks.1.ffn.net.2.weight"), before["blocks.1.ffn.net.2.weight"])
    assert all(torch.equal(value, before[name]) for name, value in changed.items())


def test_i2v_image_layers_are_reached_and_left_out_on_t2v(tmp_path: Path):
    i2v, t2v = transformer("i2v"), transformer()
    image = [n for n in linears(i2v) if "add_k_proj" in n or "add_v_proj" in n]
    outside = [n for n in linears(i2v, ("condition_embedder",)) if "image_embedder" in n]
    assert len(image) == 4 and len(outside) == 2
    lora = factors(i2v, [*image, *outside, "blocks.0.attn1.to_q"])
    path = write(tmp_path, LAYOUTS["comfy"](lora))
    changed = weights_with(i2v, path)
    for name in lora:
        assert not torch.equal(changed[f"{name}.weight"], i2v.get_submodule(name).weight), name
    loras = LoraSet({"transformer": t2v}, [path], [(1.0,)])
    assert loras.notes == (
        "mine.safetensors: 1 weights of transformer, rank 3; 6 layer(s) left out that do not fit this model "
        "(blocks.0.cross_attn.k_img …)",
    )


def test_a_t2v_lora_works_on_i2v_although_the_input_layer_differs(tmp_path: Path):
    """The usual way of running LightX2V on image-to-video models."""
    model = transformer("i2v")
    tensors = LAYOUTS["comfy"](factors(model, ["blocks.0.attn1.to_q"]))
    tensors["diffusion_model.patch_embedding.diff"] = torch.zeros(DIM, 16, 1, 2, 2)
    loras = LoraSet({"transformer": model}, [write(tmp_path, tensors)], [(1.0,)])
    assert "1 layer(s) left out that do not fit this model (patch_embedding …)" in loras.notes[0]


def test_vace_blocks_are_reached_and_t2v_files_fit_vace(tmp_path: Path):
    vace, t2v = transformer("vace"), transformer()
    own = [n for n in linears(vace) if n.startswith("vace_blocks")]
    assert {"vace_blocks.0.proj_in", "vace_blocks.1.proj_out"} <= set(own)
    changed = weights_with(vace, write(tmp_path, LAYOUTS["comfy"](factors(vace, own))))
    assert all(not torch.equal(changed[f"{n}.weight"], vace.get_submodule(n).weight) for n in own)
    path = write(tmp_path, LAYOUTS["musubi"](factors(t2v, linears(t2v))))
    assert "left out" not in LoraSet({"transformer": vace}, [path], [(1.0,)]).notes[0]


def test_lokr_is_the_kronecker_product(tmp_path: Path):
    model = transformer()
    w1, w2a, w2b = torch.randn(4, 6), torch.randn(6, RANK), torch.randn(RANK, 4)
    whole = (torch.randn(8, 4), torch.randn(3, 6))
    key, other = "lora_unet_blocks_0_self_attn_q", "diffusion_model.blocks.0.self_attn.v"
    tensors = {
        f"{key}.lokr_w1": w1, f"{key}.lokr_w2_a": w2a, f"{key}.lokr_w2_b": w2b, f"{key}.alpha": torch.tensor(ALPHA),
        f"{other}.lokr_w1": whole[0], f"{other}.lokr_w2": whole[1], f"{other}.alpha": torch.tensor(1e6),
    }  # fmt: skip
    changed = weights_with(model, write(tmp_path, tensors))
    difference = changed["blocks.0.attn1.to_q.weight"] - model.blocks[0].attn1.to_q.weight
    assert torch.allclose(difference, torch.kron(w1, w2a @ w2b) * ALPHA / RANK, atol=1e-5)
    difference = changed["blocks.0.attn1.to_v.weight"] - model.blocks[0].attn1.to_v.weight
    assert torch.allclose(difference, torch.kron(*whole), atol=1e-5), "without a rank the alpha means nothing"


def test_loha_is_the_product_of_two_low_ranks(tmp_path: Path):
    model = transformer()
    a1, b1, a2, b2 = (torch.randn(*shape) for shape in ((FFN, RANK), (RANK, DIM)) * 2)
    key = "diffusion_model.blocks.1.ffn.0"
    tensors = {f"{key}.hada_w1_a": a1, f"{key}.hada_w1_b": b1, f"{key}.hada_w2_a": a2, f"{key}.hada_w2_b": b2}
    changed = weights_with(model, write(tmp_path, {**tensors, f"{key}.alpha": torch.tensor(ALPHA)}))
    difference = changed["blocks.1.ffn.net.0.proj.weight"] - model.blocks[1].ffn.net[0].proj.weight
    assert torch.allclose(difference, (a1 @ b1) * (a2 @ b2) * ALPHA / RANK, atol=1e-5)


def test_dora_equals_peft(tmp_path: Path):
    model = transformer()
    lora = factors(model, linears(model))
    state = LAYOUTS["diffusers, no prefix"](lora)
    for name in lora:
        state[f"{name}.lora_magnitude_vector"] = torch.rand(model.get_submodule(name).weight.shape[0]) + 0.5
    theirs = copy.deepcopy(model)
    theirs.load_lora_adapter(dict(state), prefix=None)
    expected, plain = predict(theirs), by_peft(model, lora, 1)
    assert (expected - plain).abs().max() > 0.05
    path = write(tmp_path, state)
    assert (with_lora(model, path) - expected).abs().max() <= 1e-5
    half = weights_with(model, path, 0.5)["blocks.0.attn1.to_q.weight"]
    original = model.blocks[0].attn1.to_q.weight
    whole = weights_with(model, path)["blocks.0.attn1.to_q.weight"]
    assert torch.allclose(half, (original + whole) / 2, atol=1e-6)


@pytest.mark.parametrize("shape", [(DIM, 1), (1, DIM)])
def test_dora_of_lycoris_may_set_rows_or_columns(tmp_path: Path, shape):
    model = transformer()
    (down, up), magnitude = factors(model, ["blocks.0.attn1.to_q"])["blocks.0.attn1.to_q"], torch.rand(shape) + 0.5
    key = "lora_unet_blocks_0_self_attn_q"
    tensors = {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up, f"{key}.dora_scale": magnitude}
    changed = weights_with(model, write(tmp_path, tensors))["blocks.0.attn1.to_q.weight"]
    assert torch.allclose(changed.norm(dim=shape.index(1), keepdim=True), magnitude, atol=1e-5)


def test_convolutions_keep_their_kernel(tmp_path: Path):
    model = transformer()
    down, up = torch.randn(RANK, 16, 1, 2, 2), torch.randn(DIM, RANK, 1, 1, 1)
    key = "diffusion_model.patch_embedding"
    changed = weights_with(model, write(tmp_path, {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}))
    expected = torch.einsum("or,rifhw->oifhw", up[:, :, 0, 0, 0], down)
    assert torch.allclose(changed["patch_embedding.weight"] - model.patch_embedding.weight, expected, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn])
def test_files_of_any_float_type_are_read(tmp_path: Path, dtype):
    model = transformer()
    lora = {name: (d.to(dtype), u.to(dtype)) for name, (d, u) in factors(model, linears(model)).items()}
    ours = with_lora(model, write(tmp_path, LAYOUTS["diffusers"](lora)))
    rounded = {name: (d.float(), u.float()) for name, (d, u) in lora.items()}
    assert (ours - by_peft(model, rounded, 1)).abs().max() <= 1e-5


def test_weights_of_a_text_encoder_are_left_out_and_noted(tmp_path: Path):
    model = transformer()
    tensors = LAYOUTS["musubi"](factors(model, ["blocks.0.attn1.to_q"]))
    tensors["lora_te_encoder_block_0.lora_down.weight"] = torch.zeros(2, 2)
    loras = LoraSet({"transformer": model}, [write(tmp_path, tensors)], [(1.0,)])
    assert loras.notes[0].endswith("1 weights of transformer, rank 3; 1 text encoder weights left out")


Q = "diffusion_model.blocks.0.self_attn.q"
REFUSED: dict[str, tuple[Tensors, type[Exception], str]] = {
    "tucker lokr": ({f"{Q}.lokr_t2": torch.zeros(1)}, Unsupported, r"q\.lokr_t2: Tucker"),
    "tucker loha": ({f"{Q}.hada_t1": torch.zeros(1)}, Unsupported, r"q\.hada_t1: Tucker"),
    "tucker locon": ({f"{Q}.lora_mid.weight": torch.zeros(1)}, Unsupported, r"q\.lora_mid\.weight: Tucker"),
    "oft": ({f"{Q}.oft_blocks": torch.zeros(1)}, Unsupported, r"q\.oft_blocks: LoRA weights of this kind"),
    "a whole model": ({f"{Q}.weight": torch.zeros(DIM, DIM)}, InvalidInput, "is a plain weight: .* not a LoRA"),
    "nothing": ({f"{Q}.alpha": torch.zeros(1)}, InvalidInput, "holds no LoRA weights"),
    "half a pair": ({f"{Q}.lora_up.weight": torch.zeros(DIM, 2)}, InvalidInput, "do not belong together .*'down'"),
    "ranks that differ": (
        {f"{Q}.lora_up.weight": torch.zeros(DIM, 2), f"{Q}.lora_down.weight": torch.zeros(3, DIM)},
        InvalidInput, r"do not belong together \(down, up; shapes \(24, 2\) and \(3, 24\)\)",
    ),
    "flat lokr": (
        {f"{Q}.lokr_w1": torch.zeros(4), f"{Q}.lokr_w2": torch.zeros(4)}, InvalidInput, "do not belong together",
    ),
    "two kinds": (
        {f"{Q}.lora_up.weight": torch.zeros(DIM, 2), f"{Q}.lokr_w1": torch.zeros(2, 2)}, InvalidInput, "mixes kinds",
    ),
    "a lonely magnitude": ({f"{Q}.dora_scale": torch.zeros(DIM)}, InvalidInput, "DoRA magnitude and nothing"),
    "a wrong magnitude": (
        {
            f"{Q}.lora_up.weight": torch.zeros(DIM, 2), f"{Q}.lora_down.weight": torch.zeros(2, DIM),
            f"{Q}.dora_scale": torch.zeros(7),
        },
        InvalidInput, r"DoRA magnitude \(7,\) does not fit",
    ),
    "not finite": ({f"{Q}.diff": torch.full((DIM, DIM), float("nan"))}, InvalidInput, r"q\.diff holds values that"),
    "whole numbers": ({f"{Q}.diff": torch.zeros(DIM, DIM, dtype=torch.int8)}, Unsupported, "torch.int8; quantised"),
    "two adapters": (
        {f"{Q}.lora_A.one.weight": torch.zeros(2, DIM), f"{Q}.lora_A.two.weight": torch.zeros(2, DIM)},
        Unsupported, "holds this weight twice",
    ),
    "another size": (
        {f"{Q}.lora_up.weight": torch.zeros(5120, 2), f"{Q}.lora_down.weight": torch.zeros(2, 5120)},
        InvalidInput, r"blocks\.0\.self_attn\.q: .* shape \(5120, 5120\), .*to_q\.weight has \(24, 24\).*14B",
    ),
    "another family": (
        {
            "transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight": torch.zeros(2, DIM),
            "transformer.single_transformer_blocks.0.attn.to_q.lora_B.weight": torch.zeros(DIM, 2),
        },
        InvalidInput, r"none of its layers .* file has single_transformer_blocks\.0\.attn\.to_q …; the model has ",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_applied_is_refused_by_name(tmp_path: Path, case):
    tensors, error, message = REFUSED[case]
    with pytest.raises(error, match=rf"^activated_loras: mine\.safetensors:? .*{message}") as caught:
        LoraSet({"transformer": transformer()}, [write(tmp_path, tensors)], [(1.0,)])
    assert type(caught.value) is error


def test_a_14b_lora_on_a_1_3b_model_names_both_sizes(tmp_path: Path):
    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList([nn.ModuleDict({"attn1": nn.ModuleDict({"to_q": nn.Linear(1536, 1536)})})])

    tensors = {f"{Q}.lora_up.weight": torch.zeros(5120, 2), f"{Q}.lora_down.weight": torch.zeros(2, 5120)}
    with pytest.raises(InvalidInput, match=r"another model size \(14B, this model is 1\.3B\)"):
        LoraSet({"transformer": Small()}, [write(tmp_path, tensors)], [(1.0,)])


@pytest.mark.parametrize("config", ["{", "[]", '{"lora_alpha": "x"}', '{"lora_alpha": 3, "alpha_pattern": {"(": 2}}'])
def test_an_unusable_adapter_configuration_is_refused(tmp_path: Path, config):
    model = transformer()
    tensors = LAYOUTS["diffusers"](factors(model, ["blocks.0.attn1.to_q"]))
    with pytest.raises(InvalidInput, match=r"^activated_loras: mine\.safetensors"):
        LoraSet({"transformer": model}, [write(tmp_path, tensors, lora_adapter_metadata=config)], [(1.0,)])


def test_any_mixture_of_weights_is_applied_or_refused(tmp_path: Path):
    """400 files of random parts and shapes: typed errors only, and the weights are finite and the same afterwards."""
    model, chance = transformer(), random.Random(3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fitting: dict[str, tuple[int, ...]] = {
        "lora_A.weight": (3, 24), "lora_B.weight": (24, 3), "lora_B.bias": (24,), "alpha": (), "diff": (24, 24),
        "diff_b": (24,), "dora_scale": (24, 1), "lokr_w1": (4, 4), "lokr_w2": (6, 6), "lokr_w2_a": (6, 3),
        "lokr_w2_b": (3, 6), "hada_w1_a": (24, 3), "hada_w1_b": (3, 24), "hada_w2_a": (24, 3), "hada_w2_b": (3, 24),
    }  # fmt: skip
    kinds = ["lora_A lora_B", "lora_A lora_B dora", "lokr_w1 lokr_w2", "lokr_w1 lokr_w2_a lokr_w2_b", "hada", "diff"]
    others = [(), (0,), (1,), (24,), (0, 24), (8, 8), (3, 3), (24, 16, 1, 2, 2)]
    outcomes = {"applied": 0, "refused": 0}
    for _ in range(400):
        wanted = tuple(chance.choice(kinds).split())
        chosen = {part: size for part, size in fitting.items() if part.startswith(wanted) and chance.random() < 0.95}
        if chance.random() < 0.5:
            chosen[chance.choice(list(fitting))] = chance.choice([*others, *fitting.values()])
        layer = chance.choice(["diffusion_model.blocks.0.self_attn.q", "lora_unet_blocks_1_self_attn_o"])
        path = write(tmp_path, {f"{layer}.{part}": torch.ones(size) for part, size in chosen.items()})
        try:
            assert all(value.isfinite().all() for value in weights_with(model, path).values())
            outcomes["applied"] += 1
        except InvalidInput:
            outcomes["refused"] += 1
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert min(outcomes.values()) > 50, outcomes


@pytest.mark.parametrize("name", ["mine.pt", "mine.bin", "mine.ckpt"])
def test_pickles_are_never_opened(tmp_path: Path, name):
    torch.save({f"{Q}.diff": torch.zeros(DIM, DIM)}, tmp_path / name)
    with pytest.raises(InvalidInput, match=r"is not a \.safetensors file; pickled formats"):
        LoraSet({"transformer": transformer()}, [tmp_path / name], [(1.0,)])


def test_missing_and_damaged_files_are_named(tmp_path: Path):
    model = transformer()
    path = write(tmp_path, LAYOUTS["diffusers"](factors(model, linears(model))))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InvalidInput, match=r"mine\.safetensors is damaged .*download it again"):
        LoraSet({"transformer": model}, [path], [(1.0,)])
    path.write_bytes(b"<!DOCTYPE html><html>not found</html>")
    with pytest.raises(InvalidInput, match=r"mine\.safetensors is damaged or not a safetensors file"):
        LoraSet({"transformer": model}, [path], [(1.0,)])
    path.unlink()
    with pytest.raises(InvalidInput, match="there is no such LoRA file"):
        LoraSet({"transformer": model}, [path], [(1.0,)])


def test_our_names_agree_with_the_converter_of_diffusers():
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

    from Wan2GP.wan_keys import diffusers_name

    for kind in ("t2v", "i2v", "vace"):
        ours = list(transformer(kind).state_dict())
        original = {original_name(name): torch.zeros(1) for name in ours}
        assert [diffusers_name(name) for name in original] == ours
        converted = set(convert_wan_transformer_to_diffusers(dict(original)))
        image_position = {"condition_embedder.image_embedder.pos_embed"}  # their converter leaves this one alone
        assert set(ours) - converted == (image_position if kind == "i2v" else set())
