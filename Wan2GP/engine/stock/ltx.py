"""LTX-Video 0.9.7: videos from text, and from pictures and videos that stand at any frame; in one pass or in two."""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler, LTXConditionPipeline
from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition

from Wan2GP.definitions import ModelDefinition
from Wan2GP.engine.ahead import Ahead
from Wan2GP.engine.control.media import initial_frames
from Wan2GP.engine.families import Place
from Wan2GP.engine.numbers import Numbers
from Wan2GP.engine.request import GenerationRequest
from Wan2GP.engine.stock.ltx_levels import begun_steps, check_levels, first_size, levels_of, refining_levels
from Wan2GP.engine.stock.ltx_pictures import check_pictures, given_of, read_guide_ahead
from Wan2GP.engine.stock.ltx_upsampling import require_upsampler, upsampled
from Wan2GP.engine.stock.running import Stepping, as_frames, as_picture, running, seeded
from Wan2GP.engine.stock.video import READS, READS_OF_WINDOWS, Part, Steps, Video
from Wan2GP.engine.wan.media import spans_of
from Wan2GP.engine.wan.window import Frames
from Wan2GP.errors import InvalidInput
from Wan2GP.media import resize
from Wan2GP.parameters import asked

#: the most frames that the model was made for in one run
MOST_FRAMES = 257

#: as published for 0.9.7: the decoder takes the last step, from this noise level with this share of noise; guidance is
#: held back by this factor; and pictures are given without noise on them
_PUBLISHED = {
    "decode_timestep": 0.05,
    "decode_noise_scale": 0.025,
    "guidance_rescale": 0.7,
    "image_cond_noise_scale": 0.0,
}
#: below 1, so that latents are taken up; of at most 999 levels it leaves out the first alone
_FROM_LATENTS = 0.999


