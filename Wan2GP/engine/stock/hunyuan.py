"""HunyuanVideo: videos from text, and videos that begin with an image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import DiffusionPipeline, HunyuanVideoImageToVideoPipeline, HunyuanVideoPipeline

from Wan2GP.definitions import ModelDefinition
from Wan2GP.engine.families import Place
from Wan2GP.engine.request import Frame, GenerationRequest
from Wan2GP.engine.stock.running import as_frames, as_picture, running, seeded
from Wan2GP.engine.stock.still import scale
from Wan2GP.engine.stock.video import READS, READS_OF_WINDOWS, Part, Steps, Video
from Wan2GP.engine.wan.window import Frames
from Wan2GP.errors import InvalidInput, ModelUnavailable
from Wan2GP.media import resize

#: marks of a chat that the prompt's template is written with: each is one token for the tokenizer that it is made for
_MARKS = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
#: frames that the model whose image is given as channels makes before those of the video
_LEAD = 4


class Hunyuan(Video):
    """HunyuanVideo from text, and the models distilled from it to few steps."""

    reads = READS | {"flow_shift", "embedded_guidance_scale"}

    @staticmethod
    def pipeline_class() -> type[DiffusionPipeline]:
        """HunyuanVideoPipeline."""
        return HunyuanVideoPipeline

    @classmethod
    def load(cls, definition: ModelDefinition, place: Place) -> Any:
        """The pipeline. Raises ModelUnavailable for a tokenizer that the prompt's template is not made for."""
        pipeline = super().load(definition, place)
        if place.device != "cpu":
            pipeline.vae.to(torch.float16)  # as published; in bfloat16 colours show bands
        known = pipeline.tokenizer.get_vocab()
        if lacking := [mark for mark in _MARKS if mark not in known]:
            raise ModelUnavailable(
                f"{definition.id}: its tokenizer does not know {lacking[0]}, so it is not that of Llama 3 which the "
                "prompt's template is written for; fetch the model's own"
            )
        return pipeline

    def draw(self, part: Part, steps: Steps) -> Frames:
        """A video from text."""
        return self._drawn(part, steps)

    def _drawn(self, part: Part, steps: Steps, *, lead: int = 0, **arguments: Any) -> Frames:
        request = part.request
        self._pipeline.scheduler.set_shift(1.0 if request.sampling.sigmas else request.sampling.flow_shift)
        with running(self._pipeline):
            made = self._pipeline(
                prompt=request.prompt,
                width=request.width,
                height=request.height,
                num_frames=part.span.frames + lead,
                num_inference_steps=request.sampling.num_inference_steps,
                sigmas=list(request.sampling.sigmas) or None,
                generator=seeded(request.seed),
                callback_on_step_end=steps(0),
                output_type="np",
                **guidance_of(request),
                **arguments,
            )
        return as_frames(made.frames[0])


class HunyuanImage(Hunyuan):
    """HunyuanVideo that begins with an image, or goes on from the last frame of a video."""

    reads = Hunyuan.reads | READS_OF_WINDOWS | {"image_start"}

    @staticmethod
    def pipeline_class() -> type[DiffusionPipeline]:
        """HunyuanVideoImageToVideoPipeline."""
        return HunyuanVideoImageToVideoPipeline

    @classmethod
    def check(cls, request: GenerationRequest) -> None:
        """Raises InvalidInput for a request with nothing to begin with."""
        super().check(request)
        if request.image_start is None and request.video_source is None:
            raise InvalidInput(
                f"{request.definition.id} begins with an image; give one, or a video_source to go on from",
                field="image_start",
            )

    def draw(self, part: Part, steps: Steps) -> Frames:
        """A video that begins with the image, or with the frame before it."""
        channels = self._pipeline.transformer.config.image_condition_type == "latent_concat"
        return self._drawn(part, steps, lead=_LEAD if channels else 0, image=as_picture(_beginning(part)))


def guidance_of(request: GenerationRequest) -> Mapping[str, Any]:
    """The distilled guidance is a number that the model is given; `guidance_scale` above 1 runs it twice a step."""
    true_scale = request.sampling.guidance_scale
    return {
        "guidance_scale": scale(request, "embedded_guidance_scale"),
        "true_cfg_scale": true_scale,
        "negative_prompt": request.negative_prompt if true_scale > 1 else None,
    }


def _beginning(part: Part) -> Frame:
    if len(part.prefix):
        last: Frame = part.prefix[-1]
        return last
    assert part.request.image_start is not None, "checked"
    return resize(part.request.image_start, part.request.size)
