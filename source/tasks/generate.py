"""Direct generation: task types that differ only by the model that they use, and by what it shall make."""

from __future__ import annotations

from headless.options import GenerationOptions
from source.params.generating import GenerateParams
from source.results import finished
from source.task_registry import Done, TaskContext, task

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
    "hunyuan": ("hunyuan", "Text to video with HunyuanVideo; with the model hunyuan_i2v from a start image."),
    "ltxv": ("ltxv_13B", "Video with LTX-Video: from text, images at any frame, and videos that go on or are redrawn."),
    "wgp": ("t2v", "Generate with any model and any option of the engine."),
    "standard_wgp_task": ("t2v", "Generate with any model and any option of the engine (the same as wgp)."),
}

#: the same for one still
STILL_TYPES = {
    "wan_2_2_t2i": ("t2v_2_2", "Text to image with Wan 2.2: one frame, saved as PNG."),
    "single_image": ("t2v_2_2", "One image with any model, saved as PNG; of a video model, one frame."),
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


def generate_still(params: GenerateParams, context: TaskContext) -> Done:
    """Run the model once for one frame: where it makes no stills, the first of its shortest video."""
    assert params.model is not None
    model = context.model(params.model)
    still = {"image_mode": params.options.image_mode or 1} if model.stills else {}
    return finished(context.generate(model.name, params.options.replace(video_length=1, **still)))


for _name, (_model, _help) in DIRECT_TYPES.items():
    task(_name, output="an MP4 video, or PNG images of an image model", default_model=_model, help=_help)(generate)
for _name, (_model, _help) in STILL_TYPES.items():
    task(_name, output="a PNG image", default_model=_model, help=_help)(generate_still)
