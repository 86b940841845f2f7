"""flux: images from text."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from headless.options import GenerationOptions
from source.errors import InvalidInput
from source.params.generating import GenerateParams
from source.results import finished
from source.task_registry import Done, TaskContext, task

#: what `batch_size` of the engine allows
MOST_IMAGES = 16
EMBEDDED_GUIDANCE = 3.0


class FluxParams(GenerateParams):
    """Images; `video_length` is how many (1 to 16), `embedded_guidance_scale` is 3 unless given."""

    @model_validator(mode="after")
    def _knows_how_many(self) -> Self:
        length, batch = self.options.video_length, self.options.batch_size
        if length is not None and length > MOST_IMAGES:
            raise InvalidInput(
                f"is the number of images here, at most {MOST_IMAGES}, not {length}", field="video_length"
            )
        if None not in (length, batch) and length != batch:
            raise InvalidInput(
                f"is the number of images here, {length}, and batch_size says {batch}; give one", field="video_length"
            )
        return self


@task(
    "flux",
    output="PNG images: the first is the output, all are listed as outputs",
    default_model="flux",
    defaults={"video_length": 1, "embedded_guidance_scale": EMBEDDED_GUIDANCE},
)
def flux(params: FluxParams, context: TaskContext) -> Done:
    """Text to image with Flux; video_length is the number of images."""
    assert params.model is not None
    return finished(context.generate(params.model, image_options(params.options)))


def image_options(options: GenerationOptions) -> GenerationOptions:
    """As many images as `video_length` (or `batch_size`) says, one without either."""
    guidance = options.embedded_guidance_scale
    return options.replace(
        image_mode=options.image_mode or 1,
        video_length=1,
        batch_size=options.video_length or options.batch_size or 1,
        embedded_guidance_scale=EMBEDDED_GUIDANCE if guidance is None else guidance,
    )
