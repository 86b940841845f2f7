"""Models that draw a control picture for each frame of a control video, or for a control image. No torch here.

Frame k of the result follows from frame k of the control video (of motion: from the frame before it too). They stream:
memory does not grow with length. Canny, scribble and flow need no weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from Wan2GP.definitions import ModelDefinition
from Wan2GP.drawing.edges import edge_picture, scribble_picture
from Wan2GP.drawing.motion import flow_picture, motion
from Wan2GP.engine.families import Cancel, Place, Report
from Wan2GP.engine.request import Frame, GenerationRequest
from Wan2GP.errors import InvalidInput, Unsupported
from Wan2GP.media import probe_video, read_frames, resize

#: what a model that draws control pictures reads of a call
READS = frozenset({"video_guide", "image_guide", "video_prompt_type"})


class ControlModel:
    """Base of these models. Subclasses say how one frame is drawn (`picture`), or a run of them (`pictures`)."""

    reads = READS
    notes: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    def __init__(self, definition: ModelDefinition, place: Place, report: Report) -> None:
        """Nothing to load."""
        self._interrupt = False

    @classmethod
    def check(cls, request: GenerationRequest) -> None:
        """Raises InvalidInput without a control image, or without a control video as long as the result; and for
        letters that ask for more than that."""
        if unknown := sorted(set(request.video_prompt_type) - set(request.definition.architecture.control)):
            raise Unsupported(
                f"{request.definition.id} has no use for {''.join(unknown)!r}; it knows the letters "
                f"{request.definition.architecture.control} alone",
                field="video_prompt_type",
            )
        if request.image_output:
            _check_image(request)
        else:
            _check_video(request)

    def generate(self, request: GenerationRequest, report: Report, cancel: Cancel) -> Iterator[Frame]:
        """The pictures in order, (H, W, 3) uint8, of the size that was asked for."""
        total = 1 if request.image_output else request.num_frames
        drawn = self.pictures(_watched(given_frames(request), cancel), request.size)
        for number, picture in enumerate(islice(drawn, total), start=1):
            cancel.raise_if_requested()
            yield picture
            report("decoding", number, total)

    def pictures(self, frames: Iterator[Frame], size: tuple[int, int]) -> Iterator[Frame]:
        """A control picture at `size` = (width, height) for each of the frames, taken one by one."""
        return (self.picture(frame, size) for frame in frames)

    def picture(self, frame: Frame, size: tuple[int, int]) -> Frame:
        """The control picture of one frame of any size."""
        raise NotImplementedError

    def release(self) -> None:
        """Nothing to give back."""


class Canny(ControlModel):
    """White edges on black."""

    def picture(self, frame: Frame, size: tuple[int, int]) -> Frame:
        """Edges of the frame at that size."""
        return edge_picture(resize(frame, size))


class Scribble(ControlModel):
    """Broad white outlines on black."""

    def picture(self, frame: Frame, size: tuple[int, int]) -> Frame:
        """Outlines of the frame at that size."""
        return scribble_picture(resize(frame, size))


class Flow(ControlModel):
    """Motion on the colour wheel: picture k shows how frame k came from frame k - 1; picture 0 repeats picture 1."""

    @classmethod
    def check(cls, request: GenerationRequest) -> None:
        """Raises Unsupported for a still, which has no motion."""
        if request.image_output:
            raise Unsupported(f"{request.definition.id} draws motion, and one image has none", field="image_mode")
        super().check(request)

    def pictures(self, frames: Iterator[Frame], size: tuple[int, int]) -> Iterator[Frame]:
        """One for each frame; one frame alone does not move."""
        before = resize(next(frames), size)
        first = True
        for frame in frames:
            after = resize(frame, size)
            picture = flow_picture(motion(before, after))
            if first:
                yield picture
            yield picture
            before, first = after, False
        if first:
            yield flow_picture(motion(before, before))


def given_frames(request: GenerationRequest) -> Iterator[Frame]:
    """The control image, or the frames of the control video that the result has, at their own size."""
    if request.image_guide is not None:
        return iter([request.image_guide])
    assert request.video_guide is not None, "checked"
    return read_frames(request.video_guide, 0, request.num_frames)


def _watched(frames: Iterable[Frame], cancel: Cancel) -> Iterator[Frame]:
    """The frames, before each a look whether the run shall stop."""
    cancel.raise_if_requested()
    for frame in frames:
        cancel.raise_if_requested()
        yield frame


def _check_image(request: GenerationRequest) -> None:
    if request.video_guide is not None:
        raise InvalidInput("is a video, and a still is asked for; give image_guide", field="video_guide")
    if request.image_guide is None:
        raise InvalidInput("is missing; give the image that shall be drawn as control picture", field="image_guide")
    if request.batch_size > 1:
        raise Unsupported("one image gives one control picture; leave it at 1", field="batch_size")


def _check_video(request: GenerationRequest) -> None:
    if request.image_guide is not None:
        raise InvalidInput("is an image, and a video is asked for; set image_mode to 1", field="image_guide")
    if request.video_guide is None:
        raise InvalidInput("is missing; give the video that shall be drawn as control video", field="video_guide")
    there = probe_video(request.video_guide).num_frames
    if there < request.num_frames:
        raise InvalidInput(
            f"{request.num_frames} frames are asked for and video_guide has {there}; ask for {there} at most",
            field="video_length",
        )
