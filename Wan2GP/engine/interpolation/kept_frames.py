"""Which frames of a video are given and must stay, and what they show. No torch here.

They come from a video that is continued, from a start and an end image, and from a control video wherever the frame of
its mask is black. Control videos count from the first frame of the result; with letter T from the first new one.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from Wan2GP.engine.request import Frame, GenerationRequest
from Wan2GP.errors import InvalidInput, Unsupported
from Wan2GP.media import probe_video, read_frames, resize

#: a mask frame whose mean is below this keeps the control frame
_BLACK_BELOW = 128


def check_kept_frames(request: GenerationRequest) -> None:
    """Raises InvalidInput when the request does not say which frames to keep."""
    if request.video_guide is None:
        if request.video_mask is not None:
            raise InvalidInput("a mask needs the video it belongs to; give video_guide too", field="video_mask")
        return
    if "G" in request.video_prompt_type:
        raise Unsupported(
            f"{request.definition.id} uses the control video as it is; it cannot redraw it (letter G)",
            field="video_prompt_type",
        )
    if request.video_mask is None:
        raise Unsupported(
            f"{request.definition.id} needs video_mask beside video_guide: black frames are kept, white ones drawn",
            field="video_guide",
        )
    _check_mask_length(request)


def _check_mask_length(request: GenerationRequest) -> None:
    assert request.video_guide is not None and request.video_mask is not None
    guide = min(probe_video(request.video_guide).num_frames, request.total_frames - request.guide_start)
    mask = probe_video(request.video_mask).num_frames
    if mask < guide:
        raise InvalidInput(f"has {mask} frames; video_guide has {guide} that it must cover", field="video_mask")


def kept_frames(request: GenerationRequest) -> Iterator[tuple[int, Frame]]:
    """(index, RGB frame at the request's size) of every frame to keep, in order; one in memory at a time."""
    last = request.total_frames - 1
    for index, frame in _beginning(request):
        yield index, resize(frame, request.size)
    begun = max(request.kept_source_frames, int(request.image_start is not None))
    for index, frame in _kept_of_guide(request):
        if index >= begun and (index < last or request.image_end is None):
            yield index, resize(frame, request.size)
    if request.image_end is not None:
        yield last, resize(request.image_end, request.size)


def _beginning(request: GenerationRequest) -> Iterator[tuple[int, Frame]]:
    if request.image_start is not None:
        yield 0, request.image_start
    if request.video_source is not None:
        yield from enumerate(read_frames(request.video_source, 0, request.kept_source_frames))


def _kept_of_guide(request: GenerationRequest) -> Iterator[tuple[int, Frame]]:
    if request.video_guide is None or request.video_mask is None:
        return
    inverted = "N" in request.video_prompt_type
    start = request.guide_start
    guide = islice(read_frames(request.video_guide), request.total_frames - start)
    pairs = zip(guide, read_frames(request.video_mask), strict=False)
    for index, (frame, mask_frame) in enumerate(pairs, start=start):
        if (mask_frame.mean() < _BLACK_BELOW) != inverted:
            yield index, frame
