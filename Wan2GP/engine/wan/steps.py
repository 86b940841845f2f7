"""What happens at each step of a run: noise level, guidance phase, guidance scale, expert. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from Wan2GP.engine.sampling import Sampling
from Wan2GP.errors import InvalidInput
from Wan2GP.schedules import MOST_STEPS, TRAIN_STEPS, Levels, model_sigmas, wan_sigmas


@dataclass(frozen=True)
class Step:
    """One step of the denoise loop."""

    index: int
    #: steps in all
    total: int
    #: noise level in (0, 1]
    sigma: float
    #: guidance phase, from 1
    phase: int
    #: classifier-free guidance; at 1 or less no second pass is made
    guidance: float
    #: which transformer predicts
    expert: str

    @property
    def timestep(self) -> float:
        """The noise level as the models take it: 0-1000."""
        return self.sigma * TRAIN_STEPS


def plan_steps(
    sampling: Sampling, experts: tuple[str, ...], boundary: float | None = None
) -> tuple[tuple[Step, ...], Levels]:
    """The steps of a run and their noise levels (N,).

    A phase begins at the first timestep at or below its threshold. With two experts the second takes over where phase
    `model_switch_phase` ends; where no threshold says so, at the model's own `boundary` (0-1). With a
    `denoising_strength` below 1 only the last part of the schedule is run.
    """
    levels = _levels(sampling)
    first = round((1 - sampling.denoising_strength) * len(levels))
    levels = levels[min(first, len(levels) - 1) :]
    thresholds = _thresholds(sampling, boundary, len(experts))
    hand_over = _hand_over(sampling, thresholds, boundary, len(experts))
    scales = (sampling.guidance_scale, sampling.guidance2_scale, sampling.guidance3_scale)
    steps = []
    for index, sigma in enumerate(levels):
        timestep = float(sigma) * TRAIN_STEPS
        phase = 1 + sum(timestep <= threshold for threshold in thresholds)
        low = hand_over is not None and timestep <= hand_over
        expert = experts[1] if low else experts[0]
        steps.append(Step(index, len(levels), float(sigma), phase, scales[phase - 1], expert))
    return tuple(steps), levels


def _levels(sampling: Sampling) -> Levels:
    if sampling.sigmas:
        return np.asarray(sampling.sigmas, dtype=np.float64)
    count, solver = sampling.num_inference_steps, sampling.solver
    most = MOST_STEPS.get(solver)
    if most is not None and count > most:
        raise InvalidInput(f"{solver} takes at most {most} steps, not {count}", field="num_inference_steps")
    if sampling.wan_schedule:
        return wan_sigmas(count, sampling.flow_shift)
    return model_sigmas(solver, count, sampling.flow_shift)


def _thresholds(sampling: Sampling, boundary: float | None, experts: int) -> tuple[float, ...]:
    """The timesteps where phases 2 and 3 begin."""
    first, second = sampling.switch_threshold, sampling.switch_threshold2
    if not first and experts == 2 and boundary is not None:
        first = boundary * TRAIN_STEPS
    if sampling.guidance_phases == 3 and second > first:
        raise InvalidInput(
            f"is {second:g}, above switch_threshold ({first:g}); phase 3 cannot begin before phase 2",
            field="switch_threshold2",
        )
    return (first, second)[: sampling.guidance_phases - 1]


def _hand_over(sampling: Sampling, thresholds: tuple[float, ...], boundary: float | None, experts: int) -> float | None:
    if experts < 2:
        return None
    if thresholds:
        return thresholds[min(sampling.model_switch_phase, len(thresholds)) - 1]
    # One guidance phase: the noisy expert alone would leave the picture unfinished.
    if sampling.switch_threshold:
        return sampling.switch_threshold
    return boundary * TRAIN_STEPS if boundary is not None else None
