"""VACE: a control video, a mask of what to draw, and reference images steer copies of the transformer's blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional

from Wan2GP.engine.request import GenerationRequest
from Wan2GP.engine.wan.conditions import Conditions, Known, Prompts
from Wan2GP.engine.wan.latents import encode, to_tensor
from Wan2GP.engine.wan.parts import WanParts
from Wan2GP.engine.wan.steps import Step
from Wan2GP.engine.wan.window import Window


class VaceConditions(Conditions):
    """The control latents are made once: what to keep, what to draw over, and the mask, for every frame; references
    stand before the video as latent frames of their own, which are denoised too and dropped at the end."""

    def __init__(self, parts: WanParts, request: GenerationRequest, window: Window, prompts: Prompts) -> None:
        self._references = len(window.references)
        super().__init__(parts, request, window, prompts)
        self._control = self._control_latents().to(self.dtype)
        layers = len(parts.transformer.config.vace_layers)
        self._scale = torch.full((layers,), request.control_net_weight, device=parts.device, dtype=self.dtype)

    @property
    def latent_shape(self) -> tuple[int, int, int, int, int]:
        batch, channels, frames, height, width = super().latent_shape
        return batch, channels, frames + self._references, height, width

    def video(self, latents: torch.Tensor) -> torch.Tensor:
        return latents[:, :, self._references :]

    def forward(self, step: Step, latents: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        control: dict[str, Any] = {
            "control_hidden_states": self._control,
            "control_hidden_states_scale": self._scale,
        }
        return self.call(step, latents, self.timestep(step), prompt, **control)

    def start(self, noise: torch.Tensor, sigma: float) -> torch.Tensor:
        """A video-to-video start leaves the references' latents to the noise."""
        if self.window.initial is None:
            return noise
        video = super().start(noise[:, :, self._references :], sigma)
        return torch.cat([noise[:, :, : self._references], video], dim=2)

    def _kept_prefix(self) -> Known | None:
        """The control video holds it."""
        return None

    def _kept_outside_the_mask(self) -> Known | None:
        """The mask is the model's own input; with a video to begin from its latents are kept too."""
        known = super()._kept_outside_the_mask()
        if known is None or not self._references:
            return known
        latents, where = (
            functional.pad(each, (0, 0, 0, 0, self._references, 0)) for each in (known.latents, known.where)
        )
        return Known(latents, where, known.until)

    def _control_latents(self) -> torch.Tensor:
        """(1, 2 C + S * S, R + F', H', W'): kept latents, latents to draw over, and the mask; references R first."""
        video, drawn = control_media(self.window)
        both = torch.cat([encode(self.parts, video * (1 - drawn)), encode(self.parts, video * drawn)], dim=1)
        control = torch.cat([both, self._mask_latents(drawn).to(both.device)], dim=1)
        for reference in self.window.references:
            control = torch.cat([self._reference(reference), control], dim=2)
        return control

    def _mask_latents(self, drawn: torch.Tensor) -> torch.Tensor:
        """(1, 1, F, H, W) -> (1, S * S, F', H / S, W / S): the mask's pixels as channels; the frame nearest in time."""
        side = self.parts.spatial
        pixels = functional.pixel_unshuffle(drawn[0, 0][:, None], side)  # (F, S * S, H / S, W / S)
        frames = (drawn.shape[2] - 1) // self.parts.temporal + 1
        wanted = (frames, *pixels.shape[2:])
        return functional.interpolate(pixels.transpose(0, 1)[None], size=wanted, mode="nearest-exact")

    def _reference(self, reference: np.ndarray) -> torch.Tensor:
        """One latent frame: the reference as something to keep, nothing to draw over, an empty mask."""
        latents = self.encoded(reference[None])
        batch, _, frames, height, width = latents.shape
        side = self.parts.spatial
        mask = torch.zeros((batch, side * side, frames, height, width), device=latents.device)
        return torch.cat([latents, torch.zeros_like(latents), mask], dim=1)


def control_media(window: Window) -> tuple[torch.Tensor, torch.Tensor]:
    """(1, 3, F, H, W) in [-1, 1], 0 where nothing is shown, and (1, 1, F, H, W) of 0 (keep) and 1 (draw); the prefix
    and given images are in place."""
    shape = (window.frames, window.height, window.width)
    video = torch.zeros(1, 3, *shape) if window.guide is None else to_tensor(window.guide)
    mask = torch.ones(1, 1, *shape)
    if window.mask is not None:
        mask = (torch.from_numpy(window.mask) > 0.5).float()[None, None]
    first = window.first_frames
    if len(first):
        video[:, :, : len(first)], mask[:, :, : len(first)] = to_tensor(first), 0
    if window.image_end is not None:
        video[:, :, -1:], mask[:, :, -1:] = to_tensor(window.image_end[None]), 0
    return video, mask
