"""Image models that a pipeline of diffusers runs: one still after the other, each with a seed of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, ClassVar

import torch
from diffusers import DiffusionPipeline

from Wan2GP.definitions import ModelDefinition
from Wan2GP.engine.families import Cancel, Place, Report
from Wan2GP.engine.loading import free_memory
from Wan2GP.engine.numbers import Numbers
from Wan2GP.engine.request import Frame, GenerationRequest
from Wan2GP.engine.residency.placement import Placement
from Wan2GP.engine.stock import hires
from Wan2GP.engine.stock.loading import load_pipeline
from Wan2GP.engine.stock.loras import lora_set, schedules
from Wan2GP.engine.stock.remembering import remembering
from Wan2GP.engine.stock.running import Stepping, as_frames, running, seeded
from Wan2GP.engine.stock.tokens import PATCH
from Wan2GP.errors import Unsupported

#: what every image family reads
READS = frozenset(
    {
        "prompt",
        "seed",
        "batch_size",
        "num_inference_steps",
        "activated_loras",
        "loras_multipliers",
        "skip_model_loras",
    }
    | hires.READS
)


class Still(ABC):
    """One resident image model. A family says which pipeline runs a request, and with what arguments."""

    #: the parameters that it uses
    reads: ClassVar[frozenset[str]] = READS
    remarks: tuple[str, ...] = ()

    def __init__(self, definition: ModelDefinition, place: Place, report: Report) -> None:
        """Load; nothing is fetched. Raises ModelUnavailable."""
        self._interrupt = False
        self.notes: tuple[str, ...] = ()
        report("loading", 0, 1)
        self._pipeline = load_pipeline(self.pipeline_class(), definition, place)
        report("loading", 1, 1)

    @staticmethod
    @abstractmethod
    def pipeline_class() -> type[DiffusionPipeline]:
        """The pipeline that the model's folder is loaded as."""

    @abstractmethod
    def call(self, request: GenerationRequest) -> tuple[Any, dict[str, Any]]:
        """The pipeline that runs a request, with the arguments that belong to the family."""

    @classmethod
    def steps(cls, request: GenerationRequest) -> int:
        """Steps that one still of the request is denoised in."""
        return request.sampling.num_inference_steps

    @classmethod
    def passes(cls, request: GenerationRequest) -> list[int]:
        """Steps of each pass of one still: a second one makes it larger."""
        second = hires.hires_of(request)
        return [cls.steps(request), *([second.steps] if second else [])]

    @classmethod
    def multipliers(cls, request: GenerationRequest) -> list[tuple[float, ...]]:
        """Each LoRA's multiplier at each step of one still. Raises InvalidInput."""
        passes = cls.passes(request)
        phases = [number for number, steps in enumerate(passes, start=1) for _ in range(steps)]
        return schedules(request, phases, len(passes))

    @classmethod
    def check(cls, request: GenerationRequest) -> None:
        """Raises InvalidInput for LoRA multipliers that do not fit, Unsupported for a given image that shall be drawn
        anew in two passes. A family adds what it knows."""
        given = request.image_guide is not None or request.image_start is not None
        if given and hires.hires_of(request) is not None:
            raise Unsupported(
                f"{request.definition.id} makes a second pass over images of a prompt or of references; draw a given "
                "image anew in one pass, with hires_scale 1",
                field="hires_scale",
            )
        cls.multipliers(request)

    def generate(self, request: GenerationRequest, report: Report, cancel: Cancel) -> Iterator[Frame]:
        """`batch_size` stills (H, W, 3) uint8, the seeds counted up from the request's."""
        count, each = request.batch_size, sum(self.passes(request))
        multipliers = [every * count for every in self.multipliers(request)]
        with lora_set(self._pipeline, request, multipliers) as loras:
            self.remarks = loras.notes
            for number in range(count):
                report("encoding", 0, 1)

                def stepping(done: int, before: int = each * number) -> Stepping:
                    return Stepping(
                        each * count, loras, report, cancel, first=before + done, watcher=request.watcher
                    )  # fmt: skip

                yield self._still(replace(request, seed=request.seed + number), stepping)
                report("decoding", 1, 1)

    @property
    def placement(self) -> Placement | None:
        """Where its parts are."""
        found: Placement | None = self._pipeline.placement
        return found

    def release(self) -> None:
        """Free host and device memory, but for parts that other models hold."""
        self._pipeline = None
        free_memory()

    def _still(self, request: GenerationRequest, stepping: Callable[[int], Stepping]) -> Frame:
        wanted, steps = hires.hires_of(request), request.sampling.num_inference_steps
        with running(self._pipeline):
            if wanted is None:
                made = self._made(request, stepping(0), num_inference_steps=steps)
            else:
                first = self._made(request, stepping(0), num_inference_steps=steps, output_type="latent")
                width, height = wanted.size
                larger = replace(request, width=width, height=height, seed=request.seed + 1)
                again = self._begun_again(self.as_channels(first, request.size), larger, wanted)
                made = self._made(larger, stepping(self.passes(request)[0]), **again)
        still: Frame = as_frames(made)[0]
        return still

    def _made(self, request: GenerationRequest, stepping: Stepping, **call: Any) -> Any:
        """What the family's pipeline makes of a request: pictures in 0-1, or latents."""
        pipeline, arguments = self.call(request)
        stepping.unpacked = lambda latents: self.as_channels(latents, request.size)
        made = pipeline(
            prompt=request.prompt,
            width=request.width,
            height=request.height,
            generator=seeded(request.seed),
            callback_on_step_end=stepping,
            **{"output_type": "np"} | arguments | call,
        )
        return made.images

    def _begun_again(self, latents: torch.Tensor, request: GenerationRequest, wanted: hires.Hires) -> dict[str, Any]:
        """The arguments of a second pass over latents (1, C, h, w)."""
        cell = self._pipeline.vae_scale_factor
        size = request.height // cell, request.width // cell
        noise = torch.randn((*latents.shape[:2], *size), generator=seeded(request.seed)).to(latents.device)
        level = hires.first_level(self._pipeline.scheduler, wanted, (size[0] // PATCH) * (size[1] // PATCH))
        start = hires.noised(hires.enlarged(latents, size, wanted.method), noise, level)
        return {"latents": self.as_given(start), "sigmas": wanted.sigmas, "num_inference_steps": wanted.steps}

    def as_channels(self, latents: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """A pipeline's latents of a picture of `size` = (width, height) as (1, C, h, w)."""
        return latents

    def as_given(self, latents: torch.Tensor) -> torch.Tensor:
        """The inverse: latents (1, C, h, w) float32 as the pipeline takes them."""
        return latents

    def with_pipeline(self, cls: type[DiffusionPipeline]) -> Any:
        """Another pipeline over the same parts: nothing is loaded or converted.

        `from_pipe` would turn the shared parts into float32, so the class is called with what it takes.
        """
        import inspect

        taken = inspect.signature(cls.__init__).parameters
        other = cls(**{name: part for name, part in self._pipeline.components.items() if name in taken})
        other.set_progress_bar_config(disable=True)
        other.encode_prompt = remembering(self._pipeline).prompts(other)
        return other


def scale(request: GenerationRequest, name: str) -> float:
    """A guidance scale of the request, 0 to 100."""
    return Numbers(request.settings).real(name, 0, 100)
