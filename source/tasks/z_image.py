"""Images by Z-Image Turbo: of a text, or of a given image that is drawn anew."""

from __future__ import annotations

from headless.options import MAX_SIDE, MIN_SIDE
from source.errors import InvalidInput
from source.params.generating import GenerateParams
from source.params.images import RedrawParams
from source.planning.image_sizes import Size, of_usual_area, size_text
from source.results import finished
from source.task_registry import Done, TaskContext, task

MODEL = "z_image"
#: where the row says nothing; the model was distilled to do without guidance
USUAL = {"num_inference_steps": 8, "guidance_scale": 0.0, "resolution": "1024x1024"}
USUAL_OF_REDRAWN = {"num_inference_steps": 12, "guidance_scale": 0.0, "denoising_strength": 0.7}
_STILL = {"image_mode": 1, "video_prompt_type": ""}

_OUTPUT = "a PNG image; of several, the first (all are listed as outputs)"


@task("z_image_turbo", output=_OUTPUT, default_model=MODEL, forces_model=True, defaults=USUAL)
def z_image_turbo(params: GenerateParams, context: TaskContext) -> Done:
    """Text to image in eight steps (Z-Image Turbo)."""
    options = params.options
    return finished(context.generate(MODEL, options.parse(USUAL | _STILL | options.to_engine() | {"video_length": 1})))


def _size_of(image: Size) -> str:
    """The size of the result of an image of that size. Raises InvalidInput for a strip that no model draws."""
    size = of_usual_area(image)
    if min(size) < MIN_SIDE or max(size) > MAX_SIDE:
        raise InvalidInput(
            f"is missing, and the image's own shape ({size_text(image)}) would make {size_text(size)}: sides must be "
            f"{MIN_SIDE} to {MAX_SIDE} pixels; give one",
            field="image_size",
        )
    return size_text(size)


@task("z_image_turbo_i2i", output=_OUTPUT, default_model=MODEL, forces_model=True, defaults=USUAL_OF_REDRAWN)
def z_image_turbo_i2i(params: RedrawParams, context: TaskContext) -> Done:
    """A given image drawn anew, more or less like it (Z-Image Turbo)."""
    from Wan2GP.media import probe_image

    image = context.fetch(params.image, kind="image", field="image")
    seen = probe_image(image)
    options = params.options
    forced = {
        "image_start": str(image),
        "prompt": options.prompt or " ",
        "resolution": params.size_text or _size_of((seen.width, seen.height)),
        "video_length": 1,
    }
    idle = options.resolution if options.resolution != forced["resolution"] else None
    remarks = [f"resolution {idle} was not used: give it as image_size"] if idle else []
    result = context.generate(MODEL, options.parse(USUAL_OF_REDRAWN | _STILL | options.to_engine() | forced))
    return finished(result, *remarks)
