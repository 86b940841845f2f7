"""The denoise loop of the Wan family: predict, step, report; stopped or taken up between any two steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch

from Wan2GP.engine.families import Cancel, Report
from Wan2GP.engine.wan.conditions import Conditions
from Wan2GP.engine.wan.solvers import Solver, noise_like
from Wan2GP.engine.wan.steps import Step
from Wan2GP.errors import GenerationCancelled
from Wan2GP.schedules import Levels


class Adapters(Protocol):
    """What changes a model's weights from step to step (LoRAs)."""

    def at_step(self, step: int) -> None:
        """Make the weights those of this step."""


class Memory(Protocol):
    """Where a run keeps what it needs to go on after the process died."""

    def load(self) -> dict[str, Any] | None:
        """What was kept last; None when nothing was."""

    def keep(self, state: Callable[[], dict[str, Any]], at_once: bool = False) -> None:
        """Keep a new state, when it is time to, or now."""


@torch.inference_mode()
def denoise(
    conditions: Conditions,
    steps: tuple[Step, ...],
    levels: Levels,
    seed: int,
    adapters: Adapters,
    memory: Memory,
    report: Report,
    cancel: Cancel,
    held: frozenset[int] = frozenset(),
) -> torch.Tensor:
    """The video's clean latents (1, C, F', H', W'), float32. Raises GenerationCancelled before any step.

    The steps `held` go on with the velocity of the step before; nothing is held where a step is not one round.

    All noise comes from one CPU generator, so a seed gives the same latents on every device of one kind, and a run that
    goes on from `memory` gives what an uninterrupted one would have given.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    noise = noise_like(torch.empty(conditions.latent_shape, device=conditions.parts.device), generator)
    solver, rounds = conditions.solver(levels), conditions.rounds(steps)
    held = held if len(rounds) == len(steps) else frozenset()
    first, latents, velocity = _taken_up(memory, solver, conditions, generator)
    if latents is None:
        latents = conditions.start(noise, steps[0].sigma)
        latents = conditions.after_step(latents, noise, steps[0], steps[0].sigma)
    report("denoising", first, len(rounds))
    conditions.begin_to_show()
    for number, step in enumerate(rounds[first:], start=first):
        kept = velocity if number in held else None
        _stop_if_asked(cancel, memory, lambda: _state(number, latents, kept, solver, conditions, generator))  # noqa: B023
        if kept is None:
            adapters.at_step(step.index)
            velocity = conditions.predict(step, latents)
        assert velocity is not None
        conditions.show(number + 1, step, latents, velocity)
        latents = solver.step(velocity, number, latents, generator)
        following = rounds[number + 1].sigma if number + 1 < len(rounds) else 0.0
        latents = conditions.after_step(latents, noise, step, following)
        done = number + 1
        kept = velocity if done in held else None
        memory.keep(
            lambda: _state(done, latents, kept, solver, conditions, generator),  # noqa: B023 - called at once
            at_once=done == len(rounds),
        )
        report("denoising", done, len(rounds))
    cancel.raise_if_requested()
    return conditions.video(latents)


def _stop_if_asked(cancel: Cancel, memory: Memory, state: Callable[[], dict[str, Any]]) -> None:
    """Raises GenerationCancelled, once the state is kept: a worker that shuts down stops its run the same way."""
    try:
        cancel.raise_if_requested()
    except GenerationCancelled:
        memory.keep(state, at_once=True)
        raise


def _state(
    following: int,
    latents: torch.Tensor,
    velocity: torch.Tensor | None,
    solver: Solver,
    conditions: Conditions,
    generator: torch.Generator,
) -> dict[str, Any]:
    return {
        "step": following,
        "latents": latents,
        "velocity": velocity,
        "generator": generator.get_state(),
        "solver": solver.state(),
        "guidance": conditions.guidance.state(),
    }


def _taken_up(
    memory: Memory, solver: Solver, conditions: Conditions, generator: torch.Generator
) -> tuple[int, torch.Tensor | None, torch.Tensor | None]:
    """The step to go on with, its latents, and the velocity that it holds; 0 and nothing else for a new run."""
    kept = memory.load()
    if kept is None:
        return 0, None, None
    device = conditions.parts.device
    solver.restore(_moved(kept["solver"], device))
    conditions.guidance.restore(_moved(kept["guidance"], device))
    generator.set_state(kept["generator"])
    return kept["step"], kept["latents"].to(device), _moved(kept["velocity"], device)


def _moved(value: Any, device: torch.device) -> Any:
    """A state that was read to the CPU, its tensors on the device of the run."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {name: _moved(each, device) for name, each in value.items()}
    return [_moved(each, device) for each in value] if isinstance(value, list) else value
