"""Frame interpolation as a model: any number of frames between two pictures, or over the length of a video.

Frames that fall on a given one are that one, pixel for pixel. Pictures of different scenes are dissolved into each
other; at a cut of a video nothing is mixed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction

from Wan2GP.definitions import ModelDefinition
from Wan2GP.engine.families import Cancel, Place, Report
from Wan2GP.engine.interpolation.between import (
    Blend,
    Interpolator,
    OpticalFlow,
    Steps,
    dissolve_remarks,
    load_interpolator,
)
from Wan2GP.engine.request import Frame, GenerationRequest
from Wan2GP.errors import InvalidInput, Unsupported
from Wan2GP.media import probe_video, read_frames, resize


class FrameInterpolation:
    """`video_length` frames, evenly spread from the first given one to the last."""

    reads = frozenset({"image_start", "image_end", "video_guide", "video_prompt_type"})

    def __init__(self, definition: ModelDefinition, place: Place, report: Report) -> None:
        """Load RIFE, or fall back on optical flow, with a note, where its weights are missing."""
        self._interrupt = False
        self.remarks: tuple[str, ...] = ()
        report("loading", 0, 1)
        self.interpolator: Interpolator
        self.interpolator, self.notes = load_interpolator(place, definition.id)
        report("loading", 1, 1)

    @staticmethod
    def check(request: GenerationRequest) -> None:
        """Raises InvalidInput unless there are two pictures, or a video, and as many frames as they need."""
        if request.image_output:
            raise Unsupported(f"{request.definition.id} makes videos, no stills", field="image_mode")
        if set(request.video_prompt_type) - {"V"}:
            raise Unsupported(f"{request.definition.id} knows the letter V alone", field="video_prompt_type")
        if request.video_guide is not None:
            _check_video(request)
        else:
            _check_pictures(request)

    def generate(self, request: GenerationRequest, report: Report, cancel: Cancel) -> Iterator[Frame]:
        """The frames in order, (H, W, 3) uint8. Streams: memory does not grow with length."""
        self.remarks = ()
        made = self._of_pictures(request, cancel) if request.video_guide is None else self._of_video(request, cancel)
        for number, frame in enumerate(made, start=1):
            cancel.raise_if_requested()
            yield frame
            report("decoding", number, request.num_frames)

    def release(self) -> None:
        """Let go of the network."""
        self.interpolator = OpticalFlow()

    def _of_pictures(self, request: GenerationRequest, cancel: Cancel) -> Iterator[Frame]:
        assert request.image_start is not None and request.image_end is not None
        cancel.raise_if_requested()
        first, last = (fitted(each, request.size) for each in (request.image_start, request.image_end))
        gap = request.num_frames - 1
        blend = Blend(self.interpolator)
        yield first
        yield from blend.between(first, last, [step / gap for step in range(1, gap)], cancel)
        if gap > 1 and blend.share < 1:
            self.remarks = dissolve_remarks([(1, gap - 1, blend.share)])
        yield last

    def _of_video(self, request: GenerationRequest, cancel: Cancel) -> Iterator[Frame]:
        assert request.video_guide is not None
        cancel.raise_if_requested()
        there = probe_video(request.video_guide).num_frames
        frames = (fitted(frame, request.size) for frame in read_frames(request.video_guide))
        return spread(frames, there, request.num_frames, Steps(self.interpolator), cancel)


def _check_pictures(request: GenerationRequest) -> None:
    for name, given in (("image_start", request.image_start), ("image_end", request.image_end)):
        if given is None:
            raise InvalidInput(
                f"is missing; {request.definition.id} draws the frames between two pictures, or over a video_guide",
                field=name,
            )
    if request.num_frames < 2:
        raise InvalidInput("must be at least 2: both pictures are frames of the result", field="video_length")


def _check_video(request: GenerationRequest) -> None:
    assert request.video_guide is not None
    for name, given in (("image_start", request.image_start), ("image_end", request.image_end)):
        if given is not None:
            raise InvalidInput("give two pictures, or a video_guide, not both", field=name)
    if request.num_frames > 1 and probe_video(request.video_guide).num_frames == 1:
        raise InvalidInput("has one frame, so there is nothing between; ask for 1 frame", field="video_guide")


def fitted(frame: Frame, size: tuple[int, int]) -> Frame:
    """A frame at `size` = (width, height): an odd row or column too many is cut off, anything else is resized."""
    (height, width), (wide, high) = frame.shape[:2], size
    if 0 <= width - wide <= 1 and 0 <= height - high <= 1:
        return frame[:high, :wide]
    return resize(frame, size)


def spread(frames: Iterable[Frame], there: int, wanted: int, steps: Steps, cancel: Cancel) -> Iterator[Frame]:
    """`wanted` frames evenly spread over the `there` frames of a video, the first and the last among them."""
    source = iter(frames)
    before = next(source)
    places = [Fraction(number * (there - 1), max(wanted - 1, 1)) for number in range(wanted)]
    shown = 0
    for pair, after in enumerate(source):
        times = []
        while shown < wanted and places[shown] < pair + 1:
            times.append(places[shown] - pair)
            shown += 1
        if times and times[0] == 0:
            yield before
        yield from steps.between(before, after, [float(time) for time in times if time], cancel)
        before = after
        cancel.raise_if_requested()
    if shown < wanted:
        yield before
