"""travel_segment and individual_travel_segment: generate the frames from one image to the next.

The steps import the media libraries themselves: add_task only needs the declarations, and should start at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from headless.generation import ModelInfo
from headless.options import GenerationOptions
from source.errors import EngineError, InvalidInput
from source.params.travel import DEFAULT_SEED, SegmentParams
from source.planning.frames import context_for, quantise
from source.task_registry import Done, TaskContext, task

if TYPE_CHECKING:
    from Wan2GP.media import Frame


@dataclass(frozen=True)
class TravelSegmentProcessor:
    """One segment, resolved: sizes floored to the model, frames quantised, images on this machine."""

    params: SegmentParams
    model: ModelInfo
    size: tuple[int, int]
    num_frames: int
    #: frames of the predecessor shown at the head, and how many of them are dropped afterwards
    context_frames: int
    drop: int
    start_image: Path | None
    end_image: Path | None

    @classmethod
    def resolve(cls, params: SegmentParams, context: TaskContext, *, standalone: bool) -> TravelSegmentProcessor:
        """Validate before anything is generated. Raises InvalidInput, InvalidMedia, UnknownModel, ModelUnavailable."""
        from headless.inputs import generation_size

        if not params.model:
            raise InvalidInput("is missing; name the model that generates the segment", field="model_name")
        model = context.model(params.model)
        size = generation_size(params.options, model)
        if size is None:
            raise InvalidInput('is missing; give the size as "WIDTHxHEIGHT"', field="parsed_resolution_wh")
        overlap = params.frame_overlap_from_previous if params.continues and not standalone else 0
        context_frames = context_for(overlap, model.frame_step)
        return cls(
            params,
            model,
            size,
            _length(params, model),
            context_frames,
            context_frames - overlap,
            _image(context, params.start_image, "start image"),
            _image(context, params.end_image, "end image"),
        )

    @property
    def output_frames(self) -> int:
        return self.num_frames - self.drop

    def options(self, context: TaskContext) -> GenerationOptions:
        """The engine's knobs: sizes and lengths of the plan, and the media that hold the segment in place."""
        seed = self.params.options.seed
        options = self.params.options.replace(
            seed=DEFAULT_SEED if seed is None else seed,
            prompt=self.params.options.prompt or " ",
            negative_prompt=self.params.options.negative_prompt or " ",
            resolution=f"{self.size[0]}x{self.size[1]}",
            video_length=self.num_frames,
            force_fps=str(self.params.fps_helpers),
        )
        if self.params.model_type == "vace":
            return options.replace(**self._guide_options(context))
        return options.replace(**self._image_options())

    def _image_options(self) -> dict[str, str]:
        if self.start_image is None:
            raise InvalidInput("an i2v segment needs a start image", field="input_image_paths_resolved")
        letters = {"image_start": str(self.start_image), "image_prompt_type": "S"}
        if self.end_image:
            letters |= {"image_end": str(self.end_image), "image_prompt_type": "SE"}
        return letters

    def _guide_options(self, context: TaskContext) -> dict[str, str]:
        """Guide and mask videos. Grey is free for the model; under black mask frames the guide is kept."""
        from source.media.guides import GuidePlan, write_guide, write_mask

        kept = self.kept_frames(context)
        plan = GuidePlan(self.num_frames, self.size, self.params.fps_helpers, kept)
        options = {"video_guide": str(write_guide(plan, context.scratch / "guide.mkv")), "video_prompt_type": "V"}
        if context.settings.mask_active_frames:
            options |= {"video_mask": str(write_mask(plan, context.scratch / "mask.mkv")), "video_prompt_type": "VM"}
        return options

    def kept_frames(self, context: TaskContext) -> dict[int, Frame]:
        """Frame index -> the picture that must be there: the predecessor's tail or the start image, the end image."""
        from source.media.images import load_fitted

        if self.context_frames:
            kept = dict(enumerate(self._predecessor_tail(context)))
        elif self.start_image:
            kept = {0: load_fitted(self.start_image, self.size)}
        else:
            raise InvalidInput("the segment has no start image", field="input_image_paths_resolved")
        if self.end_image:
            kept[self.num_frames - 1] = load_fitted(self.end_image, self.size)
        return kept

    def _predecessor_tail(self, context: TaskContext) -> list[Frame]:
        from source.media.guides import ContextTreatment, tail_frames

        before = context.dependencies()
        if not before:
            raise InvalidInput("the segment continues another one but depends on none", field="dependant_on")
        treatment = ContextTreatment(
            strength_adjustment=self.params.subsequent_starting_strength_adjustment,
            desaturate=self.params.desaturate_subsequent_starting_frames,
            brightness=self.params.adjust_brightness_subsequent_starting_frames,
        )
        return tail_frames(before[-1].output, self.context_frames, size=self.size, treatment=treatment)


def _length(params: SegmentParams, model: ModelInfo) -> int:
    wanted = params.options.video_length
    if wanted is None and params.segment_index < len(params.segment_frames_expanded):
        wanted = params.segment_frames_expanded[params.segment_index]
    if wanted is None:
        raise InvalidInput("is missing; give the number of frames", field="num_frames")
    num_frames = quantise(wanted, model.frame_step)
    if num_frames < model.min_frames:
        raise InvalidInput(
            f"{wanted} frames are too few for {model.name}; use at least {model.min_frames}", field="num_frames"
        )
    return num_frames


def _image(context: TaskContext, reference: str | None, field: str) -> Path | None:
    return context.fetch(reference, kind="image", field=field) if reference else None


def run_segment(params: SegmentParams, context: TaskContext, *, standalone: bool) -> Done:
    from source.media.cut import cut
    from Wan2GP.media import probe_video

    context.report("preparing")
    segment = TravelSegmentProcessor.resolve(params, context, standalone=standalone)
    result = context.generate(segment.model.name, segment.options(context))
    output = context.scratch / f"seg{params.segment_index:02d}.mp4"
    made = probe_video(result.output).num_frames
    if made != segment.num_frames:
        raise EngineError(f"the engine returned {made} frames instead of {segment.num_frames}")
    if segment.drop:
        context.report("trimming")
        cut(result.output, segment.drop, segment.num_frames, output)
    else:
        result.output.replace(output)
    data = {"num_frames": segment.output_frames, "model": result.model, "notes": list(result.notes)}
    return Done(output, data)


@task("travel_segment")
def travel_segment(params: SegmentParams, context: TaskContext) -> Done:
    """One segment of a travel, created by travel_orchestrator."""
    return run_segment(params, context, standalone=False)


@task("individual_travel_segment")
def individual_travel_segment(params: SegmentParams, context: TaskContext) -> Done:
    """One segment on its own, from a start image to an end image."""
    return run_segment(params, context, standalone=True)
