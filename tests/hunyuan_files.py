"""HunyuanVideo's weights as its authors publish them, made from those of diffusers. Importable by every test."""

from __future__ import annotations

from collections.abc import Mapping

import torch

#: diffusers -> original, applied in this order to the name of a layer
_NAMES = (
    ("context_embedder.token_refiner.refiner_blocks", "txt_in.individual_token_refiner.blocks"),
    ("context_embedder.time_text_embed.timestep_embedder.linear_1", "txt_in.t_embedder.mlp.0"),
    ("context_embedder.time_text_embed.timestep_embedder.linear_2", "txt_in.t_embedder.mlp.2"),
    ("context_embedder.time_text_embed.text_embedder", "txt_in.c_embedder"),
    ("context_embedder.proj_in", "txt_in.input_embedder"),
    ("time_text_embed.timestep_embedder.linear_1", "time_in.mlp.0"),
    ("time_text_embed.timestep_embedder.linear_2", "time_in.mlp.2"),
    ("time_text_embed.guidance_embedder.linear_1", "guidance_in.mlp.0"),
    ("time_text_embed.guidance_embedder.linear_2", "guidance_in.mlp.2"),
    ("time_text_embed.text_embedder.linear_1", "vector_in.in_layer"),
    ("time_text_embed.text_embedder.linear_2", "vector_in.out_layer"),
    ("x_embedder", "img_in"),
)
_DOUBLE = (
    ("norm1_context.linear", "txt_mod.linear"),
    ("norm1.linear", "img_mod.linear"),
    ("attn.norm_added_q", "txt_attn_q_norm"),
    ("attn.norm_added_k", "txt_attn_k_norm"),
    ("attn.norm_q", "img_attn_q_norm"),
    ("attn.norm_k", "img_attn_k_norm"),
    ("attn.to_out.0", "img_attn_proj"),
    ("attn.to_add_out", "txt_attn_proj"),
    ("ff_context.net.0.proj", "txt_mlp.fc1"),
    ("ff_context.net.2", "txt_mlp.fc2"),
    ("ff.net.0.proj", "img_mlp.fc1"),
    ("ff.net.2", "img_mlp.fc2"),
)
_SINGLE = (
    ("norm.linear", "modulation.linear"),
    ("attn.norm_q", "q_norm"),
    ("attn.norm_k", "k_norm"),
    ("proj_out", "linear2"),
)
_REFINER = (
    ("norm_out.linear", "adaLN_modulation.1"),
    ("attn.to_out.0", "self_attn_proj"),
    ("ff.net.0.proj", "mlp.fc1"),
    ("ff.net.2", "mlp.fc2"),
)
_QKV = ("attn.to_q", "attn.to_k", "attn.to_v")
_ADDED = ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")


def in_the_authors_layout(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same weights with the authors' names, matrices joined as theirs are."""
    found: dict[str, torch.Tensor] = {}
    for name, tensor in weights.items():
        joined = _joined(name, weights)
        if joined is not None:
            found[joined[0]] = joined[1]
        elif not any(part in name for part in (*_QKV, *_ADDED, "proj_mlp")):
            found[_name(name)] = tensor
    for kind in ("weight", "bias"):
        scale, shift = weights[f"norm_out.linear.{kind}"].chunk(2)
        found[f"final_layer.adaLN_modulation.1.{kind}"] = torch.cat([shift, scale])
        found[f"final_layer.linear.{kind}"] = weights[f"proj_out.{kind}"]
    return {name: value.contiguous() for name, value in found.items() if not name.startswith(("norm_out", "proj_out"))}


def _joined(name: str, weights: Mapping[str, torch.Tensor]) -> tuple[str, torch.Tensor] | None:
    block, kind = name.rpartition(".")[0], name.rpartition(".")[2]
    for parts, joined in ((_ADDED, "txt_attn_qkv"), (_QKV, "img_attn_qkv")):
        if not block.endswith(parts[0]):
            continue
        prefix = block.removesuffix(parts[0])
        if prefix.startswith("single_transformer_blocks"):
            parts, joined = (*parts, "proj_mlp"), "linear1"
        elif prefix.startswith("context_embedder"):
            joined = "self_attn_qkv"
        return _name(f"{prefix}{joined}.{kind}"), torch.cat([weights[f"{prefix}{part}.{kind}"] for part in parts])
    return None


def _name(name: str) -> str:
    inner = _REFINER if name.startswith("context_embedder") else _SINGLE if name.startswith("single") else _DOUBLE
    for ours, theirs in (*_NAMES, *(inner if "blocks" in name else ())):
        if f"{ours}." in name:
            name = name.replace(f"{ours}.", f"{theirs}.", 1)
    return name.replace("single_transformer_blocks", "single_blocks").replace("transformer_blocks", "double_blocks")
