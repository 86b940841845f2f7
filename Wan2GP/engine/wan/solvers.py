"""Samplers: from a prediction of the velocity to the latents of the next, lower noise level."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler

from Wan2GP.schedules import TRAIN_STEPS, Levels


class Solver(Protocol):
    """One run of a sampler. Latents are float32; `velocity` is noise minus signal."""

    def step(
        self, velocity: torch.Tensor, index: int, latents: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        """The latents after step `index`. Steps are taken in order."""

    def state(self) -> dict[str, Any]:
        """What later steps depend on, as tensors and plain values."""

    def restore(self, state: dict[str, Any]) -> None:
        """Take up where `state` was made."""


def make_solver(name: str, sigmas: Levels, device: torch.device) -> Solver:
    """The sampler of that name over the noise levels (N,), each in (0, 1]; 0 is understood after the last."""
    levels = np.append(sigmas, 0.0)
    if name in ("euler", "causvid"):
        return _Euler(levels)
    if name == "lcm":
        return _Consistency(levels)
    return _Multistep(_multistep_scheduler(name), levels, device)


class _Euler:
    """x + (s' - s) v: one Euler step of the probability flow."""

    def __init__(self, levels: Levels) -> None:
        self._levels = levels

    def step(
        self, velocity: torch.Tensor, index: int, latents: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        return torch.add(latents, velocity, alpha=float(self._levels[index + 1] - self._levels[index]))

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Nothing is kept between steps."""


class _Consistency(_Euler):
    """The clean picture is predicted and noised anew to the next level (Luo et al. 2023, latent consistency models)."""

    def step(
        self, velocity: torch.Tensor, index: int, latents: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        clean = latents - float(self._levels[index]) * velocity
        following = float(self._levels[index + 1])
        if following == 0:
            return clean
        return (1 - following) * clean + following * noise_like(latents, generator)


class _Multistep:
    """A multistep scheduler of diffusers, driven over our own levels."""

    def __init__(self, scheduler: Any, levels: Levels, device: torch.device) -> None:
        levels = np.minimum(levels, _MOST_NOISE)
        count = len(levels) - 1
        scheduler.set_timesteps(count, device=device)
        scheduler.sigmas = torch.tensor(levels, dtype=torch.float32)
        scheduler.timesteps = torch.tensor(levels[:-1] * TRAIN_STEPS, dtype=torch.float32, device=device)
        scheduler.num_inference_steps = count
        scheduler.set_begin_index(0)
        self._scheduler = scheduler
        self._sde = scheduler.config.get("algorithm_type") == "sde-dpmsolver++"

    def step(
        self, velocity: torch.Tensor, index: int, latents: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        extra = {"variance_noise": noise_like(latents, generator)} if self._sde else {}
        moment = self._scheduler.timesteps[index]
        found: torch.Tensor = self._scheduler.step(velocity, moment, latents, return_dict=False, **extra)[0]
        return found

    def state(self) -> dict[str, Any]:
        own = {key: value for key, value in vars(self._scheduler).items() if key in _RUNNING}
        return {key: list(value) if isinstance(value, list) else value for key, value in own.items()}

    def restore(self, state: dict[str, Any]) -> None:
        vars(self._scheduler).update(state)


#: log-SNR, in which these samplers step, has no value at pure noise; the level that diffusers puts in its place
_MOST_NOISE = 1 - 1e-6

#: what diffusers' multistep schedulers carry from step to step
_RUNNING = frozenset({"model_outputs", "timestep_list", "lower_order_nums", "last_sample", "_step_index", "this_order"})


def _multistep_scheduler(name: str) -> Any:
    common = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "num_train_timesteps": TRAIN_STEPS}
    if name in ("", "unipc"):
        return UniPCMultistepScheduler(**common)
    kind = "sde-dpmsolver++" if name == "dpm++_sde" else "dpmsolver++"
    return DPMSolverMultistepScheduler(algorithm_type=kind, solver_order=2, **common)


def noise_like(latents: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Standard normal noise drawn on the generator's device (the CPU), so that a seed gives the same everywhere."""
    return torch.randn(latents.shape, generator=generator, dtype=torch.float32).to(latents.device)
