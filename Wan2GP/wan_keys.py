"""The names that Wan's own releases give their layers, and the names that diffusers gives the same ones. No torch here.

Files in the original layout (the authors' checkpoints, ComfyUI files, most LoRAs) say `blocks.0.self_attn.q.weight`
where `WanTransformer3DModel` has `blocks.0.attn1.to_q.weight`. The tables below are the whole difference; VACE's extra
blocks, the image embedding of image-to-video models and first-and-last-frame models included. `diffusers_name` and
`original_name` take a parameter or a layer and leave a name that is the same in both layouts, or in neither, as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

#: what whole-model files and LoRAs put before a layer's name
PREFIXES = ("model.diffusion_model.", "base_model.model.", "diffusion_model.", "transformer.")

_ATTENTION = {"q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0", "norm_q": "norm_q", "norm_k": "norm_k"}
_IMAGE_ATTENTION = {"k_img": "add_k_proj", "v_img": "add_v_proj", "norm_k_img": "norm_added_k"}

#: inside a block: original -> diffusers
_BLOCK: Mapping[str, str] = MappingProxyType(
    {
        **{f"self_attn.{theirs}": f"attn1.{ours}" for theirs, ours in _ATTENTION.items()},
        **{f"cross_attn.{theirs}": f"attn2.{ours}" for theirs, ours in (_ATTENTION | _IMAGE_ATTENTION).items()},
        "ffn.0": "ffn.net.0.proj",
        "ffn.2": "ffn.net.2",
        "norm2": "norm3",
        "norm3": "norm2",
        "modulation": "scale_shift_table",
        "before_proj": "proj_in",
        "after_proj": "proj_out",
    }
)

_IMAGE_EMBEDDER = "condition_embedder.image_embedder"

#: outside the blocks: original -> diffusers
_TOP: Mapping[str, str] = MappingProxyType(
    {
        "time_embedding.0": "condition_embedder.time_embedder.linear_1",
        "time_embedding.2": "condition_embedder.time_embedder.linear_2",
        "text_embedding.0": "condition_embedder.text_embedder.linear_1",
        "text_embedding.2": "condition_embedder.text_embedder.linear_2",
        "time_projection.1": "condition_embedder.time_proj",
        "img_emb.proj.0": f"{_IMAGE_EMBEDDER}.norm1",
        "img_emb.proj.1": f"{_IMAGE_EMBEDDER}.ff.net.0.proj",
        "img_emb.proj.3": f"{_IMAGE_EMBEDDER}.ff.net.2",
        "img_emb.proj.4": f"{_IMAGE_EMBEDDER}.norm2",
        "img_emb.emb_pos": f"{_IMAGE_EMBEDDER}.pos_embed",
        "head.head": "proj_out",
        "head.modulation": "scale_shift_table",
    }
)

_TO_ORIGINAL_BLOCK = MappingProxyType({ours: theirs for theirs, ours in _BLOCK.items()})
_TO_ORIGINAL_TOP = MappingProxyType({ours: theirs for theirs, ours in _TOP.items()})

_IN_BLOCK = re.compile(r"((?:vace_)?blocks\.\d+\.)(.+)")
#: layer names that only the original layout has
_ORIGINAL_ONLY = re.compile(
    r"(^|\.)(self_attn|cross_attn|modulation|time_embedding|time_projection|text_embedding|img_emb|head)(\.|$)"
    r"|blocks\.\d+\.(ffn\.[02]|before_proj|after_proj)(\.|$)"
)


def diffusers_name(original: str) -> str:
    """The name in diffusers of a parameter or layer of the original layout."""
    return _renamed(original, _BLOCK, _TOP)


def original_name(diffusers: str) -> str:
    """The name in the original layout of a parameter or layer of diffusers. The inverse of `diffusers_name`."""
    return _renamed(diffusers, _TO_ORIGINAL_BLOCK, _TO_ORIGINAL_TOP)


def is_original(names: Iterable[str]) -> bool:
    """Whether a file with these names (prefixes already taken off) is in the original layout."""
    return any(_ORIGINAL_ONLY.search(name) for name in names)


def without_prefix(name: str) -> str:
    """The name without what files put before it; nested prefixes (`base_model.model.diffusion_model.`) go too."""
    for prefix in PREFIXES:
        if name.startswith(prefix):
            return without_prefix(name[len(prefix) :])
    return name


def _renamed(name: str, in_blocks: Mapping[str, str], elsewhere: Mapping[str, str]) -> str:
    block = _IN_BLOCK.fullmatch(name)
    start, rest = block.groups() if block else ("", name)
    table = in_blocks if block else elsewhere
    for old, new in table.items():
        if rest == old or rest.startswith(f"{old}."):
            return start + new + rest[len(old) :]
    return name
