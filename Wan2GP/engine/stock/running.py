"""One call of a pipeline of diffusers: its progress, its interruption, its LoRAs and its seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from Wan2GP.engine import latent_pictures
from Wan2GP.engine.families import Cancel, Report
from Wan2GP.engine.lora.merging import LoraSet
from Wan2GP.engine.request import Frame
from Wan2GP.previews import Watcher

#: normalised latents, (1, C, h, w) or (1, C, F, h, w), of those of a pipeline
Unpack = Callable[[torch.Tensor], torch.Tensor]


class Stepping:
    """Called after each step of a pipeline: stops the run when asked, moves the LoRAs on, and reports.

    `total` steps are counted in all; a run of several calls goes on from `first` in the next one. What is raised here
    leaves the pipeline at once, before anything is decoded, and does not harm its next run.
    """

    def __init__(
        self, total: int, loras: LoraSet, report: Report, cancel: Cancel, *, first: int = 0,
        watcher: Watcher | None = None,
    ) -> None:  # fmt: skip
        self._total, self._loras, self._report, self._cancel, self._first = total, loras, report, cancel, first
        self._watcher = watcher
        #: what makes latents of the pipeline normalised ones, (1, C, h, w) or (1, C, F, h, w)
        self.unpacked: Unpack = as_they_are
        self._before: torch.Tensor | None = None
        if watcher is not None:
            watcher.begin()
        cancel.raise_if_requested()
        loras.at_step(first)
        report("denoising", first, total)

    def __call__(self, pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        """diffusers' `callback_on_step_end`. Raises GenerationCancelled."""
        before, self._before = self._before, tensors["latents"]
        self.after(pipeline, step, self._clean(pipeline.scheduler, before, tensors["latents"]))
        return {}

    def after(self, pipeline: Any, step: int, clean: Callable[[], torch.Tensor] | None) -> None:
        """A step of this call, counted from 0, was taken; `clean` gives the normalised latents without noise that it
        predicts, None where that is not known. Raises GenerationCancelled."""
        done = self._first + step + 1
        if clean is not None:
            latent_pictures.show(self._watcher, done, pipeline.vae, clean)
        self._report("denoising", done, self._total)
        self._cancel.raise_if_requested()
        if done < self._total:
            self._loras.at_step(done)
        else:
            self._report("decoding", 0, 1)

    def _clean(
        self, scheduler: Any, before: torch.Tensor | None, latents: torch.Tensor
    ) -> Callable[[], torch.Tensor] | None:
        """What two latents in a row say of those without noise: an Euler step goes straight at them. Where a scheduler
        puts new noise on each step they say nothing."""
        if before is None or scheduler.config.get("stochastic_sampling"):
            return None
        level, lower = scheduler.sigmas[scheduler.step_index - 1], scheduler.sigmas[scheduler.step_index]
        return lambda: self.unpacked((level * latents - lower * before) / (level - lower))


def as_they_are(latents: torch.Tensor) -> torch.Tensor:
    """Latents of a pipeline whose are a picture or a video already."""
    return latents


@contextmanager
def running(pipeline: Any) -> Iterator[None]:
    """Around a call: parts that were brought to the device for it leave it again, however the call ends."""
    try:
        yield
    finally:
        pipeline.maybe_free_model_hooks()


def seeded(seed: int) -> torch.Generator:
    """Noise that depends on the seed alone: it is drawn on the CPU, whatever the device."""
    return torch.Generator("cpu").manual_seed(seed)


def as_frames(values: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Pictures in 0-1, (..., H, W, 3) float -> uint8, rounded."""
    return np.rint(np.asarray(values, np.float32).clip(0, 1) * 255).astype(np.uint8)


def as_picture(frame: Frame) -> Any:
    """(H, W, 3) uint8 RGB as a PIL image, which every pipeline takes."""
    from PIL import Image

    return Image.fromarray(frame)
