"""Guidance: how the predictions with and without the prompt become one velocity."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from Wan2GP.engine.sampling import Sampling
from Wan2GP.engine.wan.steps import Step

#: APG as Wan users know it (Sadat et al. 2024, "Eliminating oversaturation and artifacts of high guidance scales")
APG_MOMENTUM = -0.75
APG_NORM = 55.0


class Guidance:
    """Combines the passes of one run. APG carries momentum from step to step."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._momentum: torch.Tensor | None = None

    def combined(self, cond: torch.Tensor, uncond: torch.Tensor, step: Step) -> torch.Tensor:
        """The velocity of one step from the prediction with the prompt and the one without."""
        if self.waits(step):
            return torch.zeros_like(cond)
        if self._sampling.apg:
            return self._adaptive(cond, uncond, step.guidance)
        if self._sampling.cfg_star:
            uncond = uncond * _projection(cond, uncond)
        return uncond + step.guidance * (cond - uncond)

    def waits(self, step: Step) -> bool:
        """Whether nothing is predicted at this step yet."""
        return step.index <= self._sampling.cfg_zero_step

    def skips_layers(self, step: Step) -> bool:
        """Whether the pass without the prompt leaves layers out at this step."""
        share = step.index / step.total
        return bool(self._sampling.skipped_layers) and self._sampling.skip_from <= share < self._sampling.skip_until

    def state(self) -> dict[str, Any]:
        """What later steps depend on."""
        return {"momentum": self._momentum}

    def restore(self, state: dict[str, Any]) -> None:
        self._momentum = state["momentum"]

    def _adaptive(self, cond: torch.Tensor, uncond: torch.Tensor, scale: float) -> torch.Tensor:
        """APG: the part of the guidance that only strengthens the prediction is left out, and its norm is bounded, in
        each latent frame by itself."""
        change = cond - uncond
        if self._momentum is not None:
            change = change + APG_MOMENTUM * self._momentum
        self._momentum = change
        change = change * torch.clamp(APG_NORM / _frame_norm(change), max=1.0)
        along = cond / _frame_norm(cond)
        across = change - (change * along).sum(dim=_FRAME, keepdim=True) * along
        return cond + (scale - 1) * across


#: of (1, C, F, H, W): what makes up one latent frame
_FRAME = (1, 3, 4)


def _frame_norm(latents: torch.Tensor) -> torch.Tensor:
    return latents.square().sum(dim=_FRAME, keepdim=True).sqrt().clamp_min(1e-12)


def _projection(cond: torch.Tensor, uncond: torch.Tensor) -> torch.Tensor:
    """The factor that brings `uncond` closest to `cond` (Fan et al. 2025, CFG-Zero*)."""
    return (cond * uncond).sum() / uncond.square().sum().clamp_min(1e-8)


class _Skipped(torch.nn.Module):
    """A transformer block left out."""

    def forward(self, hidden_states: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return hidden_states


@contextmanager
def without_layers(transformer: Any, layers: tuple[int, ...]) -> Iterator[None]:
    """The transformer without some of its blocks while the block runs. Numbers past its last block are ignored."""
    chosen = [layer for layer in layers if layer < len(transformer.blocks)]
    blocks = {layer: transformer.blocks[layer] for layer in chosen}
    try:
        for layer in chosen:
            transformer.blocks[layer] = _Skipped()
        yield
    finally:
        for layer, block in blocks.items():
            transformer.blocks[layer] = block


class NegativeAttention:
    """Cross-attention that also attends to a negative prompt: NAG (Chen et al. 2025, "Normalized attention guidance").

    The two results are extrapolated, bounded in norm by `tau` times the positive one, and mixed by `alpha`. Works
    without a second pass of the model. Image keys of i2v models are attended to as before.
    """

    def __init__(self, plain: Any, negative: torch.Tensor, sampling: Sampling) -> None:
        self._plain = plain
        self._negative = negative
        self._sampling = sampling

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        rotary_emb: Any = None,
    ) -> torch.Tensor:
        assert encoder_hidden_states is not None
        text = self._negative.shape[1]
        image = encoder_hidden_states[:, : encoder_hidden_states.shape[1] - text]
        negative = torch.cat([image, self._negative.to(encoder_hidden_states.dtype)], dim=1)
        with unprojected(attn):
            positive = self._plain(attn, hidden_states, encoder_hidden_states, attention_mask, rotary_emb)
            against = self._plain(attn, hidden_states, negative, attention_mask, rotary_emb)
        out: torch.Tensor = attn.to_out[1](attn.to_out[0](self._guided(positive, against)))
        return out

    def _guided(self, positive: torch.Tensor, against: torch.Tensor) -> torch.Tensor:
        scale, tau, alpha = self._sampling.nag_scale, self._sampling.nag_tau, self._sampling.nag_alpha
        far = positive * scale - against * (scale - 1)
        size = positive.norm(p=1, dim=-1, keepdim=True).clamp_min(1e-8)
        ratio = far.norm(p=1, dim=-1, keepdim=True) / size
        bounded = far * torch.where(ratio > tau, tau / ratio, torch.ones_like(ratio))
        return bounded * alpha + positive * (1 - alpha)


@contextmanager
def unprojected(attn: Any) -> Iterator[None]:
    """Attention whose output projection is left to the caller."""
    projection = attn.to_out
    attn.to_out = torch.nn.ModuleList([torch.nn.Identity(), torch.nn.Identity()])
    try:
        yield
    finally:
        attn.to_out = projection


@contextmanager
def negative_attention(transformer: Any, negative: torch.Tensor, sampling: Sampling) -> Iterator[None]:
    """The transformer with NAG in the cross-attention of its blocks while the block runs.

    `negative`: (1, T, D), the negative prompt's embedding as it leaves the transformer's own text projection.
    """
    blocks = (*transformer.blocks, *getattr(transformer, "vace_blocks", ()))
    attentions = [block.attn2 for block in blocks]
    plain = [attention.processor for attention in attentions]
    try:
        for attention, processor in zip(attentions, plain, strict=True):
            attention.set_processor(NegativeAttention(processor, negative, sampling))
        yield
    finally:
        for attention, processor in zip(attentions, plain, strict=True):
            attention.set_processor(processor)
