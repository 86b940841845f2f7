"""The layers of HunyuanVideo as its authors' files name and join them, and as diffusers does.

The original layout keeps queries, keys and values of an attention in one matrix, and those of a single block together
with the beginning of its feed-forward layer; diffusers keeps each in its own. The two halves of the last modulation
stand in the other order. Tensors are cut when they are read, not before.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from Wan2GP.weights.reader import Stored

_EMBEDDER = "time_text_embed"
_REFINER = "context_embedder"

#: beginnings of names, original -> diffusers
_TOP: Mapping[str, str] = MappingProxyType(
    {
        "img_in": "x_embedder",
        "time_in.mlp.0": f"{_EMBEDDER}.timestep_embedder.linear_1",
        "time_in.mlp.2": f"{_EMBEDDER}.timestep_embedder.linear_2",
        "guidance_in.mlp.0": f"{_EMBEDDER}.guidance_embedder.linear_1",
        "guidance_in.mlp.2": f"{_EMBEDDER}.guidance_embedder.linear_2",
        "vector_in.in_layer": f"{_EMBEDDER}.text_embedder.linear_1",
        "vector_in.out_layer": f"{_EMBEDDER}.text_embedder.linear_2",
        "txt_in.input_embedder": f"{_REFINER}.proj_in",
        "txt_in.t_embedder.mlp.0": f"{_REFINER}.{_EMBEDDER}.timestep_embedder.linear_1",
        "txt_in.t_embedder.mlp.2": f"{_REFINER}.{_EMBEDDER}.timestep_embedder.linear_2",
        "txt_in.c_embedder": f"{_REFINER}.{_EMBEDDER}.text_embedder",
        "final_layer.linear": "proj_out",
    }
)
#: kinds of blocks, original -> diffusers
_BLOCKS: Mapping[str, str] = MappingProxyType(
    {
        "txt_in.individual_token_refiner.blocks": f"{_REFINER}.token_refiner.refiner_blocks",
        "double_blocks": "transformer_blocks",
        "single_blocks": "single_transformer_blocks",
    }
)
#: layers of a block, original -> diffusers
_LAYERS: Mapping[str, str] = MappingProxyType(
    {
        "norm1": "norm1",
        "norm2": "norm2",
        "self_attn_proj": "attn.to_out.0",
        "mlp.fc1": "ff.net.0.proj",
        "mlp.fc2": "ff.net.2",
        "adaLN_modulation.1": "norm_out.linear",
        "img_mod.linear": "norm1.linear",
        "txt_mod.linear": "norm1_context.linear",
        "img_attn_q_norm": "attn.norm_q",
        "img_attn_k_norm": "attn.norm_k",
        "txt_attn_q_norm": "attn.norm_added_q",
        "txt_attn_k_norm": "attn.norm_added_k",
        "img_attn_proj": "attn.to_out.0",
        "txt_attn_proj": "attn.to_add_out",
        "img_mlp.fc1": "ff.net.0.proj",
        "img_mlp.fc2": "ff.net.2",
        "txt_mlp.fc1": "ff_context.net.0.proj",
        "txt_mlp.fc2": "ff_context.net.2",
        "q_norm": "attn.norm_q",
        "k_norm": "attn.norm_k",
        "linear2": "proj_out",
        "modulation.linear": "norm.linear",
    }
)
#: layers of a block that are several, original -> diffusers
_JOINED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "self_attn_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
        "img_attn_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
        "txt_attn_qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
        "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    }
)
_SWAPPED = ("final_layer.adaLN_modulation.1", "norm_out.linear")
_IN_BLOCK = re.compile(rf"({'|'.join(map(re.escape, _BLOCKS))})\.(\d+)\.(.+)\.(\w+)")
#: a name that only the original layout has
_MARK = "double_blocks.0.img_attn_qkv.weight"


def is_original(names: Mapping[str, object]) -> bool:
    """Whether these are the names of a HunyuanVideo transformer in its authors' layout."""
    return _MARK in names


def in_diffusers_layout(stored: Mapping[str, Stored]) -> dict[str, Stored]:
    """The same tensors by diffusers' names. A name that is unknown stays as it is."""
    width = stored[_MARK].shape[1]
    return {name: each for original, tensor in stored.items() for name, each in _renamed(original, tensor, width)}


def _renamed(name: str, tensor: Stored, width: int) -> Iterator[tuple[str, Stored]]:
    layer, _, kind = name.rpartition(".")
    if layer == _SWAPPED[0]:
        half = tensor.shape[0] // 2
        yield f"{_SWAPPED[1]}.{kind}", _joined(tensor, [(half, 2 * half), (0, half)])
        return
    found = _IN_BLOCK.fullmatch(name)
    if found is None:
        top = next((theirs for theirs in _TOP if layer == theirs or layer.startswith(f"{theirs}.")), None)
        yield name if top is None else _TOP[top] + name.removeprefix(top), tensor
        return
    prefix, inner = f"{_BLOCKS[found[1]]}.{found[2]}", found[3]
    if inner not in _JOINED:
        yield f"{prefix}.{_LAYERS.get(inner, inner)}.{kind}", tensor
        return
    for number, ours in enumerate(_JOINED[inner]):
        end = tensor.shape[0] if ours == "proj_mlp" else (number + 1) * width
        yield f"{prefix}.{ours}.{kind}", _joined(tensor, [(number * width, end)])


def _joined(tensor: Stored, rows: Sequence[tuple[int, int]]) -> Stored:
    """Some of the rows, in this order."""
    shape = (sum(end - start for start, end in rows), *tensor.shape[1:])
    return replace(tensor, shape=shape, load=lambda: _rows(tensor.load(), rows), eight_bits=None)


def _rows(tensor: torch.Tensor, rows: Sequence[tuple[int, int]]) -> torch.Tensor:
    parts = [tensor[start:end] for start, end in rows]
    # A copy, so that a part does not keep the whole matrix in memory.
    return torch.cat(parts) if len(parts) > 1 else parts[0].clone()
