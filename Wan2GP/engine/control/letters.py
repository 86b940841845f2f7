"""What the letters of `video_prompt_type` ask to be done with a control video, or image, before its model sees it.

One letter of P D S E L C says what is drawn inside the mask (everywhere without a mask); one of X Y W Z says what is
shown outside of it, which is then drawn by the model too. Their order does not matter. No torch here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from Wan2GP.engine.control.media import PROCESSING
from Wan2GP.engine.request import GenerationRequest
from Wan2GP.errors import InvalidInput, ModelUnavailable, Unsupported

#: letter -> the model that draws it
MODELS = {"P": "pose", "D": "depth_anything_v2_vitl", "S": "scribble", "E": "canny", "L": "flow"}
#: without colours, so that the model gives it some; needs no model
RECOLOURED = "C"
#: nothing: a plain grey, over which the model draws freely
NOTHING = "X"

#: letters of what is drawn inside the mask, in the order in which older programs count them as first and second
_INSIDE = "PDESLC"
#: letter of what is shown outside the mask -> the letter of the same inside
_OUTSIDE = {"X": NOTHING, "Y": "D", "W": "S", "Z": "L"}


@dataclass(frozen=True)
class Processing:
    """What becomes of each frame of a control video."""

    #: a letter of MODELS, or RECOLOURED; None: the frame as it is
    inside: str | None
    #: a letter of MODELS, or NOTHING; None: the frame as it is, which is kept
    outside: str | None

    @property
    def letters(self) -> tuple[str, ...]:
        """Those that a model draws, each once."""
        return tuple(dict.fromkeys(each for each in (self.inside, self.outside) if each in MODELS))


def processing_of(request: GenerationRequest) -> Processing | None:
    """What the request's letters ask for; None where the control media are used as they are.

    A model that draws control pictures itself is given them as they are.
    """
    if request.definition.architecture.draws or (request.video_guide is None and request.image_guide is None):
        return None
    letters = request.video_prompt_type
    inside = next((each for each in _INSIDE if each in letters), None)
    outside = next((shown for each, shown in _OUTSIDE.items() if each in letters), None)
    return Processing(inside, outside) if inside or outside else None


def check_letters(request: GenerationRequest) -> None:
    """Raises Unsupported for letters that ask for what cannot be done, InvalidInput for those that lack their mask."""
    if "O" in request.video_prompt_type and not request.definition.architecture.draws:
        raise Unsupported(
            "O, a pose that is aligned with a reference, is not there in this version; P draws poses where they are",
            field="video_prompt_type",
        )
    processing = processing_of(request)
    if processing is None:
        return
    _check_known(request)
    _check_one_each(request)
    if "G" in request.video_prompt_type:
        raise Unsupported(
            "G redraws the control video itself, so nothing can be drawn from it first; leave out one of them",
            field="video_prompt_type",
        )
    if processing.outside and request.video_mask is None and request.image_mask is None:
        given = next(each for each in _OUTSIDE if each in request.video_prompt_type)
        raise InvalidInput(
            f"{given} says what is shown outside the mask, and there is none; give video_mask, or leave it out",
            field="video_prompt_type",
        )


def check_models(request: GenerationRequest, unavailable: Callable[[str], str | None]) -> None:
    """Raises ModelUnavailable where a model that the letters need cannot run here; `unavailable` says why."""
    processing = processing_of(request)
    for letter in processing.letters if processing else ():
        reason = unavailable(MODELS[letter])
        if reason is not None:
            raise ModelUnavailable(
                f"video_prompt_type {request.video_prompt_type!r} asks for {PROCESSING[letter]}, "
                f"which the model {MODELS[letter]} draws. {reason}"
            )


def _check_known(request: GenerationRequest) -> None:
    known = request.definition.architecture.control
    unknown = [each for each in _asked(request) if each not in known]
    if unknown:
        raise Unsupported(
            f"{request.definition.id} uses its control media as they are; it has no use for {''.join(unknown)!r} "
            f"(of these letters it knows: {known or 'none'})",
            field="video_prompt_type",
        )


def _check_one_each(request: GenerationRequest) -> None:
    for group, where in ((_INSIDE, "inside the mask"), (_OUTSIDE, "outside the mask")):
        given = [each for each in group if each in request.video_prompt_type]
        if len(given) > 1:
            raise Unsupported(
                f"{' and '.join(given)} are two processes {where}; this version gives a model one control video, "
                "so choose one of them",
                field="video_prompt_type",
            )


def _asked(request: GenerationRequest) -> Iterator[str]:
    return (each for each in (*_INSIDE, *_OUTSIDE) if each in request.video_prompt_type)
