"""What a Qwen-Image model takes, and how many steps its run has. No model is needed for it."""

from __future__ import annotations

from dataclasses import dataclass

from Wan2GP.engine.control.media import PROCESSING
from Wan2GP.engine.language.vision_pictures import PatchRule
from Wan2GP.engine.qwen.pictures import given_pictures
from Wan2GP.engine.request import GenerationRequest
from Wan2GP.engine.stock.hires import Hires, hires_of
from Wan2GP.engine.stock.loras import schedules
from Wan2GP.engine.stock.redrawing import check_redrawn, drawn_steps
from Wan2GP.errors import InvalidInput, Unsupported

#: pictures that Edit-Plus was made for, and the most that it is given
USUAL_PICTURES, MOST_PICTURES = 3, 8

#: letters of video_prompt_type: references, the control image and its mask
_LETTERS = frozenset("KIVAN")


@dataclass(frozen=True)
class Plan:
    """The steps of one still."""

    #: of the first pass, and of the schedule that these are the last of
    steps: int
    schedule_steps: int
    hires: Hires | None

    @property
    def phases(self) -> list[int]:
        """The phase of each step: a second pass is phase 2 of the LoRAs' multipliers."""
        return [1] * self.steps + [2] * (self.hires.steps if self.hires else 0)

    def multipliers(self, request: GenerationRequest) -> list[tuple[float, ...]]:
        """Each LoRA's multiplier at each step of one still. Raises InvalidInput."""
        return schedules(request, self.phases, 2 if self.hires else 1)


def plan_of(request: GenerationRequest) -> Plan:
    """The steps of a request: a kept picture that shows through runs the last part of the schedule alone."""
    total = request.sampling.num_inference_steps
    return Plan(drawn_steps(request) if request.image_mask is not None else total, total, hires_of(request))


def check_common(request: GenerationRequest) -> None:
    """Raises InvalidInput or Unsupported for what no Qwen-Image model can do."""
    _check_letters(request)
    if request.model_mode:
        raise Unsupported(
            f"{request.model_mode} is not there: the white of a mask is drawn by masked denoising (0). For inpainting "
            "by a LoRA, paint the area green and give the picture without a mask",
            field="model_mode",
        )
    if str(request.settings["video_guide_outpainting"]).strip(" #0"):
        raise Unsupported(
            "these models draw nothing outside of a picture; give a larger picture with a mask of what is to be drawn",
            field="video_guide_outpainting",
        )
    if request.image_mask is not None:
        check_redrawn(request, request.image_guide)
    plan_of(request).multipliers(request)


def check_text(request: GenerationRequest) -> None:
    """Raises InvalidInput for a picture that text-to-image could not use."""
    if request.image_guide is not None and request.image_mask is None:
        raise InvalidInput(
            f"{request.definition.id} uses it with image_mask alone; give the mask of what is to be drawn, or choose "
            "an edit model",
            field="image_guide",
        )


def check_pictures(request: GenerationRequest, most: int) -> None:
    """Raises InvalidInput where the letters speak of a picture and none is there, or for one of a shape that cannot be
    read; Unsupported for too many."""
    count = len(given_pictures(request))
    if not count and set("KI") & set(request.video_prompt_type):
        raise InvalidInput(
            f"is missing: {request.definition.id} changes a picture; give one, or leave K and I out of "
            "video_prompt_type for an image of the prompt alone",
            field="image_refs",
        )
    if count > most:
        more = "" if most > 1 else "; put them into one picture, or choose an Edit-Plus model"
        raise Unsupported(
            f"{request.definition.id} takes up to {most} picture(s), not {count}{more}", field="image_refs"
        )
    for picture in given_pictures(request):
        PatchRule().size(picture.shape[1], picture.shape[0])


def _check_letters(request: GenerationRequest) -> None:
    for letter in request.video_prompt_type:
        if letter in PROCESSING:
            raise Unsupported(
                f"{letter}: this version takes no {PROCESSING[letter]} from a picture for {request.definition.id}; an "
                "Edit-Plus model takes a picture that shows it as one of image_refs",
                field="video_prompt_type",
            )
        if letter not in _LETTERS:
            raise Unsupported(
                f"{request.definition.id} does not know the letter {letter}; it knows {', '.join(sorted(_LETTERS))}",
                field="video_prompt_type",
            )
