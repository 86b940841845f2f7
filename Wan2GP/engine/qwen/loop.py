"""The denoise loop of Qwen-Image: one loop for text, pictures to go by, and a picture of which a part is kept.

The stock pipelines read every picture at 1024 x 1024 whatever the result's size, need torchvision, and cannot run the
last part of a schedule of their own. Their numbers are those of this loop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch

from Wan2GP.engine.stock.hires import noised
from Wan2GP.engine.stock.tokens import PATCH, packed, unpacked


@dataclass(frozen=True)
class Conditions:
    """What a picture is made from."""

    #: states (1, T, D) of the prompt, and of the negative one; None: no guidance
    positive: torch.Tensor
    negative: torch.Tensor | None
    guidance: float
    #: latents (1, C, h, w) of the pictures to go by
    references: tuple[torch.Tensor, ...] = ()


@dataclass(frozen=True)
class Kept:
    """Latents (1, C, h, w) of a picture, and where they are kept: (1, 1, h, w), 1 draws and 0 keeps."""

    latents: torch.Tensor
    drawn: torch.Tensor

    def put_back(self, latents: torch.Tensor, noise: torch.Tensor, sigma: float) -> torch.Tensor:
        """`latents` with what is kept in its place, at a noise level."""
        return self.drawn * latents + (1 - self.drawn) * noised(self.latents, noise, sigma)


@torch.inference_mode()
def denoise(
    transformer: Any,
    latents: torch.Tensor,
    noise: torch.Tensor,
    levels: torch.Tensor,
    conditions: Conditions,
    kept: Kept | None,
    stepped: Callable[[Callable[[], torch.Tensor]], object],
) -> torch.Tensor:
    """Clean latents (1, C, h, w) float32 of `latents` at the first of `levels`, by Euler's method.

    `stepped` is called after each step, with what gives the clean latents as it predicts them; what it raises ends the
    run.
    """
    shapes = [_shape(each) for each in (latents, *conditions.references)]
    beside = [packed(each) for each in conditions.references]
    sigmas = levels.to(latents.device)
    size = (latents.shape[2], latents.shape[3])
    if kept is not None:
        latents = kept.put_back(latents, noise, float(levels[0]))
    for sigma, following in pairwise(sigmas):
        velocity = unpacked(_guided(transformer, packed(latents), beside, shapes, sigma, conditions), size)
        clean = partial(torch.sub, latents, sigma * velocity)
        latents = latents + (following - sigma) * velocity
        if kept is not None:
            latents = kept.put_back(latents, noise, float(following))
        stepped(clean)
    return latents


def _guided(
    transformer: Any,
    tokens: torch.Tensor,
    beside: list[torch.Tensor],
    shapes: list[tuple[int, int, int]],
    sigma: torch.Tensor,
    conditions: Conditions,
) -> torch.Tensor:
    """The velocity of each token: n + g (p - n), and its length that of p."""

    def predicted(states: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = transformer(
            hidden_states=torch.cat([tokens, *beside], dim=1).to(transformer.dtype),
            timestep=sigma.expand(1).to(transformer.dtype),
            encoder_hidden_states=states,
            encoder_hidden_states_mask=None,
            img_shapes=[shapes],
            return_dict=False,
        )[0]
        return found[:, : tokens.shape[1]].float()

    positive = predicted(conditions.positive)
    if conditions.negative is None:
        return positive
    negative = predicted(conditions.negative)
    both = negative + conditions.guidance * (positive - negative)
    return both * (positive.norm(dim=-1, keepdim=True) / both.norm(dim=-1, keepdim=True))


def _shape(latents: torch.Tensor) -> tuple[int, int, int]:
    """Frames, rows and columns of tokens."""
    return 1, latents.shape[2] // PATCH, latents.shape[3] // PATCH
