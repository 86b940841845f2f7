"""The noise levels of LTX-Video's passes, and the size of the first. No torch here.

A second pass (`hires_scale` above 1) makes the video smaller first, doubles its sides in the latents and refines it.
"""

from __future__ import annotations

import math

from Wan2GP.engine.numbers import Numbers
from Wan2GP.engine.request import GenerationRequest
from Wan2GP.errors import InvalidInput
from Wan2GP.media import snap_size

#: the published upsampler doubles the sides
_MOST_SCALE = 2
#: noise at the end of the first, linear half of a schedule
_LINEAR_UNTIL = 0.025


def levels_of(request: GenerationRequest) -> tuple[float, ...]:
    """The explicit noise levels of the first pass (1 is noise alone); empty: the pipeline's own schedule."""
    return request.sampling.sigmas


def begun_steps(request: GenerationRequest) -> int:
    """Steps of the first pass: the whole schedule, or its last part where a control video is redrawn."""
    count = request.sampling.num_inference_steps
    return int(count * request.sampling.denoising_strength) if _redrawn(request) else count


def refining_levels(request: GenerationRequest) -> tuple[float, ...]:
    """The noise levels of the second pass; empty: there is none.

    A distilled model has levels of its own. Else they are the last `hires_steps` of a schedule of which these are the
    share `hires_denoise`.
    """
    numbers = Numbers(request.settings)
    if numbers.real("hires_scale", 1, _MOST_SCALE) == 1:
        return ()
    fixed = request.definition.model.get("refining", {}).get("sigmas")
    if fixed:
        return tuple(float(level) for level in fixed)
    steps, share = numbers.whole("hires_steps", 1, 100), numbers.real("hires_denoise", 0.01, 1)
    return linear_quadratic(max(math.ceil(steps / share - 1e-9), steps))[-steps:]


def first_size(request: GenerationRequest) -> tuple[int, int]:
    """(width, height) of the first pass: the result's by `hires_scale`, floored to the model's pixel block."""
    scale = Numbers(request.settings).real("hires_scale", 1, _MOST_SCALE)
    block = request.definition.architecture.pixel_block
    return snap_size(round(request.width / scale), round(request.height / scale), block)


def check_levels(request: GenerationRequest) -> None:
    """Raises InvalidInput for a scale out of range, a first pass without a pixel, or a redrawn video without a step."""
    refining_levels(request)
    first_size(request)
    if begun_steps(request) < 1:
        raise InvalidInput(
            f"{request.sampling.denoising_strength:g} of {request.sampling.num_inference_steps} steps is less than "
            "one; raise it, or num_inference_steps",
            field="denoising_strength",
        )


def linear_quadratic(count: int) -> tuple[float, ...]:
    """LTX-Video's schedule of noise levels: half of the steps fall linearly from 1 by 0.025, the rest to 0 along the
    parabola that goes on from there with the same slope (HaCohen et al. 2024, "LTX-Video", after Movie Gen 2024)."""
    if count < 2:
        return (1.0,)
    linear = count // 2
    rest = count - linear
    slope = _LINEAR_UNTIL / linear
    bend = (1 - _LINEAR_UNTIL - slope * rest) / rest**2
    first = [1 - slope * step for step in range(linear)]
    return (*first, *(1 - _LINEAR_UNTIL - slope * step - bend * step**2 for step in range(rest)))


def _redrawn(request: GenerationRequest) -> bool:
    return request.video_guide is not None and "G" in request.video_prompt_type
