"""What a run is conditioned on. The base knows text alone; each kind of model adds what its transformer takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from Wan2GP.engine import latent_pictures
from Wan2GP.engine.request import GenerationRequest
from Wan2GP.engine.wan.guidance import Guidance, negative_attention, without_layers
from Wan2GP.engine.wan.latents import encode, to_tensor
from Wan2GP.engine.wan.parts import WanParts
from Wan2GP.engine.wan.solvers import Solver, make_solver
from Wan2GP.engine.wan.steps import Step
from Wan2GP.engine.wan.window import Window
from Wan2GP.schedules import Levels


@dataclass(frozen=True)
class Prompts:
    """Embeddings (1, T, D) of what to show and what to avoid."""

    positive: torch.Tensor
    negative: torch.Tensor


@dataclass(frozen=True)
class Known:
    """Latents that the result shall keep: put back after each step, noised to the level of that step."""

    #: (1, C, F, H, W)
    latents: torch.Tensor
    #: (1, 1, F, H, W): 1 where they are kept
    where: torch.Tensor
    #: share (0-1) of the steps after which they are put back
    until: float

    def put_back(self, latents: torch.Tensor, noise: torch.Tensor, step: Step, sigma: float) -> torch.Tensor:
        """`latents` of noise level `sigma` with the kept ones in their place."""
        if step.index >= round(self.until * step.total):
            return latents
        kept = (1 - sigma) * self.latents + sigma * noise
        return torch.where(self.where > 0.5, kept, latents)


class Conditions:
    """One window's conditions, ready for the loop. This base conditions on text, and on latents that are kept.

    Subclasses override `forward` (another call of the transformer), `predict` (other passes), `latent_shape` and
    `video` (latent frames that are not part of the video).
    """

    #: the noise of `sliding_window_overlap_noise` is put on the latents of given frames, not on their pixels
    noise_on_latents = False
    #: what the user should know about the window
    remarks: tuple[str, ...] = ()

    def __init__(self, parts: WanParts, request: GenerationRequest, window: Window, prompts: Prompts) -> None:
        self.parts = parts
        self.request = request
        self.window = window
        self.prompts = prompts
        self.guidance = Guidance(request.sampling)
        #: what the transformers compute in; asking them takes a walk through all of their modules
        self.dtype = parts.dtype
        #: latents that are put back after each step, the later over the earlier
        self.known = self._kept()

    # ---- shape

    @property
    def latent_shape(self) -> tuple[int, int, int, int, int]:
        """(1, C, F', H', W') of the latents that are denoised."""
        return self.parts.latent_shape(self.window.frames, self.window.height, self.window.width)

    def video(self, latents: torch.Tensor) -> torch.Tensor:
        """The latents of the video alone."""
        return latents

    @property
    def lead(self) -> int:
        """Decoded frames before the first one of the video."""
        return 0

    @staticmethod
    def check(request: GenerationRequest) -> None:
        """Raises InvalidInput or Unsupported for what these conditions cannot do. Needs no model in memory."""

    # ---- the loop asks

    def rounds(self, steps: Sequence[Step]) -> tuple[Step, ...]:
        """The step that each pass of the loop stands for."""
        return tuple(steps)

    def solver(self, levels: Levels) -> Solver:
        """What takes the passes of the loop."""
        return make_solver(self.request.sampling.solver, levels, self.parts.device)

    def start(self, noise: torch.Tensor, sigma: float) -> torch.Tensor:
        """The latents that the first step begins with, at noise level `sigma`; from given ones when there are any."""
        if self.window.initial is None:
            return noise
        clean = self.encoded(self.window.initial)
        strength = self.request.initial_noise
        mixed = sigma * noise + (1 - sigma) * clean
        return mixed if strength is None else strength * noise + (1 - strength) * clean

    def predict(self, step: Step, latents: torch.Tensor) -> torch.Tensor:
        """The guided velocity (float32) of one step."""
        if step.guidance <= 1:
            with self._against_the_negative(step):
                return self.forward(step, latents, self.prompts.positive).float()
        if self.guidance.waits(step):
            return torch.zeros_like(latents)
        cond = self.forward(step, latents, self.prompts.positive).float()
        with self._layers_of_the_second_pass(step):
            uncond = self.forward(step, latents, self.prompts.negative).float()
        return self.guidance.combined(cond, uncond, step)

    def forward(self, step: Step, latents: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        """One pass of the transformer."""
        return self.call(step, latents, self.timestep(step), prompt)

    def after_step(self, latents: torch.Tensor, noise: torch.Tensor, step: Step, sigma: float) -> torch.Tensor:
        """The latents that the next step, at noise level `sigma`, begins with."""
        for known in self.known:
            latents = known.put_back(latents, noise, step, sigma)
        return latents

    def begin_to_show(self) -> None:
        """The loop begins: whoever watches may be shown something from now on."""
        if self.request.watcher is not None:
            self.request.watcher.begin()

    def show(self, number: int, step: Step, latents: torch.Tensor, velocity: torch.Tensor) -> None:
        """What the video looks like by the prediction of one pass of the loop, to whoever watches."""
        watcher, vae = self.request.watcher, self.parts.vae
        latent_pictures.show(watcher, number, vae, lambda: self.video(self.clean(step, latents, velocity)))

    # ---- for subclasses

    def clean(self, step: Step, latents: torch.Tensor, velocity: torch.Tensor) -> torch.Tensor:
        """The latents without noise, as a step predicts them."""
        return latents - step.sigma * velocity

    def call(
        self, step: Step, hidden: torch.Tensor, timestep: torch.Tensor, prompt: torch.Tensor, **more: Any
    ) -> torch.Tensor:
        """The step's transformer, in its own dtype."""
        with self.parts.using(step.expert) as transformer:
            found: torch.Tensor = transformer(
                hidden_states=hidden.to(self.dtype),
                timestep=timestep,
                encoder_hidden_states=prompt,
                return_dict=False,
                **more,
            )[0]
        return found

    def timestep(self, step: Step) -> torch.Tensor:
        """(1,) float32."""
        return torch.full((1,), step.timestep, dtype=torch.float32, device=self.parts.device)

    def encoded(self, frames: np.ndarray) -> torch.Tensor:
        """(F, H, W, 3) uint8 -> normalised latents."""
        return encode(self.parts, to_tensor(frames))

    # ---- kept latents

    def _kept(self) -> tuple[Known, ...]:
        """The part of a given video outside its mask, and a prefix that the model has no input for."""
        return tuple(known for known in (self._kept_outside_the_mask(), self._kept_prefix()) if known is not None)

    def _kept_outside_the_mask(self) -> Known | None:
        if self.window.initial is None or self.window.mask is None:
            return None
        where = latent_mask(self.window.mask, self.parts) < 0.5
        until = self.request.masking_strength
        return Known(self.encoded(self.window.initial), where.float().to(self.parts.device), until)

    def _kept_prefix(self) -> Known | None:
        frames = self.window.first_frames
        count = (len(frames) - 1) // self.parts.temporal * self.parts.temporal + 1
        if not len(frames):
            return None
        latents = torch.zeros(self.latent_shape, device=self.parts.device)
        given = self.encoded(frames[:count])
        latents[:, :, : given.shape[2]] = given
        where = torch.zeros((1, 1, *self.latent_shape[2:]), device=self.parts.device)
        where[:, :, : given.shape[2]] = 1
        return Known(latents, where, 1.0)

    # ---- passes

    @contextmanager
    def _against_the_negative(self, step: Step) -> Iterator[None]:
        sampling = self.request.sampling
        if sampling.nag_scale <= 1:
            yield
            return
        transformer = self.parts.experts[step.expert]
        with self.parts.using(step.expert):
            negative = transformer.condition_embedder.text_embedder(self.prompts.negative)
        with negative_attention(transformer, negative, sampling):
            yield

    @contextmanager
    def _layers_of_the_second_pass(self, step: Step) -> Iterator[None]:
        if not self.guidance.skips_layers(step):
            yield
            return
        with without_layers(self.parts.experts[step.expert], self.request.sampling.skipped_layers):
            yield


def latent_mask(mask: np.ndarray, parts: WanParts) -> torch.Tensor:
    """(F, H, W) float in [0, 1] -> (1, 1, F', H', W'): the largest value in the pixels and frames of each latent pixel.

    What touches a drawn pixel is drawn.
    """
    pixels = torch.from_numpy(np.ascontiguousarray(mask)).float()[None, None]
    first = torch.nn.functional.max_pool3d(pixels[:, :, :1], (1, parts.spatial, parts.spatial))
    if pixels.shape[2] == 1:
        return first
    rest = torch.nn.functional.max_pool3d(pixels[:, :, 1:], (parts.temporal, parts.spatial, parts.spatial))
    return torch.cat([first, rest], dim=2)
