"""Between pixels and latents: the VAE of a Wan model."""

from __future__ import annotations

import numpy as np
import torch

from Wan2GP.engine.wan.parts import WanParts
from Wan2GP.media import Frame


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
def decode(parts: WanParts, latents: torch.Tensor) -> np.ndarray:
    """Normalised latents (1, C, F', H', W') -> frames (F, H, W, 3) uint8."""
    mean, spread = _statistics(parts)
    with parts.using("vae") as vae:
        return to_frames(vae.decode((latents.float() * spread + mean).to(vae.dtype), return_dict=False)[0])


def still(frame: Frame) -> torch.Tensor:
    """(H, W, 3) uint8 -> (1, 3, 1, H, W) in [-1, 1]."""
    return to_tensor(frame[None])
