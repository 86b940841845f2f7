"""enhance_prompt: one prompt, written from an idea, from images, or from both.

The prompts of a travel's segments are another task, enhance_prompts: its model knows where segments begin and end.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import AliasChoices, BeforeValidator, Field, model_validator

from headless.generation import ModelInfo
from headless.options import ImageRef
from source.errors import InvalidInput, Unsupported
from source.params.base import TaskParams
from source.results import finished
from source.task_registry import Done, TaskContext, task
from source.trail import Category

DEFAULT_MODEL = "prompt_enhancer"
ARCHITECTURE = "prompt_enhancer"
MOST_IMAGES = 4


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


class EnhancePromptParams(TaskParams):
    """What the prompt shall be about."""

    #: the images of this task are what is described, whatever they are to a generation
    not_knobs: ClassVar[frozenset[str]] = frozenset(
        ["image_start", "image_refs", "image_refs_paths", "image_mode", "prompt_enhancer_model"]
    )

    images: Annotated[list[ImageRef], BeforeValidator(_listed), Field(max_length=MOST_IMAGES)] = Field(
        [],
        description="what the prompt is about, or begins from",
        validation_alias=AliasChoices("images", "image", "image_path", "image_url", "input_image_path"),
    )
    output: Literal["video", "image"] = Field("video", description="what the prompt is for")

    @model_validator(mode="after")
    def _has_something_to_go_by(self) -> Self:
        if not self.images and not (self.options.prompt or "").strip():
            raise InvalidInput("is missing; say what the prompt shall be about, or give images", field="prompt")
        return self


@task("enhance_prompt", output="a text file; the prompt stands in result_data too", default_model=DEFAULT_MODEL)
def enhance_prompt(params: EnhancePromptParams, context: TaskContext) -> Done:
    """Write a prompt for a video or an image from an idea, from images, or from both."""
    model = _enhancer(params, context)
    images = [
        str(context.fetch(image, kind="image", field=f"images[{number}]")) for number, image in enumerate(params.images)
    ]
    knobs = {"prompt": params.options.prompt or " ", "image_mode": int(params.output == "image")}
    options = params.options.replace(**knobs, **({"image_refs": images} if images else {}))
    result = context.generate(model.name, options)
    done = finished(result)
    written = result.output.read_text(encoding="utf-8").strip()
    unchanged = written == (params.options.prompt or "").strip()
    if unchanged:
        context.trail.warn(Category.WGP, "the prompt is as it was given", model=model.name)
    return Done(done.output, {**(done.result_data or {}), "prompt": written, "enhanced": not unchanged})


def _enhancer(params: EnhancePromptParams, context: TaskContext) -> ModelInfo:
    """Raises UnknownModel, ModelUnavailable, and Unsupported for one that writes no prompts."""
    assert params.model is not None
    model = context.model(params.model)
    if not (model.architecture == ARCHITECTURE and model.text_output):
        raise Unsupported(f"{model.name} writes no prompts; name a prompt enhancer", field="model_name")
    return model
