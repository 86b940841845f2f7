"""Wan text-to-video through the stock diffusers pipeline, from a local diffusers folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from Wan2GP.definitions import ModelDefinition, how_to_fetch
from Wan2GP.engine.families import Cancel, Place, Report
from Wan2GP.engine.loading import free_memory, place_pipeline, weights_dtype
from Wan2GP.engine.request import Frame, GenerationRequest
from Wan2GP.errors import ModelUnavailable, Unsupported

_SOLVERS = ("", "unipc")


class WanTextToVideo:
    """One resident Wan text-to-video model."""

    reads = frozenset(
        {
            "prompt",
            "negative_prompt",
            "seed",
            "num_inference_steps",
            "guidance_scale",
            "flow_shift",
            "sample_solver",
            "batch_size",
        }
    )

    def __init__(self, definition: ModelDefinition, place: Place, report: Report) -> None:
        """Load the folder's components; nothing is fetched. Raises ModelUnavailable when a file is missing."""
        self._interrupt = False
        self.notes: tuple[str, ...] = ()
        self.remarks: tuple[str, ...] = ()
        report("loading", 0, 1)
        self._pipeline: WanPipeline | None = _load(definition, place)
        self._device = place.device
        report("loading", 1, 1)

    @staticmethod
    def check(request: GenerationRequest) -> None:
        """Raises Unsupported for a sampler that is not there."""
        if request.sample_solver not in _SOLVERS:
            raise Unsupported(
                f"{request.sample_solver!r} is not there in this version; use unipc", field="sample_solver"
            )

    def generate(self, request: GenerationRequest, report: Report, cancel: Cancel) -> Sequence[Frame]:
        """All frames (F, H, W, 3) uint8, or `batch_size` stills, one run each with seeds counted up."""
        assert self._pipeline is not None, "released"
        prompt = self._encoded(request, report, cancel)
        try:
            clips = [
                self._sampled(request, prompt, request.seed + number, report, cancel)
                for number in range(request.batch_size)
            ]
        finally:
            # An exception out of a step callback skips the pipeline's own clearing.
            self._pipeline.maybe_free_model_hooks()
        return np.concatenate(clips)

    def release(self) -> None:
        """Free host and device memory."""
        self._pipeline = None
        free_memory()

    def _encoded(self, request: GenerationRequest, report: Report, cancel: Cancel) -> dict[str, Any]:
        cancel.raise_if_requested()
        report("encoding", 0, 1)
        with torch.inference_mode():
            positive, negative = self._pipeline.encode_prompt(
                request.prompt,
                request.negative_prompt,
                do_classifier_free_guidance=request.guidance_scale > 1,
                device=self._pipeline._execution_device,
            )
        report("encoding", 1, 1)
        cancel.raise_if_requested()
        return {"prompt_embeds": positive, "negative_prompt_embeds": negative}

    def _sampled(
        self, request: GenerationRequest, prompt: dict[str, Any], seed: int, report: Report, cancel: Cancel
    ) -> np.ndarray:
        """(F, H, W, 3) uint8. The scheduler is fresh and noise comes from the CPU: a seed gives the same everywhere."""
        pipeline, steps = self._pipeline, request.num_inference_steps
        pipeline.scheduler = UniPCMultistepScheduler.from_config(
            pipeline.scheduler.config, flow_shift=request.flow_shift
        )

        def after_step(_: WanPipeline, step: int, __: torch.Tensor, tensors: dict[str, Any]) -> dict[str, Any]:
            report("denoising", step + 1, steps)
            # Raising is the only way to stop without decoding what is there.
            cancel.raise_if_requested()
            if step + 1 == steps:
                report("decoding", 0, 1)
            return tensors

        clip = pipeline(
            **prompt,
            height=request.height,
            width=request.width,
            num_frames=request.num_frames,
            num_inference_steps=steps,
            guidance_scale=request.guidance_scale,
            generator=torch.Generator("cpu").manual_seed(seed),
            output_type="np",
            callback_on_step_end=after_step,
        ).frames[0]
        report("decoding", 1, 1)
        return np.round(np.asarray(clip) * 255).clip(0, 255).astype(np.uint8)


def _load(definition: ModelDefinition, place: Place) -> WanPipeline:
    folder = definition.folder(place.checkpoints)
    assert folder is not None, "a model without a folder is not available"
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    try:
        # The VAE in half precision shows banding; it is small, so it stays in full precision.
        vae = AutoencoderKLWan.from_pretrained(folder, subfolder="vae", dtype=torch.float32, local_files_only=True)
        pipeline = WanPipeline.from_pretrained(
            folder, vae=vae, dtype=weights_dtype(place.device), local_files_only=True
        )
        pipeline.set_progress_bar_config(disable=True)
        place_pipeline(pipeline, place.device)
    except OSError as error:
        reason, cause = str(error).strip().rstrip("."), error
    except NotImplementedError as error:
        # Weights that the files lack are placeholders, which no device takes.
        reason, cause = "its files lack weights that its config.json asks for", error
    else:
        return pipeline
    raise ModelUnavailable(
        f"{definition.id} cannot be loaded from {folder}: {reason}. {how_to_fetch(definition, folder)}"
    ) from cause
