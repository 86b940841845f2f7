"""FLUX.1: dev and schnell draw what a text says, or a given image anew; Kontext changes an image as it is told."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import DiffusionPipeline, FluxImg2ImgPipeline, FluxInpaintPipeline, FluxKontextPipeline, FluxPipeline

from Wan2GP.engine.request import GenerationRequest
from Wan2GP.engine.stock.redrawing import check_redrawn, drawn_steps, of_area
from Wan2GP.engine.stock.running import as_picture
from Wan2GP.engine.stock.still import READS, Still, scale
from Wan2GP.engine.stock.tokens import packed, unpacked
from Wan2GP.errors import InvalidInput, Unsupported
from Wan2GP.media import resize

#: tokens of a prompt; schnell was trained with fewer
_TOKENS, _TOKENS_SCHNELL = 512, 256


class _Packed(Still):
    """A model whose pipelines give and take latents as tokens."""

    def as_channels(self, latents: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """(1, C, h, w) of tokens."""
        cell = self._pipeline.vae_scale_factor
        return unpacked(latents, (size[1] // cell, size[0] // cell))

    def as_given(self, latents: torch.Tensor) -> torch.Tensor:
        """Tokens of (1, C, h, w)."""
        return packed(latents)


class Flux(_Packed):
    """FLUX.1 dev, schnell and those finetuned from them."""

    reads = READS | {"embedded_guidance_scale", "image_guide", "image_mask", "denoising_strength"}

    @staticmethod
    def pipeline_class() -> type[DiffusionPipeline]:
        """FluxPipeline."""
        return FluxPipeline

    @classmethod
    def steps(cls, request: GenerationRequest) -> int:
        """With an image to begin from, the last part of the schedule alone."""
        return drawn_steps(request) if request.image_guide is not None else request.sampling.num_inference_steps

    @classmethod
    def check(cls, request: GenerationRequest) -> None:
        """Raises InvalidInput for a mask without an image, or a strength that leaves no step; Unsupported for a mask
        that shall be turned around."""
        check_redrawn(request, request.image_guide)
        if request.image_mask is not None and "N" in request.video_prompt_type:
            raise Unsupported(
                f"{request.definition.id} draws the white of a mask; leave N out, and give the mask turned around",
                field="video_prompt_type",
            )
        super().check(request)

    def call(self, request: GenerationRequest) -> tuple[Any, dict[str, Any]]:
        """Text to image, or what a control image (and a mask) show redrawn."""
        schnell = not self._pipeline.transformer.config.guidance_embeds
        arguments: dict[str, Any] = {
            "guidance_scale": scale(request, "embedded_guidance_scale"),
            "max_sequence_length": _TOKENS_SCHNELL if schnell else _TOKENS,
        }
        if request.image_guide is None:
            return self._pipeline, arguments
        arguments |= {
            "image": as_picture(resize(request.image_guide, request.size)),
            "strength": request.sampling.denoising_strength,
        }
        if request.image_mask is None:
            return self.with_pipeline(FluxImg2ImgPipeline), arguments
        mask = as_picture(resize(request.image_mask, request.size)).convert("L")
        return self.with_pipeline(FluxInpaintPipeline), arguments | {"mask_image": mask}


class FluxKontext(_Packed):
    """FLUX.1 Kontext: an image (the reference) and what to change of it."""

    reads = READS | {"embedded_guidance_scale", "image_refs", "video_prompt_type", "remove_background_images_ref"}

    @staticmethod
    def pipeline_class() -> type[DiffusionPipeline]:
        """FluxKontextPipeline."""
        return FluxKontextPipeline

    @classmethod
    def check(cls, request: GenerationRequest) -> None:
        """Raises Unsupported for more than one reference, InvalidInput where letters speak of one that is not there."""
        if not request.references and set("KI") & set(request.video_prompt_type):
            raise InvalidInput(
                f"is missing: {request.definition.id} changes an image; give one, or leave K and I out of "
                "video_prompt_type for an image of the prompt alone",
                field="image_refs",
            )
        if len(request.references) > 1:
            raise Unsupported(
                f"{request.definition.id} changes one image, not {len(request.references)}; put them into one picture",
                field="image_refs",
            )
        super().check(request)

    def call(self, request: GenerationRequest) -> tuple[Any, dict[str, Any]]:
        """The result has exactly the size asked for; the reference keeps its shape, at about the result's area."""
        width, height = request.size
        arguments: dict[str, Any] = {
            "guidance_scale": scale(request, "embedded_guidance_scale"),
            "max_area": width * height,
            "_auto_resize": False,
        }
        if request.references:
            arguments["image"] = as_picture(of_area(request.references[0], width * height, block=16))
        return self._pipeline, arguments
