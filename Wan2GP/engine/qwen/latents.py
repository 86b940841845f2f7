"""Between pixels and latents of a Qwen-Image model. A latent pixel is 8 x 8 pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from Wan2GP.engine.request import Frame
from Wan2GP.engine.stock.remembering import remembering
from Wan2GP.engine.stock.running import as_frames


def scale_of(pipeline: Any) -> int:
    """Pixels a side of a latent pixel."""
    return int(pipeline.vae_scale_factor)


def latent_size(pipeline: Any, size: tuple[int, int]) -> tuple[int, int]:
    """(h, w) of the latents of a picture of `size` = (width, height)."""
    return size[1] // scale_of(pipeline), size[0] // scale_of(pipeline)


@torch.inference_mode()
def encode(pipeline: Any, picture: Frame) -> torch.Tensor:
    """(H, W, 3) uint8 -> normalised latents (1, C, h, w) float32: the mean of the posterior. Each picture is encoded
    once."""
    return remembering(pipeline).of("latents", ["vae"], [picture], lambda: _encoded(pipeline, picture))


def _encoded(pipeline: Any, picture: Frame) -> torch.Tensor:
    values = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None, :, None].float().div_(127.5).sub_(1)
    vae = pipeline.vae
    found = vae.encode(values.to(pipeline._execution_device, vae.dtype)).latent_dist.mode().float()
    mean, spread = _statistics(vae, found.device)
    latents: torch.Tensor = ((found - mean) / spread)[:, :, 0]
    return latents


@torch.inference_mode()
def decode(pipeline: Any, latents: torch.Tensor) -> Frame:
    """Normalised latents (1, C, h, w) -> (H, W, 3) uint8."""
    vae = pipeline.vae
    mean, spread = _statistics(vae, latents.device)
    values = latents.float()[:, :, None] * spread + mean
    pixels = vae.decode(values.to(vae.dtype), return_dict=False)[0][0, :, 0]
    return as_frames((pixels.float() / 2 + 0.5).permute(1, 2, 0).cpu().numpy())


def free_cells(mask: npt.NDArray[np.bool_], scale: int) -> torch.Tensor:
    """(1, 1, h, w) of a mask (H, W): 1 for a latent pixel with any drawn pixel in it, 0 for one that is wholly kept."""
    whole = torch.from_numpy(mask.astype(np.float32))[None, None]
    return torch.nn.functional.max_pool2d(whole, scale)


def _statistics(vae: Any, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    shape = (1, -1, 1, 1, 1)
    mean = torch.tensor(vae.config.latents_mean, device=device).view(shape)
    return mean, torch.tensor(vae.config.latents_std, device=device).view(shape)
