"""Layers that diffusers' Wan transformer has no place for, and the modules beside it that some architectures need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from Wan2GP.definitions import ModelDefinition
from Wan2GP.engine.wan.audio import load_audio_encoder
from Wan2GP.engine.wan.fantasy import load_projector
from Wan2GP.engine.wan.recam import ReCamTransformer
from Wan2GP.errors import ModelUnavailable
from Wan2GP.layout import Layout

_TRANSFORMERS = {"recam_1.3B": ReCamTransformer}


def transformer_class(architecture_name: str, plain: Any) -> Any:
    """The class that the architecture's weights fit; `plain` is diffusers' own."""
    return _TRANSFORMERS.get(architecture_name, plain)


def laid_over(definition: ModelDefinition, modules: tuple[Path, ...]) -> tuple[Path, ...]:
    """Those of the module files whose layers are the transformer's."""
    return () if definition.architecture.audio else modules


def extra_parts(definition: ModelDefinition, layout: Layout, transformer: Any, dtype: torch.dtype) -> dict[str, Any]:
    """Modules for `WanParts.extra`. Raises ModelUnavailable when their files do not fit the transformer."""
    if not definition.architecture.audio:
        return {}
    if layout.audio_encoder is None:
        raise ModelUnavailable(f"the definition of {definition.id} names no audio_encoder")
    encoder = load_audio_encoder(layout.audio_encoder)
    projector = load_projector(layout.modules, transformer, encoder.config.hidden_size, dtype)
    return {"audio_encoder": encoder, "audio_projector": projector}
