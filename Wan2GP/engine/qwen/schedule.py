"""The noise levels of Qwen-Image's two schedules."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.qwenimage.pipeline_qwenimage import calculate_shift

DEFAULT, LIGHTNING = "default", "lightning"

#: the Lightning LoRAs were distilled at a shift of 3 whatever the size, without a stretch to a last level
_LIGHTNING = {
    "use_dynamic_shifting": True,
    "time_shift_type": "exponential",
    "base_shift": math.log(3),
    "max_shift": math.log(3),
    "shift_terminal": None,
}


def levels(scheduler: Any, solver: str, steps: int, tokens: int) -> torch.Tensor:
    """Noise levels (steps + 1,) float32 on the CPU, falling from 1 to a last 0.

    `default` is the schedule of the model's own `scheduler`, whose shift grows with the picture's `tokens` (16 x 16
    pixels each). `lightning` is the one of the Lightning LoRAs: s -> 3 s / (1 + 2 s) of evenly spaced levels.
    """
    changes = dict(_LIGHTNING) if solver == LIGHTNING else {}
    if steps == 1:
        # A single level is both the first and the last: it cannot be stretched.
        changes["shift_terminal"] = None
    own = type(scheduler).from_config(scheduler.config, **changes)
    config = own.config
    shift = calculate_shift(
        tokens, config.base_image_seq_len, config.max_image_seq_len, config.base_shift, config.max_shift
    )
    own.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps).tolist(), mu=shift)
    found: torch.Tensor = own.sigmas
    return found


def given_levels(sigmas: tuple[float, ...]) -> torch.Tensor:
    """Levels that the caller wrote, with the last 0."""
    return torch.tensor([*sigmas, 0.0], dtype=torch.float32)
