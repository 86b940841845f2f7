"""What is asked of a model that makes masks. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

from Wan2GP.engine.mask_edges import MOST_FEATHER
from Wan2GP.engine.numbers import Numbers
from Wan2GP.engine.request import GenerationRequest
from Wan2GP.errors import InvalidInput, Unsupported
from Wan2GP.mask_prompts import FIELD, MISSING, MaskPrompt, parse_mask_prompts, placed
from Wan2GP.media import probe_video


@dataclass(frozen=True)
class MaskRequest:
    """The part of a request that a mask model looks at."""

    num_frames: int
    #: placed: in order of object and frame
    prompts: tuple[MaskPrompt, ...]
    #: pixels on either side of an edge over which it fades
    feather: float
    #: select what the model leaves out
    inverted: bool

    @classmethod
    def of(cls, request: GenerationRequest) -> MaskRequest:
        """Raises InvalidInput for prompts or a feather that cannot be."""
        num_frames, width, height = _extent(request)
        try:
            prompts = parse_mask_prompts(request.settings[FIELD])
        except InvalidInput as error:
            raise InvalidInput(str(error), field=FIELD) from None
        return cls(
            num_frames=num_frames,
            prompts=placed(prompts, num_frames, width, height),
            feather=Numbers(request.settings).real("mask_feather", 0, MOST_FEATHER),
            inverted="N" in request.video_prompt_type,
        )


def check_mask(request: GenerationRequest) -> None:
    """Raises InvalidInput or Unsupported for a request that no mask model can meet."""
    name = request.definition.id
    if set(request.video_prompt_type) - {"V", "N"}:
        raise Unsupported(f"{name} knows the letters V and N (inverted) alone", field="video_prompt_type")
    if request.image_output:
        _check_still(request)
    else:
        _check_video(request)
    MaskRequest.of(request)


def wants_prompts(request: GenerationRequest) -> None:
    """Raises InvalidInput where nothing says what shall be selected."""
    if not MaskRequest.of(request).prompts:
        raise InvalidInput(MISSING, field=FIELD)


def _check_still(request: GenerationRequest) -> None:
    if request.image_guide is None:
        raise InvalidInput("is missing; give the image of which a mask is wanted", field="image_guide")
    if request.video_guide is not None:
        raise InvalidInput("a mask of one image is asked for; give image_guide alone", field="video_guide")
    if request.batch_size > 1:
        raise Unsupported(f"{request.definition.id} makes one mask of an image", field="batch_size")


def _check_video(request: GenerationRequest) -> None:
    if request.video_guide is None:
        raise InvalidInput("is missing; give the video of which masks are wanted", field="video_guide")
    if request.image_guide is not None:
        raise InvalidInput(
            "masks of a video are asked for; set image_mode 1 for those of an image", field="image_guide"
        )
    there = probe_video(request.video_guide).num_frames
    if there < request.num_frames:
        raise InvalidInput(
            f"{request.num_frames} frames are asked for and video_guide has {there}; ask for {there} at most",
            field="video_length",
        )


def _extent(request: GenerationRequest) -> tuple[int, int, int]:
    """(frames of the result, width, height of the given picture)."""
    if request.image_output:
        assert request.image_guide is not None
        height, width = request.image_guide.shape[:2]
        return 1, width, height
    assert request.video_guide is not None
    info = probe_video(request.video_guide)
    return request.num_frames, info.width, info.height
