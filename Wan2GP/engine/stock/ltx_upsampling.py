"""The network that doubles the sides of LTX-Video's latents, loaded for the moment that it is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import LTXLatentUpsamplePipeline
from diffusers.pipelines.ltx.modeling_latent_upsampler import LTXLatentUpsamplerModel

from Wan2GP.definitions import ModelDefinition, how_to_fetch
from Wan2GP.engine.families import Place
from Wan2GP.engine.loading import free_memory, weights_dtype
from Wan2GP.engine.stock.loading import network
from Wan2GP.errors import ModelUnavailable
from Wan2GP.layout import where


def upsampled(latents: torch.Tensor, vae: Any, definition: ModelDefinition, place: Place) -> torch.Tensor:
    """Normalised latents (1, C, F, H, W) -> (1, C, F, 2 H, 2 W).

    A model's `refining` says how far their statistics are moved to those before (`adain_factor`, 0-1) and how far
    large values are compressed (`tone_map_compression_ratio`, 0-1). Raises ModelUnavailable when the weights are
    not there, with the command that fetches them.
    """
    refining = definition.model.get("refining", {})
    folder = require_upsampler(definition, place)
    network_ = network(LTXLatentUpsamplerModel, folder, weights_dtype(place.device)).to(place.device)
    pipeline = LTXLatentUpsamplePipeline(vae=vae, latent_upsampler=network_)
    pipeline.set_progress_bar_config(disable=True)
    height, width = latents.shape[-2:]
    larger: torch.Tensor = pipeline(
        latents=latents,
        height=2 * height * pipeline.vae_spatial_compression_ratio,
        width=2 * width * pipeline.vae_spatial_compression_ratio,
        adain_factor=float(refining.get("adain_factor", 0.0)),
        tone_map_compression_ratio=float(refining.get("tone_map_compression_ratio", 0.0)),
        output_type="latent",
    ).frames
    del pipeline, network_
    free_memory()
    return larger


def require_upsampler(definition: ModelDefinition, place: Place) -> Path:
    """The folder of its weights. Raises ModelUnavailable, with the command that fetches them, when they are missing."""
    layout = where(definition, place.checkpoints)
    folder: Path | None = layout.upsampler if layout else None
    if folder is None:
        raise ModelUnavailable(f'{definition.id} has no "refining" with an "upsampler" in its definition')
    if not (folder / "latent_upsampler" / "config.json").is_file():
        raise ModelUnavailable(
            f"the second pass of {definition.id} needs {folder / 'latent_upsampler'}. "
            f"{how_to_fetch(definition, place.checkpoints / definition.weights_of)}"
        )
    return folder / "latent_upsampler"
