"""enhance_prompts: ask a vision-language model for the prompts of a travel's segments or of joins.

The steps import the media libraries themselves: add_task only needs the declarations, and should start at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from headless.options import GenerationOptions, ImageRef, aliases
from source.errors import ModelUnavailable, Unsupported, verdict
from source.logs import redact
from source.params.base import UNSUPPORTED, Part, TaskParams
from source.planning.prompts import DEFAULT_MODEL, MOST_PICTURES, Kind, Picture, Shot, cleaned, instruction, kept_prompt
from source.task_registry import Done, TaskContext, task
from source.trail import Category

#: error classes of failures of the model, bugs of its libraries among them: they leave a shot with the prompt it had.
#: Others are the row's, the machine's or a cancellation
MODEL_FAILURES = ("model_unavailable", "out_of_memory", "engine", "internal")


class PictureParams(Part):
    """A picture: an image, or a frame of a video."""

    path: ImageRef = Field(..., description="path or URL")
    frame: int | None = Field(None, description="number of a video's frame, negative from the end; absent: an image")


class ShotParams(Part):
    """A shot that wants a prompt."""

    prompt: str = Field("", description="the user's own")
    num_frames: PositiveInt = Field(..., description="its length")
    fps: PositiveFloat = Field(16, description="frames per second")
    pictures: Annotated[list[PictureParams], Field(min_length=1)] = Field(..., description="what the model is shown")
    index: int | None = Field(None, ge=0, description="number of the segment or join (default: its place in the list)")

    @property
    def shot(self) -> Shot:
        pictures = tuple(Picture(each.path, each.frame) for each in self.pictures)
        return Shot(self.prompt, self.num_frames, self.fps, pictures, self.index)


class EnhancePromptsParams(TaskParams):
    """The shots of a travel or of joins. No engine knob belongs to it: those that it carries are its parent's."""

    not_knobs: ClassVar[frozenset[str]] = frozenset(aliases(GenerationOptions))
    carried: ClassVar[frozenset[str]] = frozenset(
        [*UNSUPPORTED, "fps_helpers", "parsed_resolution_wh", "debug", "debug_mode_enabled", "skip_cleanup_enabled"]
    )

    kind: Kind = Field("travel", description="travel: from a start (to an end); join: frames around what is missing")
    shots: Annotated[list[ShotParams], Field(min_length=1)] = Field(..., description="what prompts are wanted for")

    @model_validator(mode="after")
    def _pictures_fit(self) -> Self:
        most = MOST_PICTURES[self.kind]
        for place, shot in enumerate(self.shots):
            if len(shot.pictures) > most:
                raise ValueError(f"shots.{place}.pictures: a {self.kind} takes up to {most}, not {len(shot.pictures)}")
        return self


@task("enhance_prompts", output="no file; the prompts stand in result_data", default_model=DEFAULT_MODEL)
def enhance_prompts(params: EnhancePromptsParams, context: TaskContext) -> Done:
    """Prompts for the shots of a travel or of joins, by a vision-language model that is shown their pictures.

    A shot that the model fails on keeps the prompt it had; `notes` of the result and a warning in the timeline say so.
    """
    assert params.model is not None
    prompts, notes, indices = [], [], []
    lacking = _lacking(params.model, context)
    for place, each in enumerate(params.shots):
        shot = each.shot
        index = place if shot.index is None else shot.index
        context.report("preparing", place, len(params.shots))
        prompt, failure = (kept_prompt(shot), lacking) if lacking else _enhanced(params, shot, place, context)
        prompts.append(prompt)
        indices.append(index)
        notes += [f"{index}: kept {prompt!r}: {failure}"] if failure else []
    if notes:
        context.trail.warn(Category.WGP, "prompts were not enhanced", shots=len(notes), of=len(prompts), first=notes[0])
    return Done(None, {"indices": indices, "prompts": prompts, "notes": notes, "model": params.model})


def _lacking(name: str, context: TaskContext) -> str | None:
    """Why the model cannot run here. Raises UnknownModel, and Unsupported for one that answers with no text."""
    try:
        model = context.model(name)
    except ModelUnavailable as error:
        return str(error)
    if not model.text_output or not model.takes("text", "references"):
        raise Unsupported(f"{name} writes no text about pictures; name a vision-language model", field="model_name")
    return None


def _enhanced(params: EnhancePromptsParams, shot: Shot, place: int, context: TaskContext) -> tuple[str, str | None]:
    """(prompt, None), or the prompt that the shot had and why the model has none."""
    assert params.model is not None
    shown = [str(path) for path in _shown(params.kind, shot, place, context)]
    options = GenerationOptions(prompt=instruction(params.kind, shot), image_refs=shown)
    try:
        answer = cleaned(context.generate(params.model, options).output.read_text(encoding="utf-8"))
    except Exception as error:
        if verdict(error).error_class not in MODEL_FAILURES:
            raise
        return kept_prompt(shot), redact(str(error))
    return (answer, None) if answer else (kept_prompt(shot), f"{params.model} gave an empty answer")


def _shown(kind: Kind, shot: Shot, place: int, context: TaskContext) -> list[Path]:
    """The pictures for the model, in the task's scratch folder. Raises InvalidMedia."""
    from source.prompting import read_picture, side_by_side
    from Wan2GP.media import write_image

    pictures = []
    for number, each in enumerate(shot.pictures):
        media = "image" if each.frame is None else "video"
        path = context.fetch(each.path, kind=media, field=f"shots[{place}].pictures[{number}]")
        pictures.append(read_picture(path, each.frame))
    if kind == "travel" and len(pictures) == 2:
        pictures = [side_by_side(*pictures)]
    folder = context.scratch / "shown"
    folder.mkdir(exist_ok=True)
    return [write_image(folder / f"{place:03d}_{number}.png", each) for number, each in enumerate(pictures)]
