"""A Wan model from its files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from Wan2GP.definitions import ModelDefinition, how_to_fetch
from Wan2GP.engine.families import Place
from Wan2GP.engine.loading import weights_dtype
from Wan2GP.engine.residency.shared import SharedParts
from Wan2GP.engine.speed.attention import set_attention
from Wan2GP.engine.speed.compiling import compile_blocks
from Wan2GP.engine.speed.fp8 import Fp8Choice, check_fp8
from Wan2GP.engine.wan.latents import laid_out
from Wan2GP.engine.wan.own_layers import extra_parts, laid_over, transformer_class
from Wan2GP.engine.wan.parts import WanParts
from Wan2GP.errors import ModelUnavailable
from Wan2GP.layout import Layout, where
from Wan2GP.memory_profiles import profile_of
from Wan2GP.weights.configs import transformer_config
from Wan2GP.weights.transformers import transformer_from_files

#: the classes that a transformer's config may name
_TRANSFORMERS = ("WanTransformer3DModel", "WanVACETransformer3DModel", "SkyReelsV2Transformer3DModel")


def load_parts(definition: ModelDefinition, place: Place) -> WanParts:
    """The parts, on their device, in evaluation mode. Nothing is fetched.

    Raises ModelUnavailable when a file is missing or damaged, lacks weights or holds others than it should.
    """
    layout = where(definition, place.checkpoints)
    assert layout is not None, "a model without weights is not available"
    if place.fp8:
        check_fp8(torch.device(place.device))
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    try:
        parts = _loaded(definition, layout, place)
    except (OSError, ValueError, ModelUnavailable) as error:
        reason = str(error).strip().rstrip(".")
        raise ModelUnavailable(
            f"{definition.id} cannot be loaded from {layout.folder}: {reason}. "
            f"{how_to_fetch(definition, layout.folder)}"
        ) from error
    for part in parts.modules.values():
        part.eval().requires_grad_(False)
    set_attention(list(parts.experts.values()), place.attention, parts.device, place.checkpoints)
    parts.place(profile_of(place.profile))
    for name, transformer in parts.experts.items():
        # Between the layers of a block that come one by one there is nothing to compile together.
        if place.compiled and not parts.streams(name):
            compile_blocks(transformer, place.checkpoints)
    return parts


def _loaded(definition: ModelDefinition, layout: Layout, place: Place) -> WanParts:
    from transformers import AutoTokenizer, UMT5EncoderModel

    folder, dtype = layout.folder, weights_dtype(place.device)
    index = _json(folder / "model_index.json")
    offline: dict[str, Any] = {"local_files_only": True}
    second, shared = layout.transformer_2, place.memory.shared

    def folder_part(cls: Any, name: str, numbers: torch.dtype) -> Any:
        def read() -> Any:
            return cls.from_pretrained(folder / name, dtype=numbers, **offline)

        return shared.part(cls, [folder / name], numbers, read)

    def transformer_of(files: Sequence[Path]) -> Any:
        return _transformer(definition, files, dtype, place)

    transformer = transformer_of([layout.transformer, *laid_over(definition, layout.modules)])
    return WanParts(
        tokenizer=AutoTokenizer.from_pretrained(folder / "tokenizer", **offline),
        text_encoder=folder_part(UMT5EncoderModel, "text_encoder", dtype),
        vae=_vae(folder / "vae", place),
        transformer=transformer,
        transformer_2=None if second is None else transformer_of([second, *layout.modules_2]),
        **_image_parts(folder, index, partial(folder_part, numbers=dtype)),
        extra=extra_parts(definition, layout, transformer, dtype),
        device=torch.device(place.device),
        memory=place.memory,
        boundary_ratio=index.get("boundary_ratio"),
        expand_timesteps=bool(index.get("expand_timesteps")),
    )


def _vae(folder: Path, place: Place) -> Any:
    from diffusers import AutoencoderKLWan

    numbers = torch.bfloat16 if place.vae_bits == 16 else torch.float32
    layout = torch.channels_last_3d if place.vae_channels_last else torch.contiguous_format

    def read() -> Any:
        return laid_out(AutoencoderKLWan.from_pretrained(folder, dtype=numbers, local_files_only=True), layout)

    shared: SharedParts = place.memory.shared
    return shared.part(AutoencoderKLWan, [folder], (numbers, layout), read)


def _image_parts(folder: Path, index: Mapping[str, Any], part: Callable[..., Any]) -> dict[str, Any]:
    """The image encoder and its processor, for models that look at an image."""
    if not (index.get("image_encoder") or [None])[0]:
        return {}
    from transformers import CLIPImageProcessor, CLIPVisionModel

    encoder = part(CLIPVisionModel, "image_encoder")
    processor = CLIPImageProcessor.from_pretrained(folder / "image_processor", local_files_only=True)
    return {"image_encoder": encoder, "image_processor": processor}


def _transformer(definition: ModelDefinition, files: Sequence[Path], dtype: torch.dtype, place: Place) -> Any:
    """The transformer that the files make up."""
    import diffusers

    config = transformer_config(definition.architecture_name, files)
    name = config.get("_class_name")
    if name not in _TRANSFORMERS:
        raise ModelUnavailable(f"{files[-1]} holds a {name}, which is no transformer of this family")
    kind = transformer_class(definition.architecture_name, getattr(diffusers, name))
    device = torch.device(place.device)
    in_fp8 = Fp8Choice(device, place.checkpoints, place.compiled).layers if place.fp8 else None
    shared: SharedParts = place.memory.shared
    return shared.part(
        kind,
        files,
        (dtype, config, place.fp8),
        lambda: transformer_from_files(files, config=config, cls=kind, dtype=dtype, in_fp8=in_fp8, device=device),
    )


def _json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
