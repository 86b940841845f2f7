"""Image models that a pipeline of diffusers runs: one still after the other, each with a seed of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar

from diffusers import DiffusionPipeline

from Wan2GP.definitions import ModelDefinition
from Wan2GP.engine.families import Cancel, Place, Report
from Wan2GP.engine.loading import free_memory
from Wan2GP.engine.numbers import Numbers
from Wan2GP.engine.request import Frame, GenerationRequest
from Wan2GP.engine.stock.loading import load_pipeline
from Wan2GP.engine.stock.loras import lora_set, schedules
from Wan2GP.engine.stock.running import Stepping, as_frames, running, seeded

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
    def check(cls, request: GenerationRequest) -> None:
        """Raises InvalidInput for LoRA multipliers that do not fit. A family adds what it knows."""
        schedules(request, [1] * cls.steps(request))

    def generate(self, request: GenerationRequest, report: Report, cancel: Cancel) -> Iterator[Frame]:
        """`batch_size` stills (H, W, 3) uint8, the seeds counted up from the request's."""
        count, each = request.batch_size, self.steps(request)
        with lora_set(self._pipeline, request, schedules(request, [1] * each * count)) as loras:
            self.remarks = loras.notes
            for number in range(count):
                report("encoding", 0, 1)
                stepping = Stepping(each * count, loras, report, cancel, first=each * number)
                yield self._still(replace(request, seed=request.seed + number), stepping)
                report("decoding", 1, 1)

    def release(self) -> None:
        """Free host and device memory."""
        self._pipeline = None
        free_memory()

    def _still(self, request: GenerationRequest, stepping: Stepping) -> Frame:
        pipeline, arguments = self.call(request)
        with running(self._pipeline):
            made = pipeline(
                prompt=request.prompt,
                width=request.width,
                height=request.height,
                num_inference_steps=request.sampling.num_inference_steps,
                generator=seeded(request.seed),
                callback_on_step_end=stepping,
                output_type="np",
                **arguments,
            )
        still: Frame = as_frames(made.images)[0]
        return still

    def with_pipeline(self, cls: type[DiffusionPipeline]) -> Any:
        """Another pipeline over the same parts: nothing is loaded or converted.

        `from_pipe` would turn the shared parts into float32, so the class is called with what it takes.
        """
        import inspect

        taken = inspect.signature(cls.__init__).parameters
        other = cls(**{name: part for name, part in self._pipeline.components.items() if name in taken})
        other.set_progress_bar_config(disable=True)
        return other


def scale(request: GenerationRequest, name: str) -> float:
    """A guidance scale of the request, 0 to 100."""
    return Numbers(request.settings).real(name, 0, 100)
