"""Images by Qwen-Image: of a text, of a picture that is changed, and of what a picture shows.

The steps import the media libraries themselves: add_task only needs the declarations, and should start at once.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headless.generation import GenerationResult, ModelInfo
from headless.options import GenerationOptions
from source.errors import InvalidInput, Unsupported
from source.params.images import (
    AnnotatedParams,
    MaskedParams,
    QwenEditParams,
    QwenHiresParams,
    QwenParams,
    QwenStyleParams,
    QwenTextParams,
)
from source.planning.image_sizes import Size, capped
from source.planning.qwen import EDIT, QWEN_TASKS, USUAL_SIDE, Consistency, planned
from source.results import finished
from source.task_registry import Done, TaskContext, task

if TYPE_CHECKING:
    from source.media.composites import Brightness
    from Wan2GP.media import Frame

#: types that always run their own model
FORCED = frozenset({"qwen_image_style", "qwen_image", "qwen_image_2512"})


def qwen(name: str) -> Callable[[Any], Any]:
    """Registers the function that runs the task type `name` of the table."""
    row = QWEN_TASKS[name]
    return task(
        name,
        output="a PNG image; of several, the first (all are listed as outputs)",
        default_model=row.model,
        help=row.help,
        forces_model=name in FORCED,
        defaults=row.defaults,
    )


@qwen("qwen_image")
@qwen("qwen_image_2512")
def draw(params: QwenTextParams, context: TaskContext) -> Done:
    """An image from text."""
    return finished(_generate(params, planned(QWEN_TASKS[context.task.task_type], params), context))


@qwen("qwen_image_hires")
def draw_twice(params: QwenHiresParams, context: TaskContext) -> Done:
    """An image from text, in two passes."""
    return finished(_generate(params, planned(QWEN_TASKS["qwen_image_hires"], params), context))


@qwen("qwen_image_edit")
def edit(params: QwenEditParams, context: TaskContext) -> Done:
    """An image, changed."""
    picture = context.fetch(params.image, kind="image", field="image")
    options = planned(QWEN_TASKS["qwen_image_edit"], params, shown=_size_of(picture))
    return finished(_generate(params, options, context, picture))


@qwen("qwen_image_style")
def restyle(params: QwenStyleParams, context: TaskContext) -> Done:
    """A new image that keeps what is asked for of a given one."""
    field, image = params.picture
    picture, keeps = context.fetch(image, kind="image", field=field), Consistency.of(params)
    options = planned(
        QWEN_TASKS["qwen_image_style"], params, shown=_size_of(picture),
        prompt=keeps.prompt(params.options.prompt or ""), role=keeps.role, loras=keeps.loras,
    )  # fmt: skip
    return finished(_generate(params, options, context, picture))


@qwen("annotated_image_edit")
def edit_marked(params: AnnotatedParams, context: TaskContext) -> Done:
    """An image, changed at the places that a mask marks."""
    picture, mask = _masked(params, context)
    options = planned(QWEN_TASKS["annotated_image_edit"], params, shown=_size(picture))
    return finished(_generate(params, options, context, _composite(picture, mask, _capped(picture), context)))


@qwen("image_inpaint")
def inpaint(params: MaskedParams, context: TaskContext) -> Done:
    """An image of which the white of a mask is drawn anew.

    The model is shown the image in the shape of the result, so that what it draws lies where it belongs when the other
    pixels are put back.
    """
    picture, mask = _masked(params, context)
    options = planned(QWEN_TASKS["image_inpaint"], params, shown=_size(picture))
    assert options.size is not None
    shape = _capped(picture) if _alike(_size(picture), options.size) else capped(options.size, USUAL_SIDE)
    result = _generate(params, options, context, _composite(picture, mask, shape, context))
    for file in result.files:
        _put_back(file, picture, mask)
    return finished(result)


def _generate(
    params: QwenParams, options: GenerationOptions, context: TaskContext, picture: Path | None = None
) -> GenerationResult:
    assert params.model is not None
    model = context.model(params.model)
    return context.generate(model.name, _with_picture(options, model, str(picture)) if picture else options)


def _with_picture(options: GenerationOptions, model: ModelInfo, picture: str) -> GenerationOptions:
    """The picture that is changed before those that the row refers to. Raises Unsupported."""
    if model.takes("control_video"):
        return options.replace(image_guide=picture)
    if model.takes("references"):
        return options.replace(image_refs=[picture, *(options.image_refs or [])])
    raise Unsupported(f"{model.name} changes no picture; choose an edit model, such as {EDIT}", field="model")


def _size_of(file: Path) -> Size:
    from Wan2GP.media import probe_image

    seen = probe_image(file)
    return seen.width, seen.height


def _size(picture: Frame) -> Size:
    return picture.shape[1], picture.shape[0]


def _capped(picture: Frame) -> Size:
    return capped(_size(picture), USUAL_SIDE)


def _alike(first: Size, second: Size) -> bool:
    """Whether two sizes have one aspect, to within two percent: what cutting to whole blocks of pixels changes."""
    return abs(first[0] * second[1] - first[1] * second[0]) <= 0.02 * first[1] * second[0]


def _masked(params: MaskedParams, context: TaskContext) -> tuple[Frame, Brightness]:
    """The image, and the brightness of its mask. Raises InvalidInput for a mask that means nothing."""
    from source.media.composites import WHITE
    from Wan2GP.media import read_image, read_mask

    picture = read_image(context.fetch(params.image_url, kind="image", field="image_url"))
    mask = read_mask(context.fetch(params.mask_url, kind="image", field="mask_url"))
    if mask.max() < WHITE:
        raise InvalidInput(f"marks nothing: no pixel of it is white ({WHITE} or brighter of 255)", field="mask_url")
    return picture, mask


def _composite(picture: Frame, mask: Brightness, size: Size, context: TaskContext) -> Path:
    """The image at `size`, green where the mask is white, as a PNG: no other format keeps the green exactly."""
    from source.media.composites import at_size, mask_at, painted_green
    from Wan2GP.media import write_image

    painted = painted_green(at_size(picture, size), mask_at(mask, size))
    return write_image(context.scratch / "green_composite.png", painted)


def _put_back(file: Path, picture: Frame, mask: Brightness) -> None:
    """What the mask spares, pixel for pixel, in a file that a model wrote."""
    from source.media.composites import drawn_within
    from Wan2GP.media import read_image, write_image

    write_image(file, drawn_within(read_image(file), picture, mask))
