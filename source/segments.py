"""One segment of a travel: what the engine is asked for, and what becomes of its answer.

The media libraries are imported by the steps: task types name this module, and add_task should start at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headless.generation import GenerationResult, ModelInfo
from headless.options import GenerationOptions
from source.errors import EngineError, InvalidInput, Unsupported
from source.params.structure_guidance import StructureGuidanceConfig
from source.params.travel import DEFAULT_SEED, SegmentParams, SegmentSettings
from source.planning import svi
from source.planning.frames import context_for, plan_frames, quantise
from source.planning.travel import wrapped
from source.planning.upscale import refuse_post_processing
from source.predecessor import BANNER_HEIGHT, Predecessor, continued_frames, predecessor_of
from source.prompting import enhanced_prompt
from source.structure import StructureClip, structure_for
from source.task_registry import Done, TaskContext
from source.trail import Category

if TYPE_CHECKING:
    from source.media.finishing import Finishing
    from source.media.guides import ContextTreatment
    from Wan2GP.media import Frame

#: what a model must take for each kind of travel
NEEDS = {"vace": ("control_video", "mask"), "i2v": ("image_start",), "svi": ("image_start", "video_source")}


def check_model(model: ModelInfo, params: SegmentSettings) -> None:
    """Raises Unsupported when the model cannot do this kind of travel, or not all that is asked of it."""
    needed = NEEDS[params.mode]
    if not model.takes(*needed):
        what = "use_svi" if params.mode == "svi" else f"model_type {params.mode!r}"
        raise Unsupported(
            f"{model.name} cannot make a travel of {what}: it takes "
            f"{', '.join(sorted(model.inputs))}, but {' and '.join(needed)} are needed",
            field="model_name",
        )
    if params.mode == "svi":
        svi.check_phases(params.options, model.architecture)
    refuse_post_processing(params.options)
    guided = params.mode == "vace"
    if params.vace_image_refs_to_prepare_by_worker and not (guided and model.takes("references")):
        raise Unsupported(
            f"{model.name} takes no reference images in a travel of {params.mode}; use a VACE model, or leave them out",
            field="vace_image_refs_to_prepare_by_worker",
        )
    params.guidance.check()
    if params.guidance.enabled and not guided:
        raise Unsupported(
            f"a travel of {params.mode} has no control video to guide; use a VACE model with model_type vace",
            field="structure_guidance",
        )


@dataclass(frozen=True)
class TravelSegmentProcessor:
    """One segment, resolved: sizes floored to the model, frames quantised, images on this machine."""

    params: SegmentParams
    model: ModelInfo
    size: tuple[int, int]
    #: frames that the engine is asked for
    num_frames: int
    #: frames of the predecessor at the head of them, and how many of those are dropped afterwards
    context_frames: int
    drop: int
    predecessor: Predecessor | None
    start_image: Path | None
    #: pictures that it passes and ends with, by the frame of the generation that shows them
    end_images: dict[int, Path]

    @classmethod
    def resolve(cls, params: SegmentParams, context: TaskContext) -> TravelSegmentProcessor:
        """Validate before anything is generated. Raises InvalidInput, InvalidMedia, UnknownModel, ModelUnavailable."""
        from headless.inputs import generation_size

        if not params.model:
            raise InvalidInput("is missing; name the model that generates the segment", field="model_name")
        model = context.model(params.model)
        check_model(model, params)
        size = generation_size(params.options, model)
        if size is None:
            raise InvalidInput('is missing; give the size as "WIDTHxHEIGHT"', field="parsed_resolution_wh")
        predecessor = predecessor_of(params, context)
        overlap = _overlap(params) if predecessor else 0
        context_frames = context_for(overlap, model.frame_step)
        num_frames = _length(params, model, context_frames)
        start_image = _image(params, params.start_image, context)
        if predecessor and not start_image:
            start_image = _last_picture(predecessor, size, context.scratch / "continued.png")
        ends = _end_images(params, num_frames, context)
        return cls(
            params, model, size, num_frames, context_frames, context_frames - overlap, predecessor, start_image, ends
        )

    @property
    def tail(self) -> int:
        """Frames after the last picture of a generation of several segments: more than the travel has."""
        positions = self.params.consolidated_keyframe_positions
        return self.num_frames - 1 - positions[-1] if positions else 0

    @property
    def output_frames(self) -> int:
        return self.num_frames - self.drop - self.tail

    @property
    def continues_by_svi(self) -> bool:
        return self.predecessor is not None and self.params.mode == "svi"

    @property
    def engine_frames(self) -> int:
        """Frames of the engine's video: with SVI the predecessor's come first, and the overlap is part of them."""
        if self.predecessor and self.continues_by_svi:
            return self.predecessor.source_frames() + self.num_frames - svi.OVERLAP
        return self.num_frames

    # ---- what the engine is asked for

    def options(self, context: TaskContext) -> GenerationOptions:
        """The engine's knobs: sizes and lengths of the plan, and the media that hold the segment in place."""
        seed = self.params.options.seed
        options = self.params.options.replace(
            seed=DEFAULT_SEED if seed is None else seed,
            prompt=self._prompt(context),
            negative_prompt=self.params.options.negative_prompt or " ",
            resolution=f"{self.size[0]}x{self.size[1]}",
            video_length=self.num_frames,
            force_fps=str(self.params.fps_helpers),
        )
        if self.params.mode == "vace":
            return options.replace(**self._guide_options(context))
        if self.continues_by_svi:
            return self._svi_options(options, context)
        return options.replace(**self._image_options())

    def _prompt(self, context: TaskContext) -> str:
        """The segment's own, else the one that a model wrote, between the travel's common texts, else the row's."""
        if self.params.has_own_prompt:
            return self.params.options.prompt or " "
        written = enhanced_prompt(context.dependencies(), self.params.segment_index)
        return wrapped(written, self.params) if written else self.params.options.prompt or " "

    def _image_options(self) -> dict[str, str]:
        if self.start_image is None:
            raise InvalidInput("an i2v segment needs a start image", field="input_image_paths_resolved")
        letters = {"image_start": str(self.start_image), "image_prompt_type": "S"}
        if end := self._end_image:
            letters |= {"image_end": str(end), "image_prompt_type": "SE"}
        return letters

    @property
    def _end_image(self) -> Path | None:
        return next(reversed(self.end_images.values()), None)

    def _svi_options(self, options: GenerationOptions, context: TaskContext) -> GenerationOptions:
        """The predecessor's last frames as a video to go on from, its very last one as the anchor."""
        from Wan2GP.media import write_image, write_video

        assert self.predecessor is not None
        frames = self.predecessor.tail(self.predecessor.source_frames(), self.size)
        source = context.scratch / "predecessor.mkv"
        write_video(source, frames, fps=self.params.fps_helpers, codec="ffv1")
        context.trail.note(
            Category.CHAIN, "SVI goes on from", frames=len(frames), video=self.predecessor.clip.path.name
        )
        knobs: dict[str, Any] = {
            "video_source": str(source),
            "image_prompt_type": "SV",
            "sliding_window_overlap": svi.OVERLAP,
        }
        if self.model.svi:
            knobs["svi2pro"] = 1
        if self.model.takes("references"):
            anchor = write_image(context.scratch / "anchor.png", frames[-1])
            knobs |= {"image_refs": [str(anchor)], "video_prompt_type": "I"}
        if end := self._end_image:
            knobs |= {"image_end": str(end), "image_prompt_type": "SVE"}
        strengths = svi.Strengths(self.params.svi_strength, self.params.svi_strength_1, self.params.svi_strength_2)
        return svi.with_recipe(options.replace(**knobs), self.model.architecture, strengths)

    def _guide_options(self, context: TaskContext) -> dict[str, Any]:
        """Guide and mask videos. Grey is free for the model; under black mask frames the guide is kept."""
        from source.media.guides import GuidePlan, write_guide, write_mask

        plan = GuidePlan(
            self.num_frames, self.size, self.params.fps_helpers, self.kept_frames(context), self._structure(context)
        )
        options: dict[str, Any] = {"video_guide": str(write_guide(plan, context.scratch / "guide.mkv"))}
        letters = "V"
        if context.settings.mask_active_frames:
            options["video_mask"] = str(write_mask(plan, context.scratch / "mask.mkv"))
            letters += "M"
        if references := self._references(context):
            options["image_refs"] = [*references, *(self.params.options.image_refs or ())]
        if references or self.params.options.image_refs:
            letters += "I"
        return options | {"video_prompt_type": letters}

    def _structure(self, context: TaskContext) -> StructureClip | None:
        """What guides the frames that are not kept."""
        if not self.params.guidance.enabled:
            return None
        guidance, total = self._placed_guidance(context)
        return structure_for(
            guidance, context, offset=guidance.frame_offset, num_frames=self.num_frames, total_frames=total,
            size=self.size, fps=self.params.fps_helpers,
        )  # fmt: skip

    def _placed_guidance(self, context: TaskContext) -> tuple[StructureGuidanceConfig, int]:
        """The guidance, its offset that of this generation, and the frames of the timeline on which that counts.

        A row that has guidance of its own says where; else it is the place of the segment in its travel. A guidance
        video has a length of its own; videos lie on the timeline of the whole travel.
        """
        params, guidance = self.params, self.params.guidance
        ready, total = guidance.guidance_video_url is not None, params.total_frames
        if params.guided_by_travel and params.segment_index < len(params.segment_frames_expanded):
            frames = plan_frames(
                params.segment_frames_expanded, params.frame_overlap_expanded, chained=params.chained,
                step=self.model.frame_step, continued=continued_frames(params, context),
            )  # fmt: skip
            planned, total = frames.segments[params.segment_index], frames.total_frames
            begins = planned.offset + planned.context - self.context_frames
            first = guidance.frame_offset if ready else 0
            guidance = guidance.model_copy(update={"frame_offset": first + begins})
        stop = guidance.frame_offset + self.num_frames - self.tail
        return guidance, stop if ready or total is None else total

    def kept_frames(self, context: TaskContext) -> dict[int, Frame]:
        """Frame index -> the picture that must be there: the predecessor's tail or the start image, the end images."""
        from source.media.images import load_fitted

        if self.predecessor and self.context_frames:
            frames = self.predecessor.tail(self.context_frames, self.size)
            context.trail.frames(
                Category.CHAIN, "context", expected=self.context_frames, actual=len(frames),
                video=self.predecessor.clip.path.name,
            )  # fmt: skip
            kept = dict(enumerate(map(self._treatment().apply, frames)))
        elif self.start_image:
            kept = {0: load_fitted(self.start_image, self.size)}
        else:
            raise InvalidInput("the segment has no start image", field="input_image_paths_resolved")
        return kept | {position: load_fitted(path, self.size) for position, path in self.end_images.items()}

    def _treatment(self) -> ContextTreatment:
        from source.media.guides import ContextTreatment

        return ContextTreatment(
            strength_adjustment=self.params.subsequent_starting_strength_adjustment,
            desaturate=self.params.desaturate_subsequent_starting_frames,
            brightness=self.params.adjust_brightness_subsequent_starting_frames,
        )

    def _references(self, context: TaskContext) -> list[str]:
        """This segment's reference images at its size, their brightness multiplied by their strength."""
        from source.media.guides import ContextTreatment
        from source.media.images import load_fitted
        from Wan2GP.media import write_image

        prepared = []
        for number, reference in enumerate(self.params.vace_image_refs_to_prepare_by_worker):
            if reference.segment_idx_for_naming == self.params.segment_index:
                field = f"vace_image_refs_to_prepare_by_worker[{number}]"
                image = load_fitted(context.fetch(reference.original_path, kind="image", field=field), self.size)
                scaled = ContextTreatment(brightness=reference.strength_to_apply - 1).apply(image)
                prepared.append(str(write_image(context.scratch / f"reference{number}.png", scaled)))
        return prepared

    # ---- what becomes of its answer

    def finishing(self, context: TaskContext) -> Finishing:
        """Everything that is done to the engine's video, in one pass: what is cut off, colours, banner, keyframes."""
        from source.media.finishing import Finishing

        params = self.params
        follows = params.segment_index > 0 or self.predecessor is not None
        saturation = params.after_first_post_generation_saturation if follows else None
        brightness = params.after_first_post_generation_brightness if follows else None
        pictures = (self.start_image, self._end_image)
        matches = params.colour_match_videos or context.settings.colour_match_videos
        stop = self.engine_frames - self.tail
        start = stop - self.output_frames
        bounds = (params.frame_overlap_from_previous, self.output_frames - params.frame_overlap_with_next)
        return Finishing(
            start=start,
            stop=stop,
            saturation=1.0 if saturation is None else saturation,
            brightness=brightness or 0.0,
            colour_match=pictures if matches and any(pictures) else None,
            banner=pictures if params.show_input_images and any(pictures) else None,
            keyframes=frozenset(each for each in bounds if 0 < each < self.output_frames),
        )

    def deliver(self, result: GenerationResult, context: TaskContext) -> Done:
        """The segment's video: exactly the frames of its plan. Raises EngineError when the engine made others."""
        from source.media.finishing import finish
        from Wan2GP.media import probe_video

        made = probe_video(result.output).num_frames
        if not context.trail.frames(Category.WGP, "the engine's frames", expected=self.engine_frames, actual=made):
            context.trail.warn(Category.CRITICAL, "the segment cannot be cut from another number of frames")
            raise EngineError(f"the engine returned {made} frames instead of {self.engine_frames}")
        output = context.scratch / f"seg{self.params.segment_index:02d}.mp4"
        info = finish(
            result.output, output, self.finishing(context), fps=self.params.fps_helpers,
            progress=lambda done, total: context.report("finishing", done, total),
        )  # fmt: skip
        context.trail.frames(
            Category.SEGMENT, "the segment", expected=self.output_frames, actual=info.num_frames, dropped=self.drop
        )
        data = {
            "num_frames": info.num_frames,
            "model": result.model,
            BANNER_HEIGHT: info.height - self.size[1],
            "notes": list(result.notes),
        }
        return Done(output, data)


