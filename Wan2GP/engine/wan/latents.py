"""Between pixels and latents: the VAE of a Wan model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify

from Wan2GP.engine.wan.parts import WanParts
from Wan2GP.media import Frame


def laid_out(vae: Any, layout: torch.memory_format) -> Any:
    """The VAE with the weights of its convolutions in time and space in that order, which is then that of what they
    compute too."""
    for module in vae.modules():
        if isinstance(module, torch.nn.Conv3d):
            module.to(memory_format=layout)
    return vae


def to_tensor(frames: np.ndarray) -> torch.Tensor:
    """(F, H, W, 3) uint8 -> (1, 3, F, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(3, 0, 1, 2)[None].float().div_(127.5).sub_(1)


def to_frames(video: torch.Tensor) -> np.ndarray:
    """(1, 3, F, H, W) in [-1, 1] -> (F, H, W, 3) uint8."""
    pixels = ((video[0].float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return pixels.permute(1, 2, 3, 0).cpu().numpy()


def _statistics(parts: WanParts) -> tuple[torch.Tensor, torch.Tensor]:
    shape = (1, parts.latent_channels, 1, 1, 1)
    mean = torch.tensor(parts.vae.config.latents_mean, device=parts.device).view(shape)
    return mean, torch.tensor(parts.vae.config.latents_std, device=parts.device).view(shape)


@torch.inference_mode()
def encode(parts: WanParts, video: torch.Tensor) -> torch.Tensor:
    """(1, 3, F, H, W) in [-1, 1] -> normalised latents (1, C, F', H', W') float32: the mean of the posterior. The same
    video is encoded once."""
    return parts.remembered("latents", "vae", [video], lambda: _encoded(parts, video))


def _encoded(parts: WanParts, video: torch.Tensor) -> torch.Tensor:
    with parts.using("vae") as vae:
        latents = vae.encode(video.to(parts.device, vae.dtype)).latent_dist.mode().float()
    mean, spread = _statistics(parts)
    return (latents - mean) / spread


@torch.inference_mode()
def decoded(parts: WanParts, latents: torch.Tensor) -> Iterator[np.ndarray]:
    """Normalised latents (1, C, F', H', W') -> their frames as they come: (1, H, W, 3) uint8 of the first latent frame,
    (`temporal`, H, W, 3) of each after it.

    The VAE is causal in time and decodes one latent frame after another anyway, so the frames are those of decoding all
    at once, bit for bit; what is in memory does not grow with the video. One decoding at a time: the VAE keeps what the
    next latent frame needs. A VAE that decodes in tiles gives all frames at once.
    """
    mean, spread = _statistics(parts)
    with parts.using("vae") as vae:
        whole = (latents.float() * spread + mean).to(vae.dtype)
        if vae.use_tiling:
            yield to_frames(vae.decode(whole, return_dict=False)[0])
            return
        for part in _decoded_in_parts(vae, whole):
            yield to_frames(part)


def _decoded_in_parts(vae: Any, latents: torch.Tensor) -> Iterator[torch.Tensor]:
    """(1, 3, F, H, W) of each latent frame."""
    vae.clear_cache()
    try:
        inner = vae.post_quant_conv(latents)
        for number in range(inner.shape[2]):
            part = vae.decoder(
                inner[:, :, number : number + 1], feat_cache=vae._feat_map, feat_idx=[0], first_chunk=number == 0
            )
            yield part if vae.config.patch_size is None else unpatchify(part, patch_size=vae.config.patch_size)
    finally:
        vae.clear_cache()


def decode(parts: WanParts, latents: torch.Tensor) -> np.ndarray:
    """Normalised latents (1, C, F', H', W') -> all their frames (F, H, W, 3) uint8."""
    return np.concatenate(list(decoded(parts, latents)))


def still(frame: Frame) -> torch.Tensor:
    """(H, W, 3) uint8 -> (1, 3, 1, H, W) in [-1, 1]."""
    return to_tensor(frame[None])
