"""What is asked of a model that makes masks. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from Wan2GP.engine.masks.edges import MOST_FEATHER, drawn
from Wan2GP.engine.numbers import Numbers
from Wan2GP.engine.request import Frame, GenerationRequest
from Wan2GP.errors import InvalidInput
from Wan2GP.mask_prompts import FIELD, MaskPrompt, parse_mask_prompts, placed
from Wan2GP.media import probe_video


@dataclass(frozen=True)
class Edges:
    """How a selection is drawn."""

    #: pixels on either side of an edge over which it fades
    feather: float
    #: draw what is left out instead
    inverted: bool

    @classmethod
    def of(cls, request: GenerationRequest) -> Edges:
        """Raises InvalidInput for a feather that cannot be."""
        feather = Numbers(request.settings).real("mask_feather", 0, MOST_FEATHER)
        return cls(feather, "N" in request.video_prompt_type)

    def draw(self, selected: npt.NDArray[np.bool_]) -> Frame:
        """A selection (H, W) as a picture (H, W, 3) uint8."""
        return drawn(selected ^ self.inverted, self.feather)


@dataclass(frozen=True)
class MaskRequest:
    """The part of a request that a mask model looks at."""

    num_frames: int
    #: placed: in order of object and frame
    prompts: tuple[MaskPrompt, ...]
    edges: Edges

    @classmethod
    def of(cls, request: GenerationRequest) -> MaskRequest:
        """Raises InvalidInput for prompts or a feather that cannot be. The request has a picture: that was checked."""
        num_frames, width, height = _extent(request)
        try:
            prompts = parse_mask_prompts(request.settings[FIELD])
        except InvalidInput as error:
            raise InvalidInput(str(error), field=FIELD) from None
        return cls(
            num_frames=num_frames,
            prompts=placed(prompts, num_frames, width, height),
            edges=Edges.of(request),
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
