"""Latents as the tokens of a transformer: 2 x 2 latent pixels each, row by row, as FLUX and Qwen-Image take them."""

from __future__ import annotations

import torch

#: latent pixels a side of a token
PATCH = 2


def packed(latents: torch.Tensor) -> torch.Tensor:
    """(B, C, h, w) -> tokens (B, h/2 * w/2, 4 C)."""
    batch, channels, height, width = latents.shape
    split = latents.reshape(batch, channels, height // PATCH, PATCH, width // PATCH, PATCH).permute(0, 2, 4, 1, 3, 5)
    return split.reshape(batch, (height // PATCH) * (width // PATCH), channels * PATCH**2)


def unpacked(tokens: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Tokens -> (B, C, h, w) of `size` = (h, w)."""
    batch, _, channels = tokens.shape
    split = tokens.reshape(batch, size[0] // PATCH, size[1] // PATCH, channels // PATCH**2, PATCH, PATCH)
    return split.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels // PATCH**2, *size)
