"""Noise schedules of the Wan samplers, and where their guidance phases switch. Plain arithmetic; no torch here.

A schedule is `num_inference_steps` noise levels (sigmas) in (0, 1], falling; 0 is understood after the last. A timestep
is 1000 times a sigma. `flow_shift` moves the levels up: s -> shift * s / (1 + (shift - 1) * s) (Esser et al. 2024,
"Scaling Rectified Flow Transformers", equation 23).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Levels = npt.NDArray[np.float64]

TRAIN_STEPS = 1000

#: the samplers of the Wan family; "" is unipc
SOLVERS = ("unipc", "euler", "dpm++", "dpm++_sde", "lcm", "causvid")

#: timesteps at which CausVid was distilled; a shorter run uses the first ones
CAUSVID_TIMESTEPS = (1000, 934, 862, 756, 603, 410, 250, 140, 74)
#: most steps of the samplers that were distilled for few
MOST_STEPS = {"causvid": len(CAUSVID_TIMESTEPS), "lcm": 8}


def shifted(sigmas: Levels, flow_shift: float) -> Levels:
    """The levels moved by a flow shift."""
    return flow_shift * sigmas / (1 + (flow_shift - 1) * sigmas)


def solver_sigmas(solver: str, steps: int, flow_shift: float) -> Levels:
    """The levels (steps,) at which a sampler evaluates the model.

    A sampler that is not ours gets evenly spaced, unshifted timesteps from 1000 to 1, as front ends expect when they
    compute thresholds for one.
    """
    if solver == "euler":
        return shifted(np.linspace(TRAIN_STEPS, 1, steps) / TRAIN_STEPS, flow_shift)
    if solver in ("", "unipc"):
        return shifted(np.linspace(1, 1 / TRAIN_STEPS, steps + 1)[:-1], flow_shift)
    if solver in ("dpm++", "dpm++_sde"):
        return wan_sigmas(steps, flow_shift)
    return np.linspace(TRAIN_STEPS, 1, steps) / TRAIN_STEPS


def wan_sigmas(steps: int, flow_shift: float) -> Levels:
    """The schedule that Wan's own code and its few-step LoRAs use: even from 1 to 0, the 0 left out, shifted."""
    return shifted(np.linspace(1, 0, steps + 1)[:-1], flow_shift)


def model_sigmas(solver: str, steps: int, flow_shift: float) -> Levels:
    """What the engine runs: `solver_sigmas`, but the distilled samplers at the levels that they were distilled for."""
    if solver == "causvid":
        return np.asarray(CAUSVID_TIMESTEPS[:steps], dtype=np.float64) / TRAIN_STEPS
    if solver == "lcm":
        return wan_sigmas(steps, flow_shift)
    return solver_sigmas(solver, steps, flow_shift)


def switch_thresholds(sigmas: Levels, steps_per_phase: Sequence[int]) -> tuple[float | None, ...]:
    """The timestep halfway between the last step of each phase and the first of the next; None when that is past the
    end. One value per boundary."""
    timesteps = sigmas * TRAIN_STEPS
    boundaries = np.cumsum(steps_per_phase)[:-1]
    return tuple(
        float((timesteps[first - 1] + timesteps[first]) / 2) if 0 < first < len(timesteps) else None
        for first in boundaries
    )