class LTX(Video):
    """LTX-Video 0.9.7 13B, and the model distilled from it, which has levels of its own and needs no guidance."""

    reads = (
        READS
        | READS_OF_WINDOWS
        | {
            "image_start",
            "image_end",
            "image_refs",
            "frames_positions",
            "input_video_strength",
            "video_guide",
            "keep_frames_video_guide",
            "video_mask",
            "video_prompt_type",
            "denoising_strength",
            "hires_scale",
            "hires_steps",
            "hires_denoise",
        }
    )

    @staticmethod
    def pipeline_class() -> type[DiffusionPipeline]:
        """LTXConditionPipeline."""
        return LTXConditionPipeline

    @classmethod
    def load(cls, definition: ModelDefinition, place: Place) -> Any:
        """The pipeline, whose schedule is given as noise levels; that these are not shifted is no news at each run."""
        logging.getLogger(FlowMatchEulerDiscreteScheduler.__module__).setLevel(logging.ERROR)
        return super().load(definition, place)

    @classmethod
    def passes(cls, request: GenerationRequest) -> tuple[int, ...]:
        """One pass, or two: the second refines the enlarged video."""
        return (begun_steps(request), *filter(None, (len(refining_levels(request)),)))

    @classmethod
    def check(cls, request: GenerationRequest) -> None:
        """Raises InvalidInput or Unsupported for pictures, sizes, lengths or levels that the model cannot do."""
        Numbers(request.settings).real("input_video_strength", 0, 1)
        check_levels(request)
        check_pictures(request)
        super().check(request)
        longest = max(span.frames for span in spans_of(request))
        if longest > MOST_FRAMES:
            raise InvalidInput(
                f"{longest} frames in one run are more than the {MOST_FRAMES} that {request.definition.id} can make",
                field="sliding_window_size",
            )

    @staticmethod
    def read_ahead(request: GenerationRequest, ahead: Ahead) -> None:
        """Also the control frames that the first window shows."""
        Video.read_ahead(request, ahead)
        read_guide_ahead(request, ahead)

    def remarks_on(self, request: GenerationRequest) -> tuple[str, ...]:
        """Which knobs do nothing for a model with levels of its own."""
        fixed = request.definition.model.get("refining", {}).get("sigmas")
        idle = sorted(asked(request.settings) & {"hires_steps", "hires_denoise"}) if fixed else []
        return (f"no effect on {request.definition.id}, whose levels are fixed: {', '.join(idle)}",) if idle else ()

    def draw(self, part: Part, steps: Steps) -> Frames:
        """One window: as large as asked for, or smaller first, enlarged in the latents and refined."""
        request = part.request
        arguments = self._arguments(part)
        if not refining_levels(request):
            return self._decoded(self._first(part, request.size, arguments, steps(0), "np"))
        require_upsampler(request.definition, self._place)
        width, height = first_size(request)
        small = self._first(part, (width, height), arguments, steps(0), "latent")
        large = upsampled(small, self._pipeline.vae, request.definition, self._place)
        frames = self._call(
            (2 * width, 2 * height),
            seeded(request.seed),
            steps(begun_steps(request)),
            "np",
            **arguments,
            latents=large,
            timesteps=[1000.0, *(1000 * level for level in refining_levels(request))],
            denoise_strength=_FROM_LATENTS,
        )
        return np.stack([resize(frame, request.size) for frame in self._decoded(frames)])

    def _arguments(self, part: Part) -> dict[str, Any]:
        """What both passes are given."""
        request = part.request
        strength = Numbers(request.settings).real("input_video_strength", 0, 1)
        conditions = [
            LTXVideoCondition(video=[as_picture(frame) for frame in given.frames], frame_index=given.index)
            if len(given.frames) > 1
            else LTXVideoCondition(image=as_picture(given.frames[0]), frame_index=given.index)
            for given in given_of(part)
        ]
        for condition in conditions:
            condition.strength = strength
        return {
            "prompt": request.prompt,
            "negative_prompt": request.negative_prompt,
            "conditions": conditions or None,
            "num_frames": part.span.frames,
            "frame_rate": request.fps,
            "guidance_scale": request.sampling.guidance_scale,
            **_PUBLISHED,
        }

    def _first(
        self, part: Part, size: tuple[int, int], arguments: dict[str, Any], stepping: Stepping, output: str
    ) -> Any:
        """The pass that begins from noise, or from a control video with some noise on it."""
        request = part.request
        generator = seeded(request.seed)
        levels = levels_of(request)
        begun: dict[str, Any] = {"timesteps": [1000 * level for level in levels]} if levels else {}
        if begun_steps(request) < request.sampling.num_inference_steps:
            begun["latents"] = self._latents(part, size)
            begun["denoise_strength"] = request.sampling.denoising_strength
        steps = {"num_inference_steps": request.sampling.num_inference_steps}
        return self._call(size, generator, stepping, output, **arguments, **steps, **begun)

    def _call(
        self, size: tuple[int, int], generator: torch.Generator, stepping: Stepping, output: str, **arguments: Any
    ) -> Any:
        # A scheduler that adds noise at each step, as some published ones do, draws it from torch's own generator.
        # Only that of the model's own device is put back: asking the others for theirs would take memory there.
        devices = [] if self._place.device == "cpu" else [self._place.device]
        stepping.unpacked = lambda tokens: self._as_video(tokens, size, arguments["num_frames"])
        with running(self._pipeline), torch.random.fork_rng(devices):
            torch.manual_seed(generator.initial_seed())
            return self._pipeline(
                width=size[0],
                height=size[1],
                generator=generator,
                callback_on_step_end=stepping,
                output_type=output,
                **arguments,
            ).frames

    def _as_video(self, tokens: torch.Tensor, size: tuple[int, int], frames: int) -> torch.Tensor:
        """(1, C, F', h, w) of the tokens (1, T, C) that belong to the video: those of pictures stand before them."""
        vae = self._pipeline.vae
        width, height = (side // vae.spatial_compression_ratio for side in size)
        shape = (frames - 1) // vae.temporal_compression_ratio + 1, height, width
        return tokens[:, -math.prod(shape) :].transpose(1, 2).unflatten(2, shape)

    @staticmethod
    def _decoded(frames: Any) -> Frames:
        return as_frames(frames[0])

    @torch.no_grad()
    def _latents(self, part: Part, size: tuple[int, int]) -> torch.Tensor:
        """The latents of the control video where the window is, (1, C, F, H, W) normalised."""
        request, pipeline = part.request, self._pipeline
        assert request.video_guide is not None
        start = part.span.start - request.guide_start
        frames = initial_frames(request.video_guide, request, start, part.span.frames)
        video = pipeline.video_processor.preprocess_video([as_picture(frame) for frame in frames], size[1], size[0])
        with running(pipeline):
            encoded = pipeline.vae.encode(video.to(pipeline._execution_device, pipeline.vae.dtype)).latent_dist.mode()
            return pipeline._normalize_latents(encoded, pipeline.vae.latents_mean, pipeline.vae.latents_std).float()
