"""The video that leads from a picture to another perspective: its control video, and its mask.

The media libraries are imported by the steps: task types name this module, and add_task should start at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

from headless.generation import ModelInfo
from headless.options import GenerationOptions
from source.errors import InvalidInput, Unsupported
from source.params.perspective import MODELS, FinalGenParams, PerspectiveSettings
from source.planning.easing import easing
from source.planning.frames import quantise
from source.task_registry import TaskContext
from source.trail import Category

if TYPE_CHECKING:
    from Wan2GP.drawing.skeleton import Skeleton
    from Wan2GP.media import Frame

#: what the model of the video must take
NEEDS = ("control_video", "mask", "references")
#: of video_prompt_type: a control video, its mask, references
LETTERS = "VMI"
#: draws the picture where the model of the video needs more than words
IMAGE_MODEL = "t2v_2_2"
INTERPOLATOR = "rife"


def check_perspective(params: PerspectiveSettings, context: TaskContext) -> ModelInfo:
    """The model of the video. Raises Unsupported when it cannot do this, ModelUnavailable when it, or a model that
    draws its control video, cannot run on this machine."""
    from source.planning.upscale import refuse_post_processing

    model = context.model(params.model or "")
    if not _leads(model):
        raise Unsupported(
            f"{model.name} makes no video of a control video, its mask and a reference; use a VACE model",
            field="model",
        )
    refuse_post_processing(params.options)
    context.model(MODELS[params.perspective_type])
    return model


def _leads(model: ModelInfo) -> bool:
    """Whether it makes videos of a control video, its mask and a reference, and knows their letters."""
    from Wan2GP.architectures import ARCHITECTURES

    architecture = ARCHITECTURES.get(model.architecture)
    makes_videos = not (model.image_output or model.text_output)
    return makes_videos and model.takes(*NEEDS) and (architecture is None or set(LETTERS) <= set(architecture.control))


def image_model(name: str | None, video_model: ModelInfo, context: TaskContext) -> str:
    """The model that draws a picture from words alone. Raises Unsupported for one that needs more."""
    chosen = (
        context.model(name) if name else video_model if _draws_from_text(video_model) else context.model(IMAGE_MODEL)
    )
    if not _draws_from_text(chosen):
        raise Unsupported(f"{chosen.name} draws no picture from text alone", field="image_model_name")
    return chosen.name


def _draws_from_text(model: ModelInfo) -> bool:
    return model.takes("text") and model.required <= {"text"} and not model.text_output


@dataclass(frozen=True)
class PerspectiveVideo:
    """One run of the model from a picture to the other perspective."""

    params: FinalGenParams
    model: ModelInfo
    picture: Path
    size: tuple[int, int]
    num_frames: int

    @classmethod
    def resolve(cls, params: FinalGenParams, context: TaskContext) -> PerspectiveVideo:
        """Validate before anything is generated. Raises InvalidInput, InvalidMedia, Unsupported, ModelUnavailable."""
        from headless.inputs import generation_size

        model = check_perspective(params, context)
        size = generation_size(params.options, model)
        assert size is not None, "the parameters have one"
        picture = context.fetch(params.input_image_path, kind="image", field="input_image_path")
        wanted, step = params.output_video_frames, model.frame_step
        length = max(quantise(wanted, step) if step > 1 else wanted, model.min_frames)
        return cls(params, model, picture, size, length)

    def options(self, context: TaskContext) -> GenerationOptions:
        """The engine's knobs; the picture is the reference."""
        from Wan2GP.media import write_video

        fps, masked = self.params.fps_helpers, self.params.use_mask_for_first_frame
        frames = self.guide(context)
        if masked:
            frames = chain([self.first_frame()], islice(frames, 1, None))
        guide = write_video(context.scratch / "perspective_guide.mkv", frames, fps=fps, codec="ffv1")
        given = self.params.options
        background = given.remove_background_images_ref
        return given.replace(
            resolution=f"{self.size[0]}x{self.size[1]}",
            video_length=self.num_frames,
            force_fps=f"{fps:g}",
            video_guide=str(guide.path),
            video_mask=str(self._mask(context.scratch / "perspective_mask.mkv")) if masked else None,
            video_prompt_type=LETTERS if masked else LETTERS.replace("M", ""),
            image_refs=[str(self.picture)],
            remove_background_images_ref=0 if background is None else background,
        )

    def first_frame(self) -> Frame:
        """The picture at the video's size, (H, W, 3) uint8."""
        from source.media.images import load_fitted

        return load_fitted(self.picture, self.size)

    def guide(self, context: TaskContext) -> Iterator[Frame]:
        """The control frames, `num_frames` of them, RGB (H, W, 3) uint8."""
        return self._poses(context) if self.params.perspective_type == "pose" else self._depths(context)

    def _mask(self, path: Path) -> Path:
        """Black, which keeps, for the first frame; white after it."""
        import numpy as np

        from Wan2GP.media import write_video

        white = np.full((self.size[1], self.size[0], 3), 255, np.uint8)
        frames = chain([np.zeros_like(white)], (white for _ in range(self.num_frames - 1)))
        return write_video(path, frames, fps=self.params.fps_helpers, codec="ffv1").path

    def _poses(self, context: TaskContext) -> Iterator[Frame]:
        """The people of both pictures, moved from one pose to the other."""
        from Wan2GP.drawing.skeleton import SEEN_FROM, draw_skeletons, interpolated_people

        first = self._people(self.picture, context)
        if not first:
            raise InvalidInput(
                "shows no person whose pose could be found; use perspective_type depth", field="input_image_path"
            )
        second = self._people(_picture(self.params, "target_image", context), context)
        if not second:
            context.trail.warn(Category.FRAME, "nobody was found in the other perspective; the pose fades where it is")
        curve = easing(self.params.easing)
        for number in range(self.num_frames):
            people = interpolated_people(first, second, curve(number / (self.num_frames - 1)))
            yield draw_skeletons(people, self.size, SEEN_FROM)

    def _people(self, picture: Path, context: TaskContext) -> tuple[Skeleton, ...]:
        """Who is in a picture; joints in pixels of the video."""
        from Wan2GP.drawing.skeleton import from_json

        told = context.generate(MODELS["pose"], GenerationOptions(image_guide=str(picture))).output
        people, (width, height) = from_json(json.loads(told.read_text(encoding="utf-8")))
        return tuple(each.scaled(self.size[0] / width, self.size[1] / height) for each in people)

    def _depths(self, context: TaskContext) -> Iterator[Frame]:
        """The frames between both depth maps."""
        from Wan2GP.media import read_frames

        options = GenerationOptions(
            image_start=str(_picture(self.params, "start_depth", context)),
            image_end=str(_picture(self.params, "end_depth", context)),
            resolution=f"{self.size[0]}x{self.size[1]}",
            video_length=self.num_frames,
        )
        return read_frames(context.generate(INTERPOLATOR, options, lossless=True).output)


def _picture(params: FinalGenParams, name: str, context: TaskContext) -> Path:
    """A picture that is named by its path or by the task that made it."""
    path, task = f"{name}_path", f"{name}_task_id"
    if reference := getattr(params, path):
        return context.fetch(reference, kind="image", field=path)
    return context.fetch(str(context.output_of(getattr(params, task), field=task)), kind="image", field=task)
