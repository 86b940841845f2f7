"""Direct generation: task types that differ only by the model that they use."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import model_validator

from headless.generation import GenerationResult
from headless.options import GenerationOptions
from source.params.generating import GeneratingParams
from source.task_registry import Done, TaskContext, task


class GenerateParams(GeneratingParams):
    """One video or image; everything else is an engine knob."""

    needed_knobs: ClassVar[tuple[str, ...]] = ("prompt",)

    @model_validator(mode="after")
    def _has_a_prompt(self) -> Self:
        if not (self.options.prompt or "").strip():
            raise ValueError("prompt is missing; say what to show")
        return self


#: task type -> (default model, help)
DIRECT_TYPES = {
    "generate_video": ("t2v", "Generate a video with any model (default: text to video)."),
    "t2v": ("t2v", "Text to video."),
    "t2v_22": ("t2v_2_2", "Text to video with Wan 2.2."),
    "i2v": ("i2v", "Image to video: starts from image_start, may end at image_end."),
    "i2v_22": ("i2v_2_2", "Image to video with Wan 2.2."),
    "vace": ("vace_14B_cocktail_2_2", "Video from a control video and a mask (Wan 2.2 VACE)."),
    "vace_21": ("vace_14B", "Video from a control video and a mask (Wan 2.1 VACE)."),
    "vace_22": ("vace_14B_cocktail_2_2", "Video from a control video and a mask (Wan 2.2 VACE)."),
}


def generate(params: GenerateParams, context: TaskContext) -> Done:
    """Run the model once on the row's options."""
    assert params.model is not None
    model = context.model(params.model)
    options = params.options
    if options.video_guide and model.takes("control_video"):
        options = with_control_letters(options)
    return finished(context.generate(model.name, options))


def with_control_letters(options: GenerationOptions) -> GenerationOptions:
    """Letters for a guide (and a mask) that came without any."""
    if options.video_prompt_type is not None:
        return options
    return options.replace(video_prompt_type="VM" if options.video_mask else "V")


def finished(result: GenerationResult) -> Done:
    """The run's last file is the output; what it was made with is kept beside it."""
    notes = {"notes": list(result.notes)} if result.notes else {}
    return Done(result.output, {"model": result.model, "generation_seconds": round(result.seconds, 3), **notes})


for _name, (_model, _help) in DIRECT_TYPES.items():
    task(_name, output="an MP4 video, or PNG images of an image model", default_model=_model, help=_help)(generate)


@task("wan_2_2_t2i", output="a PNG image", default_model="t2v_2_2")
def generate_image(params: GenerateParams, context: TaskContext) -> Done:
    """Text to image with Wan 2.2: a video of one frame, saved as PNG."""
    assert params.model is not None
    return finished(context.generate(params.model, params.options.replace(video_length=1)))
