"""Which frames of a window LTX-Video is given, and how its pipeline takes them. No torch here.

A picture may stand at any frame. A run of pictures is cheaper, and holds motion, as a video: that must have 8 k + 1
frames, and begin at the first frame or at a multiple of 8, where the latent frames begin.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from Wan2GP.engine.ahead import Ahead
from Wan2GP.engine.control.media import GREY, PROCESSING, check_control, positioned
from Wan2GP.engine.request import Frame, GenerationRequest
from Wan2GP.engine.wan.media import spans_of
from Wan2GP.engine.wan.window import Frames
from Wan2GP.errors import InvalidInput, Unsupported
from Wan2GP.media import probe_video, read_frames, resize

if TYPE_CHECKING:
    from Wan2GP.engine.stock.video import Part

#: frames of a latent frame after the first, which is one frame alone
_STEP = 8


@dataclass(frozen=True)
class Given:
    """Pictures that the video is drawn to show."""

    #: the window's frame where the first of them stands
    index: int
    #: (1 or 8 k + 1, H, W, 3) uint8
    frames: Frames


def given_of(part: Part) -> tuple[Given, ...]:
    """What one window is given: the frames before it, start and end image, positioned images, control frames."""
    return tuple(_grouped(pictures_of(part)))


def pictures_of(part: Part) -> dict[int, Frame]:
    """Frame of the window -> the picture there, at the request's size. What was made before wins over what is given."""
    request, span = part.request, part.span
    start = span.start - request.guide_start
    last = span.overlap + span.new - 1
    pictures = _of_guide(request, start, span.frames)
    pictures |= {
        place - start: image for place, image in positioned(request).items() if 0 <= place - start < span.frames
    }
    if (end := _end_of(part)) is not None:
        pictures[last] = end
    if part.index == 0 and request.image_start is not None:
        pictures[0] = resize(request.image_start, request.size)
    return pictures | dict(enumerate(part.prefix))


def read_guide_ahead(request: GenerationRequest, ahead: Ahead) -> None:
    """Put the control frames that the first window shows into `ahead`."""
    first = spans_of(request)[0]
    start, frames = first.start - request.guide_start, first.frames
    if request.video_guide is not None:
        num_bytes = request.width * request.height * 3 * frames
        ahead.keep(_key(start, frames), num_bytes, lambda: _of_guide(request, start, frames))


def _key(start: int, frames: int) -> Hashable:
    return ("shown frames", start, frames)


def check_pictures(request: GenerationRequest) -> None:
    """Raises InvalidInput or Unsupported for media that the pipeline cannot take as they are meant."""
    processing = [PROCESSING[letter] for letter in request.video_prompt_type if letter in PROCESSING]
    if processing and request.video_guide is not None:
        raise Unsupported(
            f"{request.definition.id} is given frames to show; to follow {' and '.join(processing)} it would need a "
            "control LoRA with tokens of its own, which the pipeline does not have. Leave the letter out",
            field="video_prompt_type",
        )
    check_control(request)
    positioned(request)
    if len(request.references) > len(request.positions):
        raise Unsupported(
            "stand at frames of the video: give letter F in video_prompt_type and one of frames_positions for each",
            field="image_refs",
        )
    if request.video_mask is not None:
        for index, frame in enumerate(read_frames(request.video_mask)):
            _keeps(frame, index, inverted=False)
    if _shows_all_of_guide(request):
        raise InvalidInput(
            "the result would be this video again: say with video_mask or keep_frames_video_guide which frames stay, "
            "redraw it by letter G and denoising_strength, or give input_video_strength below 1",
            field="video_guide",
        )


def _end_of(part: Part) -> Frame | None:
    """One end image belongs to the last window; of several each window has its own."""
    ends = part.request.image_ends
    if not ends or (len(ends) == 1 and part.index < part.count - 1):
        return None
    return resize(ends[min(part.index, len(ends) - 1)], part.request.size)


def _of_guide(request: GenerationRequest, start: int, frames: int) -> dict[int, Frame]:
    """The control frames that stay: those whose mask is black; without a mask all, or none where it is redrawn."""
    ahead = request.ahead.take(_key(start, frames)) if request.ahead is not None else None
    if ahead is not None:
        found: dict[int, Frame] = ahead
        return found
    guide = request.video_guide
    if guide is None or (request.video_mask is None and "G" in request.video_prompt_type):
        return {}
    first, stop = max(start, 0), min(start + frames, probe_video(guide).num_frames)
    if first >= stop:
        return {}
    kept = _kept(request, first, stop)
    shown = enumerate(read_frames(guide, first, stop), start=first)
    return {number - start: resize(frame, request.size) for number, frame in shown if number in kept}


def _kept(request: GenerationRequest, first: int, stop: int) -> frozenset[int]:
    """Numbers of the control frames from `first` to `stop` that stay."""
    listed = range(first, stop) if request.guide_frames is None else request.guide_frames
    if request.video_mask is None:
        return frozenset(listed)
    inverted = "N" in request.video_prompt_type
    masks = enumerate(read_frames(request.video_mask, first, stop), start=first)
    return frozenset(number for number, mask in masks if number in listed and _keeps(mask, number, inverted=inverted))


def _keeps(mask: Frame, number: int, *, inverted: bool) -> bool:
    """Whether a mask frame is black (white when inverted). Raises Unsupported for one that is both."""
    white = mask.mean(axis=2) >= GREY
    if white.any() and not white.all():
        raise Unsupported(
            f"frame {number + 1} is black and white: LTX-Video keeps whole frames or none; make each frame one of both",
            field="video_mask",
        )
    return bool(white.all()) == inverted


def _shows_all_of_guide(request: GenerationRequest) -> bool:
    if request.video_guide is None or request.video_mask is not None or request.guide_frames is not None:
        return False
    covers = probe_video(request.video_guide).num_frames >= request.total_frames - request.guide_start
    return covers and "G" not in request.video_prompt_type and float(request.settings["input_video_strength"]) == 1


def _grouped(pictures: Mapping[int, Frame]) -> Iterator[Given]:
    """Runs of neighbouring pictures, in the lengths and at the places that the pipeline takes."""
    for _, run in groupby(enumerate(sorted(pictures)), key=lambda pair: pair[1] - pair[0]):
        places = [place for _, place in run]
        while places:
            count = _length(places[0], len(places))
            yield Given(places[0], np.stack([pictures[place] for place in places[:count]]))
            places = places[count:]


def _length(place: int, left: int) -> int:
    """How many of the pictures from a place on go together: those of whole latent frames, else one."""
    whole = (left - 1) // _STEP * _STEP + 1
    return whole if place % _STEP == 0 and whole > 1 else 1