def _overlap(params: SegmentParams) -> int:
    """Frames that are shared with the predecessor and made from its frames."""
    if params.mode == "svi":
        return svi.OVERLAP
    return params.frame_overlap_from_previous if params.continues else 0


def _length(params: SegmentParams, model: ModelInfo, context_frames: int) -> int:
    """Frames that the engine is asked for. SVI adds its context itself; else it is part of the length that is given."""
    wanted, name, index = params.options.video_length, params.name_of("video_length"), params.segment_index
    if wanted is None and index < len(params.segment_frames_expanded):
        wanted, name = params.segment_frames_expanded[index], f"segment_frames_expanded[{index}]"
    if wanted is None:
        raise InvalidInput("is missing; give the number of frames", field="num_frames")
    num_frames = quantise(wanted, model.frame_step)
    if num_frames < model.min_frames:
        raise InvalidInput(f"{wanted} frames are too few for {model.name}; use at least {model.min_frames}", field=name)
    if params.mode == "svi":
        return num_frames + context_frames
    if num_frames <= context_frames:
        raise InvalidInput(
            f"{num_frames} frames are too few: {context_frames} of them are those of the video before", field=name
        )
    return num_frames


def _image(params: SegmentParams, reference: str | None, context: TaskContext) -> Path | None:
    return context.fetch(reference, kind="image", field=params.name_of_image(reference)) if reference else None


