"""Video models that a pipeline of diffusers runs: a video in one run, or window by window."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from diffusers import DiffusionPipeline

from Wan2GP.definitions import ModelDefinition
from Wan2GP.engine.ahead import Ahead
from Wan2GP.engine.families import WINDOW, Cancel, Place, Report
from Wan2GP.engine.loading import free_memory
from Wan2GP.engine.lora.merging import LoraSet
from Wan2GP.engine.request import Frame, GenerationRequest
from Wan2GP.engine.residency.placement import Placement
from Wan2GP.engine.stock.loading import load_pipeline
from Wan2GP.engine.stock.loras import lora_set, schedules
from Wan2GP.engine.stock.running import Stepping
from Wan2GP.engine.wan.continuity import colour_matched
from Wan2GP.engine.wan.media import last_frames, prompt_of, read_source_ahead, source_frames, spans_of
from Wan2GP.engine.wan.window import Frames, Span
from Wan2GP.errors import Unsupported

#: what every video family reads
READS = frozenset(
    {
        "prompt",
        "negative_prompt",
        "seed",
        "num_inference_steps",
        "sigmas",
        "guidance_scale",
        "activated_loras",
        "loras_multipliers",
        "skip_model_loras",
    }
)
#: and one that goes on from a video, or window by window
READS_OF_WINDOWS = frozenset(
    {
        "video_source",
        "keep_frames_video_source",
        "sliding_window_size",
        "sliding_window_overlap",
        "sliding_window_color_correction_strength",
        "multi_prompts_gen_type",
    }
)

#: gives the callback of the next pass of a window, whose first step has this number
Steps = Callable[[int], Stepping]


@dataclass(frozen=True)
class Part:
    """One window of a video: what its run is given."""

    #: with the window's own prompt and seed
    request: GenerationRequest
    index: int
    #: how many windows there are
    count: int
    span: Span
    #: (span.overlap, H, W, 3): the frames made before that it begins with
    prefix: Frames


class Video(ABC):
    """One resident video model. A family says what the pipeline is given for a window."""

    #: the parameters that it uses
    reads: ClassVar[frozenset[str]] = READS

    def __init__(self, definition: ModelDefinition, place: Place, report: Report) -> None:
        """Load; nothing is fetched. Raises ModelUnavailable."""
        self._interrupt = False
        self.notes: tuple[str, ...] = ()
        self.remarks: tuple[str, ...] = ()
        self._place = place
        report("loading", 0, 1)
        self._pipeline = self.load(definition, place)
        report("loading", 1, 1)

    @staticmethod
    @abstractmethod
    def pipeline_class() -> type[DiffusionPipeline]:
        """The pipeline that the model's folder is loaded as."""

    @abstractmethod
    def draw(self, part: Part, steps: Steps) -> Frames:
        """(span.frames, H, W, 3) uint8 of one window, at the request's size."""

    @classmethod
    def load(cls, definition: ModelDefinition, place: Place) -> Any:
        """The pipeline. A VAE that can decodes large pictures in tiles, as published for every one of these models."""
        pipeline = load_pipeline(cls.pipeline_class(), definition, place)
        pipeline.vae.enable_tiling()
        return pipeline

    @classmethod
    def passes(cls, request: GenerationRequest) -> tuple[int, ...]:
        """Steps of each pass over a window. LoRAs may have a multiplier for each pass."""
        return (request.sampling.num_inference_steps,)

    @classmethod
    def check(cls, request: GenerationRequest) -> None:
        """Raises InvalidInput or Unsupported. A family adds what it knows."""
        if request.image_output:
            raise Unsupported(f"{request.definition.id} makes videos, no stills", field="image_mode")
        spans_of(request)
        _multipliers(request, cls.passes(request))

    @staticmethod
    def read_ahead(request: GenerationRequest, ahead: Ahead) -> None:
        """Read before the request's turn what its run is given of videos. A family adds what it knows."""
        read_source_ahead(request, ahead)

    def generate(self, request: GenerationRequest, report: Report, cancel: Cancel) -> Iterator[Frame]:
        """The kept frames of a `video_source`, then the new ones (H, W, 3) uint8, a window at a time."""
        spans, passes = spans_of(request), self.passes(request)
        latest: deque[Frame] = deque(maxlen=max(span.overlap for span in spans))
        for frame in source_frames(request):
            latest.append(frame)
            yield frame
        with lora_set(self._pipeline, request, _multipliers(request, passes)) as loras:
            self.remarks = (*loras.notes, *self.remarks_on(request))
            for index, span in enumerate(spans):
                report(WINDOW, index + 1, len(spans))
                part = _part(request, index, len(spans), span, last_frames(latest, span.overlap, request))
                for frame in self._window(part, passes, loras, report, cancel):
                    latest.append(frame)
                    yield frame

    def remarks_on(self, request: GenerationRequest) -> tuple[str, ...]:
        """What the user should know about a run."""
        return ()

    @property
    def placement(self) -> Placement | None:
        """Where its parts are."""
        found: Placement | None = self._pipeline.placement
        return found

    def release(self) -> None:
        """Free host and device memory, but for parts that other models hold."""
        self._pipeline = None
        free_memory()

    def _window(self, part: Part, passes: tuple[int, ...], loras: LoraSet, report: Report, cancel: Cancel) -> Frames:
        """The new frames of one window."""
        cancel.raise_if_requested()
        report("encoding", 0, 1)
        watcher, total = part.request.watcher, sum(passes)
        frames = self.draw(part, lambda first: Stepping(total, loras, report, cancel, first=first, watcher=watcher))
        cancel.raise_if_requested()
        report("decoding", 1, 1)
        span = part.span
        frames = colour_matched(frames, part.prefix, part.request.windows.colour_correction)
        return frames[span.overlap : span.overlap + span.new]


def _part(request: GenerationRequest, index: int, count: int, span: Span, prefix: Frames) -> Part:
    own = replace(request, prompt=prompt_of(request, index), seed=request.seed + index)
    return Part(own, index, count, span, prefix)


def _multipliers(request: GenerationRequest, passes: tuple[int, ...]) -> list[tuple[float, ...]]:
    """Each LoRA's multiplier at each step of a window; "1;0.5" is one for each pass."""
    phases = [number for number, steps in enumerate(passes, start=1) for _ in range(steps)]
    return schedules(request, phases, len(passes))
