"""A second pass over a finished picture: its latents are enlarged, some noise is put on them, and the last steps of a
schedule are run at the new size. For every image family whose latents are a picture of channels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.pipelines.flux.pipeline_flux import calculate_shift

from Wan2GP.engine.measures import enlarged_size
from Wan2GP.engine.numbers import Numbers
from Wan2GP.engine.request import GenerationRequest
from Wan2GP.errors import InvalidInput

#: the knobs, for the `reads` of a family that makes the second pass
READS = frozenset({"hires_scale", "hires_steps", "hires_denoise", "hires_upscale_method"})
METHODS = ("nearest", "bilinear", "bicubic", "area")
#: pixels a side of a result
MOST_SIDE = 4096
_SMOOTH = ("bilinear", "bicubic")
#: 0.1 + 0.2 is not 0.3: what a quotient may lie above a whole number by rounding
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class Hires:
    """What the second pass does."""

    #: (width, height) in pixels of the result
    size: tuple[int, int]
    #: steps that it runs
    steps: int
    #: steps of the schedule that these are the last of
    schedule_steps: int
    #: one of METHODS
    method: str

    @property
    def sigmas(self) -> list[float]:
        """The levels of its steps, evenly spaced: a stock pipeline moves them as it does those of a whole schedule."""
        every = [1 - step / self.schedule_steps for step in range(self.schedule_steps)]
        return every[-self.steps :]


def hires_of(request: GenerationRequest) -> Hires | None:
    """The second pass of a request; None where `hires_scale` is 1.

    The result is the request's size times the scale, floored to the model's pixel block. Of a schedule of
    max(hires_steps, ceil(hires_steps / hires_denoise)) steps the last hires_steps are run. Raises InvalidInput.
    """
    numbers = Numbers(request.settings)
    scale = numbers.real("hires_scale", 1, 4)
    if scale == 1:
        return None
    steps, denoise = numbers.whole("hires_steps", 1, 100), numbers.real("hires_denoise", 0.01, 1)
    method = str(request.settings["hires_upscale_method"])
    if method not in METHODS:
        raise InvalidInput(f"must be one of {', '.join(METHODS)}, not {method!r}", field="hires_upscale_method")
    width, height = enlarged_size(request.size, scale, request.definition)
    if max(width, height) > MOST_SIDE:
        raise InvalidInput(
            f"{scale:g} makes {width}x{height} of {request.width}x{request.height}; at most {MOST_SIDE} pixels a side",
            field="hires_scale",
        )
    total = max(steps, math.ceil(steps / denoise - _ROUNDING))
    return Hires(size=(width, height), steps=steps, schedule_steps=total, method=method)


def first_level(scheduler: Any, wanted: Hires, tokens: int) -> float:
    """The noise level that a stock pipeline begins the second pass at, for a picture of so many tokens."""
    own = type(scheduler).from_config(scheduler.config)
    config = own.config
    shift = calculate_shift(
        tokens, config.base_image_seq_len, config.max_image_seq_len, config.base_shift, config.max_shift
    )
    own.set_timesteps(sigmas=wanted.sigmas, mu=shift)
    return float(own.sigmas[0])


def enlarged(latents: torch.Tensor, size: tuple[int, int], method: str) -> torch.Tensor:
    """Unpacked latents (B, C, h, w) at `size` = (h, w), each channel resampled by itself, in float32."""
    corners = {"align_corners": False} if method in _SMOOTH else {}
    return torch.nn.functional.interpolate(latents.float(), size=size, mode=method, **corners)


def noised(latents: torch.Tensor, noise: torch.Tensor, sigma: float) -> torch.Tensor:
    """The latents at a noise level (0-1) of flow matching: sigma * noise + (1 - sigma) * latents."""
    return sigma * noise + (1 - sigma) * latents
