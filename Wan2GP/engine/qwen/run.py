"""One still of a Qwen-Image model: its passes, its noise and its noise levels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from Wan2GP.engine.qwen.latents import decode, encode, free_cells, latent_size, scale_of
from Wan2GP.engine.qwen.loop import Conditions, Kept, denoise
from Wan2GP.engine.qwen.pictures import drawn, guide_of, with_kept
from Wan2GP.engine.qwen.requests import Plan
from Wan2GP.engine.qwen.schedule import given_levels, levels
from Wan2GP.engine.request import Frame, GenerationRequest
from Wan2GP.engine.stock.hires import Hires, enlarged, noised
from Wan2GP.engine.stock.running import Stepping, seeded
from Wan2GP.engine.stock.tokens import PATCH
from Wan2GP.media import resize

Size = tuple[int, int]


@dataclass
class Run:
    """One still of a request, on the parts of a pipeline. `stepping` hears of each step of both passes."""

    pipeline: Any
    request: GenerationRequest
    plan: Plan
    conditions: Conditions
    stepping: Stepping
    _done: int = field(default=0, init=False)

    def still(self) -> Frame:
        """(H, W, 3) uint8: what was drawn, and where there is a mask the control image outside of its white."""
        found = decode(self.pipeline, self.latents())
        return found if self.request.image_mask is None else with_kept(found, self.request)

    def latents(self) -> torch.Tensor:
        """Clean latents (1, C, h, w) float32 of the last pass. Raises GenerationCancelled between steps."""
        request, plan = self.request, self.plan
        noise, kept = self._noise(request.size, request.seed), self._kept(request.size)
        schedule = self._levels(request.size, plan.schedule_steps, request.sampling.sigmas)[-plan.steps - 1 :]
        start = noise if kept is None else noised(kept.latents, noise, float(schedule[0]))
        found = self._denoised(start, noise, schedule, kept)
        return found if plan.hires is None else self._second_pass(found, plan.hires)

    def _second_pass(self, latents: torch.Tensor, wanted: Hires) -> torch.Tensor:
        larger = enlarged(latents, latent_size(self.pipeline, wanted.size), wanted.method)
        noise = self._noise(wanted.size, self.request.seed + 1)
        schedule = self._levels(wanted.size, wanted.schedule_steps)[-wanted.steps - 1 :]
        start = noised(larger, noise, float(schedule[0]))
        return self._denoised(start, noise, schedule, self._kept(wanted.size))

    def _denoised(
        self, latents: torch.Tensor, noise: torch.Tensor, schedule: torch.Tensor, kept: Kept | None
    ) -> torch.Tensor:
        return denoise(self.pipeline.transformer, latents, noise, schedule, self.conditions, kept, self._stepped)

    def _stepped(self, clean: Callable[[], torch.Tensor]) -> None:
        self.stepping.after(self.pipeline, self._done, clean)
        self._done += 1

    def _kept(self, size: Size) -> Kept | None:
        """What the mask keeps of the control image, at the size of a pass."""
        if self.request.image_mask is None:
            return None
        picture = encode(self.pipeline, resize(guide_of(self.request), size))
        cells = free_cells(drawn(self.request, size), scale_of(self.pipeline))
        return Kept(picture, cells.to(picture.device))

    def _levels(self, size: Size, steps: int, given: tuple[float, ...] = ()) -> torch.Tensor:
        if given:
            return given_levels(given)
        height, width = latent_size(self.pipeline, size)
        tokens = (height // PATCH) * (width // PATCH)
        return levels(self.pipeline.scheduler, self.request.sampling.solver, steps, tokens)

    def _noise(self, size: Size, seed: int) -> torch.Tensor:
        """Noise (1, C, h, w) that depends on seed and size alone."""
        shape = (1, self.pipeline.vae.config.z_dim, *latent_size(self.pipeline, size))
        return torch.randn(shape, generator=seeded(seed)).to(self.pipeline._execution_device)
