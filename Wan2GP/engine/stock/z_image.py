"""Z-Image: images of a text, or a given image drawn anew from some noise on it."""

from __future__ import annotations

from typing import Any

from diffusers import DiffusionPipeline, ZImageImg2ImgPipeline, ZImagePipeline

from Wan2GP.engine.request import GenerationRequest
from Wan2GP.engine.stock.redrawing import check_redrawn, drawn_steps
from Wan2GP.engine.stock.running import as_picture
from Wan2GP.engine.stock.still import READS, Still, scale
from Wan2GP.media import resize


class ZImage(Still):
    """Z-Image Turbo, which needs no guidance, and the model that it was distilled from."""

    reads = READS | {"negative_prompt", "guidance_scale", "image_start", "denoising_strength"}

    @staticmethod
    def pipeline_class() -> type[DiffusionPipeline]:
        """ZImagePipeline."""
        return ZImagePipeline

    @classmethod
    def steps(cls, request: GenerationRequest) -> int:
        """With an image to begin from, the last part of the schedule alone."""
        return drawn_steps(request) if request.image_start is not None else request.sampling.num_inference_steps

    @classmethod
    def check(cls, request: GenerationRequest) -> None:
        """Raises InvalidInput for a strength that leaves no step."""
        check_redrawn(request, request.image_start)
        super().check(request)

    def call(self, request: GenerationRequest) -> tuple[Any, dict[str, Any]]:
        """`guidance_scale` s counts as in the model's own code: p + s (p - n), so that 0 is off."""
        arguments: dict[str, Any] = {
            "guidance_scale": scale(request, "guidance_scale"),
            "negative_prompt": request.negative_prompt or None,
        }
        if request.image_start is None:
            return self._pipeline, arguments
        image = as_picture(resize(request.image_start, request.size))
        arguments |= {"image": image, "strength": request.sampling.denoising_strength}
        return self.with_pipeline(ZImageImg2ImgPipeline), arguments
