"""HunyuanCustom: a video from text that shows the subject of a picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline, HunyuanVideoImageToVideoPipeline, HunyuanVideoPipeline

from Wan2GP.definitions import ModelDefinition
from Wan2GP.engine.families import Place
from Wan2GP.engine.request import Frame, GenerationRequest
from Wan2GP.engine.stock.hunyuan import Hunyuan
from Wan2GP.engine.stock.hunyuan_identity import ShownFirst, ShownFirstPositions, on_white, read
from Wan2GP.engine.stock.running import as_frames, as_picture, running, seeded
from Wan2GP.engine.stock.video import READS, Part, Steps
from Wan2GP.engine.wan.window import Frames
from Wan2GP.errors import InvalidInput, Unsupported

#: what the prompt calls the subject, and what a negative prompt calls it
_SUBJECT, _NOBODY = "object", "person"
_WHITE = 255


class HunyuanCustom(Hunyuan):
    """One subject, from one picture on white; guidance is classifier-free."""

    reads = READS | {"flow_shift", "image_refs", "video_prompt_type", "remove_background_images_ref"}

    @staticmethod
    def pipeline_class() -> type[DiffusionPipeline]:
        """The image-to-video pipeline has the same parts, LLaVA among them."""
        return HunyuanVideoImageToVideoPipeline

    @classmethod
    def load(cls, definition: ModelDefinition, place: Place) -> Any:
        """The parts; the transformer counts positions from the picture on."""
        pipeline = super().load(definition, place)
        pipeline.transformer.rope = ShownFirstPositions(pipeline.transformer.rope)
        return pipeline

    @classmethod
    def check(cls, request: GenerationRequest) -> None:
        """Raises InvalidInput or Unsupported for anything but one picture."""
        super().check(request)
        if not request.references:
            raise InvalidInput(f"{request.definition.id} shows the subject of a picture; give one", field="image_refs")
        if len(request.references) > 1:
            raise Unsupported(
                f"{request.definition.id} was made for one subject, not {len(request.references)}", field="image_refs"
            )
        if set("KF") & set(request.video_prompt_type):
            raise Unsupported(
                "the picture is a subject (I), no background (K) and no frame of the video (F)",
                field="video_prompt_type",
            )

    @torch.no_grad()
    def draw(self, part: Part, steps: Steps) -> Frames:
        """A video with the subject of the reference."""
        request, pipeline = part.request, self._pipeline
        picture, generator = request.references[0], seeded(request.seed)
        pipeline.scheduler.set_shift(1.0 if request.sampling.sigmas else request.sampling.flow_shift)
        with running(pipeline):
            texts = self._texts(request, picture)
            drawing = _text_pipeline(pipeline, self._shown(picture, request.size, generator))
            made = drawing(
                width=request.width,
                height=request.height,
                num_frames=part.span.frames,
                num_inference_steps=request.sampling.num_inference_steps,
                sigmas=list(request.sampling.sigmas) or None,
                true_cfg_scale=request.sampling.guidance_scale,
                generator=generator,
                callback_on_step_end=steps(0),
                output_type="np",
                **texts,
            )
        return as_frames(made.frames[0])

    def _texts(self, request: GenerationRequest, picture: Frame) -> dict[str, Any]:
        """The prompt with the picture; the negative one with a white picture, whose tokens then do not count."""
        prompt = read(self._pipeline, request.prompt, _SUBJECT, picture)
        texts = {
            "prompt_embeds": prompt.embeddings,
            "pooled_prompt_embeds": prompt.pooled,
            "prompt_attention_mask": prompt.mask,
        }
        if request.sampling.guidance_scale <= 1:
            return texts
        white = np.full_like(picture, _WHITE)
        negative = read(self._pipeline, request.negative_prompt, _NOBODY, white)
        return texts | {
            "negative_prompt_embeds": negative.embeddings,
            "negative_pooled_prompt_embeds": negative.pooled,
            "negative_prompt_attention_mask": negative.mask_without_picture,
        }

    def _shown(self, picture: Frame, size: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
        """(1, C, 1, H, W): the latents of the picture on white at the video's size."""
        pipeline = self._pipeline
        pixels = pipeline.video_processor.preprocess(as_picture(on_white(picture, size)), size[1], size[0])
        encoded = pipeline.vae.encode(pixels.unsqueeze(2).to(pipeline._execution_device, pipeline.vae.dtype))
        return encoded.latent_dist.sample(generator) * pipeline.vae.config.scaling_factor


def _text_pipeline(pipeline: Any, shown: torch.Tensor) -> Any:
    """The text-to-video pipeline over the same parts, whose transformer is shown the picture."""
    parts = {name: part for name, part in pipeline.components.items() if name != "image_processor"}
    drawing = HunyuanVideoPipeline(**parts | {"transformer": ShownFirst(pipeline.transformer, shown)})
    drawing.set_progress_bar_config(disable=True)
    return drawing
