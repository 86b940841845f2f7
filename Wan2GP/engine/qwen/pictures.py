"""The pictures that a Qwen-Image model is shown, at the sizes that it was made for; and what a mask keeps. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from Wan2GP.engine.control.media import GREY, expanded
from Wan2GP.engine.request import Frame, GenerationRequest
from Wan2GP.media import resize

#: pixels of a picture as the VAE reads it, and as the vision encoder of Edit-Plus does (that of Edit reads the same)
VAE_AREA = 1024 * 1024
SEEN_AREA = 384 * 384
#: both sides of a picture are multiples of this
_BLOCK = 32
#: results with fewer pixels are for trying things out: their pictures are no larger than they are
_SMALL_RESULT = 256 * 256


@dataclass(frozen=True)
class Shown:
    """One picture, as the vision encoder reads it and as the VAE does."""

    seen: Frame
    encoded: Frame


def given_pictures(request: GenerationRequest) -> tuple[Frame, ...]:
    """The pictures that the prompt is about: the control image first, then the references."""
    guide = () if request.image_guide is None else (request.image_guide,)
    return (*guide, *request.references)


def shown(request: GenerationRequest, seen_area: int) -> tuple[Shown, ...]:
    """The request's pictures in their own shapes, each about `seen_area` pixels for the vision encoder and VAE_AREA for
    the VAE, as the published pipelines do; for a result of fewer than 256 x 256 pixels, no larger than the result."""
    pixels = request.width * request.height
    most = pixels if pixels < _SMALL_RESULT else VAE_AREA
    return tuple(_shown(picture, min(seen_area, most), min(VAE_AREA, most)) for picture in given_pictures(request))


def _shown(picture: Frame, seen_area: int, encoded_area: int) -> Shown:
    encoded = _of_area(picture, encoded_area)
    return Shown(encoded if seen_area == encoded_area else _of_area(picture, seen_area), encoded)


def _of_area(picture: Frame, area: int) -> Frame:
    """The picture in its own shape with about `area` pixels, by Lanczos."""
    height, width = picture.shape[:2]
    ratio = width / height
    wide = math.sqrt(area * ratio)
    sides = [max(_BLOCK, round(side / _BLOCK) * _BLOCK) for side in (wide, wide / ratio)]
    found = Image.fromarray(picture).resize((sides[0], sides[1]), Image.Resampling.LANCZOS)
    return np.array(found, np.uint8)


def guide_of(request: GenerationRequest) -> Frame:
    """The picture that a mask belongs to."""
    assert request.image_guide is not None, "a mask without its picture is refused"
    return request.image_guide


def drawn(request: GenerationRequest, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """(H, W) of the request's mask at `size` = (width, height): true where the model draws, false where the picture is
    kept. It grows by `mask_expand` pixels of the request's size."""
    assert request.image_mask is not None
    white = resize(request.image_mask, size).mean(axis=2) >= GREY
    pixels = round(request.mask_expand * size[0] / request.width)
    return expanded(white != ("N" in request.video_prompt_type), pixels) > 0


def with_kept(result: Frame, request: GenerationRequest) -> Frame:
    """The result where the mask draws, and elsewhere the control image itself, bit for bit where it has that size."""
    size = result.shape[1], result.shape[0]
    return np.where(drawn(request, size)[..., None], result, resize(guide_of(request), size))
