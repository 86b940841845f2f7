"""SkyReels V2: every latent frame has a noise level of its own, so given frames stand in the video as clean latents,
and the frames after them can be drawn together (model_mode 0) or one block after the other (model_mode 5)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from Wan2GP.engine.request import GenerationRequest
from Wan2GP.engine.wan.conditions import Conditions, Known, Prompts
from Wan2GP.engine.wan.forcing import Round, Stagger, rounds_of
from Wan2GP.engine.wan.parts import WanParts
from Wan2GP.engine.wan.solvers import Solver
from Wan2GP.engine.wan.steps import Step
from Wan2GP.engine.wan.window import Window
from Wan2GP.errors import InvalidInput, Unsupported
from Wan2GP.schedules import TRAIN_STEPS, Levels

#: latent frames of a block in model_mode 5, as the models' authors advise
CAUSAL_BLOCK = 5


class DiffusionForcing(Conditions):
    """SkyReels V2 DF. The start image, or the frames to go on from, are the first latent frames.

    `sliding_window_overlap_noise` is put on their latents, and the model is told so by their timestep; the result holds
    them without it.
    """

    noise_on_latents = True

    def __init__(self, parts: WanParts, request: GenerationRequest, window: Window, prompts: Prompts) -> None:
        configured = int(parts.transformer.config.num_frame_per_block)
        self._block = CAUSAL_BLOCK if request.model_mode and configured == 1 else configured
        super().__init__(parts, request, window, prompts)
        self._given = self._given_latents()

    @staticmethod
    def check(request: GenerationRequest) -> None:
        modes = request.definition.architecture.model_modes
        if request.model_mode not in modes:
            raise InvalidInput(
                f"is {request.model_mode}; {request.definition.id} has 0 (all frames together) and "
                "5 (later frames lag behind)",
                field="model_mode",
            )
        if request.model_mode and request.initial_video is not None:
            raise Unsupported(
                f"{request.definition.id} draws from noise alone in model_mode 5; use model_mode 0",
                field="vid2vid_init_video",
            )

    # ---- shape

    @property
    def latent_shape(self) -> tuple[int, int, int, int, int]:
        """Filled up to whole blocks; `video` leaves out what is too many."""
        batch, channels, frames, height, width = super().latent_shape
        return batch, channels, -(-frames // self._block) * self._block, height, width

    def video(self, latents: torch.Tensor) -> torch.Tensor:
        return self._begun_with(self._given, latents)[:, :, : super().latent_shape[2]]

    # ---- the loop asks

    def rounds(self, steps: Sequence[Step]) -> tuple[Step, ...]:
        return rounds_of(self._stagger(len(steps)), steps, round(self.request.windows.overlap_noise * TRAIN_STEPS))

    def solver(self, levels: Levels) -> Solver:
        stagger, make = self._stagger(len(levels)), super().solver
        return StaggeredSolver(stagger, [make(levels) for _ in stagger.blocks])

    def forward(self, step: Step, latents: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        assert isinstance(step, Round), "the loop goes through `rounds`"
        moments = torch.tensor([step.moments], device=self.parts.device)
        fps = [0 if round(self.request.fps) == 16 else 1]
        with in_causal_blocks(self.parts.transformer, self._block):
            return self.call(step, latents, moments, prompt, enable_diffusion_forcing=True, fps=fps)

    def after_step(self, latents: torch.Tensor, noise: torch.Tensor, step: Step, sigma: float) -> torch.Tensor:
        """The given frames are put back, under the noise that the run drew for their place."""
        latents = super().after_step(latents, noise, step, sigma)
        level = self.request.windows.overlap_noise
        noisy = (1 - level) * self._given + level * noise[:, :, : self._given.shape[2]]
        return self._begun_with(noisy, latents)

    def clean(self, step: Step, latents: torch.Tensor, velocity: torch.Tensor) -> torch.Tensor:
        """Each latent frame is at a noise level of its own."""
        assert isinstance(step, Round), "the loop goes through `rounds`"
        levels = torch.tensor(step.moments, dtype=torch.float32).to(latents.device, non_blocking=True) / TRAIN_STEPS
        return latents - levels[:, None, None] * velocity

    # ---- given frames

    def _given_latents(self) -> torch.Tensor:
        """(1, C, K, H', W'): the frames at the beginning as far as they fill latent frames; K may be 0."""
        frames, temporal = self.window.first_frames, self.parts.temporal
        if not len(frames):
            return torch.zeros(self.latent_shape, device=self.parts.device)[:, :, :0]
        return self.encoded(frames[: (len(frames) - 1) // temporal * temporal + 1])

    def _begun_with(self, given: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        return torch.cat([given, latents[:, :, given.shape[2] :]], dim=2)

    def _kept_prefix(self) -> Known | None:
        """The model has an input for its first frames."""
        return None

    def _stagger(self, steps: int) -> Stagger:
        frames, lag = self.latent_shape[2], self.request.model_mode
        return Stagger(frames, self._given.shape[2], self._block if lag else frames, lag, steps)


class StaggeredSolver:
    """One solver for each block of latent frames, since each is at another step."""

    def __init__(self, stagger: Stagger, solvers: Sequence[Solver]) -> None:
        self._stagger = stagger
        self._solvers = solvers

    def step(
        self, velocity: torch.Tensor, index: int, latents: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        """The latents (1, C, F', H', W') after the round of that number."""
        found = latents.clone()
        for block, step in self._stagger.at_work(index):
            frames, solver = self._stagger.blocks[block], self._solvers[block]
            found[:, :, frames] = solver.step(velocity[:, :, frames], step, latents[:, :, frames], generator)
        return found

    def state(self) -> dict[str, Any]:
        return {"blocks": [solver.state() for solver in self._solvers]}

    def restore(self, state: dict[str, Any]) -> None:
        for solver, kept in zip(self._solvers, state["blocks"], strict=True):
            solver.restore(kept)


@contextmanager
def in_causal_blocks(transformer: Any, frames: int) -> Iterator[None]:
    """While the context lasts, each latent frame attends to its own block of `frames` and to those before it; with
    blocks of 1, to all."""
    before = transformer.config.num_frame_per_block
    transformer.register_to_config(num_frame_per_block=frames)
    try:
        yield
    finally:
        transformer.register_to_config(num_frame_per_block=before)
