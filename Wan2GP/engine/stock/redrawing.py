"""Images that are drawn anew from a given one, by the last part of the schedule. No torch here."""

from __future__ import annotations

import math

from Wan2GP.engine.request import Frame, GenerationRequest
from Wan2GP.errors import InvalidInput
from Wan2GP.media import resize


def drawn_steps(request: GenerationRequest) -> int:
    """Steps that diffusers runs of a schedule of n for a strength s: n - floor(n - min(n s, n))."""
    count, strength = request.sampling.num_inference_steps, request.sampling.denoising_strength
    return count - int(max(count - min(count * strength, count), 0))


def check_redrawn(request: GenerationRequest, image: Frame | None) -> None:
    """Raises InvalidInput for a mask without its image, or for a strength so small that no step would be run."""
    if image is None:
        if request.image_mask is not None:
            raise InvalidInput("is the mask of image_guide, which is missing", field="image_mask")
        return
    count, strength = request.sampling.num_inference_steps, request.sampling.denoising_strength
    if count * strength < 1:
        raise InvalidInput(
            f"{strength:g} of {count} steps is less than one; raise it, or num_inference_steps",
            field="denoising_strength",
        )


def of_area(picture: Frame, area: int, *, block: int) -> Frame:
    """The picture in its own shape with about `area` pixels, both sides multiples of `block`."""
    height, width = picture.shape[:2]
    factor = math.sqrt(area / (width * height))
    sides = [max(block, round(side * factor / block) * block) for side in (width, height)]
    return resize(picture, (sides[0], sides[1]))