def _end_images(params: SegmentParams, num_frames: int, context: TaskContext) -> dict[int, Path]:
    positions = params.consolidated_keyframe_positions or [num_frames - 1]
    if sorted(set(positions)) != positions or positions[-1] >= num_frames:
        raise InvalidInput(
            f"{positions} are no rising positions in {num_frames} frames", field="consolidated_keyframe_positions"
        )
    images = params.end_images
    if params.consolidated_keyframe_positions and (len(images) != len(positions) or None in images):
        raise InvalidInput(
            f"must be the index of the last of {len(positions)} images, one for each of the keyframe positions",
            field="consolidated_end_anchor_idx",
        )
    found = {position: _image(params, image, context) for position, image in zip(positions, images, strict=True)}
    return {position: image for position, image in found.items() if image}


def _last_picture(predecessor: Predecessor, size: tuple[int, int], path: Path) -> Path:
    from Wan2GP.media import write_image

    return write_image(path, predecessor.tail(1, size)[0])


def run_segment(params: SegmentParams, context: TaskContext) -> Done:
    """Generate one segment, and cut it to its plan."""
    context.report("preparing")
    segment = TravelSegmentProcessor.resolve(params, context)
    context.trail.note(
        Category.SEGMENT, "plan", segment=params.segment_index, mode=params.mode, generated=segment.num_frames,
        context=segment.context_frames, dropped=segment.drop, tail=segment.tail, kept=segment.output_frames,
    )  # fmt: skip
    options = segment.options(context)
    context.trail.note(
        Category.WGP, "asked", model=segment.model.name, video_length=options.video_length, seed=options.seed,
        image_letters=options.image_prompt_type, control_letters=options.video_prompt_type,
    )  # fmt: skip
    return segment.deliver(context.generate(segment.model.name, options, lossless=True), context)
