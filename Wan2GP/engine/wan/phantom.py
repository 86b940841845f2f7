"""Phantom (Liu et al. 2025, arXiv 2502.11079): a text-to-video model that shows the people and things of references.

The transformer is Wan's own. Each reference fills a picture of the video's size, whole and on white, and becomes one
latent frame after the video's, clean at every step. Three passes make the velocity, as in the authors' program:

    v = v(no references, negative) + a * (v(references, negative) - v(no references, negative))
        + g * (v(references, prompt) - v(references, negative))

with g `guidance_scale` (7.5 there), a `alt_guidance_scale` (5 there), and zero latents for "no references".
"""

from __future__ import annotations

from dataclasses import replace

import torch

from Wan2GP.engine.control.media import references
from Wan2GP.engine.request import GenerationRequest
from Wan2GP.engine.wan.conditions import Conditions, Prompts
from Wan2GP.engine.wan.parts import WanParts
from Wan2GP.engine.wan.steps import Step
from Wan2GP.engine.wan.window import Window
from Wan2GP.errors import InvalidInput, Unsupported

#: as many as the model was trained with
MOST_REFERENCES = 4


class PhantomConditions(Conditions):
    """References after the video. At a `guidance_scale` of 1 or less one pass is made, without any guidance."""

    def __init__(self, parts: WanParts, request: GenerationRequest, window: Window, prompts: Prompts) -> None:
        super().__init__(parts, request, window, prompts)
        pictures = references(replace(request, reference_size=100.0))
        self._references = torch.cat([self.encoded(picture[None]) for picture in pictures], dim=2)

    @staticmethod
    def check(request: GenerationRequest) -> None:
        model, count = request.definition.id, len(request.references)
        if "K" in request.video_prompt_type or "F" in request.video_prompt_type:
            raise Unsupported(
                f"{model} has people and things as references alone, no background (K) and no frames of the video (F); "
                "use I",
                field="video_prompt_type",
            )
        if not count:
            raise InvalidInput(
                f"{model} shows the people and things of reference images; give 1 to {MOST_REFERENCES}",
                field="image_refs",
            )
        if count > MOST_REFERENCES:
            raise InvalidInput(f"{model} takes at most {MOST_REFERENCES} images, not {count}", field="image_refs")

    def predict(self, step: Step, latents: torch.Tensor) -> torch.Tensor:
        more = self.request.sampling.alt_guidance_scale - 1
        if step.guidance <= 1:
            return super().predict(step, latents)
        if self.guidance.waits(step):
            return torch.zeros_like(latents)
        cond = self.forward(step, latents, self.prompts.positive).float()
        with self._layers_of_the_second_pass(step):
            uncond = self.forward(step, latents, self.prompts.negative).float()
            free = uncond if more == 0 else self._without_references(step, latents).float()
        return self.guidance.combined(cond, uncond, step) + more * (uncond - free)

    def forward(self, step: Step, latents: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        return self._beside(self._references, step, latents, prompt)

    def _without_references(self, step: Step, latents: torch.Tensor) -> torch.Tensor:
        return self._beside(torch.zeros_like(self._references), step, latents, self.prompts.negative)

    def _beside(self, beside: torch.Tensor, step: Step, latents: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        """One pass over the video (1, C, F', H', W') with latent frames after it, which are left out of the result."""
        hidden = torch.cat([latents, beside.to(latents.dtype)], dim=2)
        return self.call(step, hidden, self.timestep(step), prompt)[:, :, : latents.shape[2]]
