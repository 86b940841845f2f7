"""The draft model: no diffusion. Frames that are given stay; those between are drawn by frame interpolation."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from Wan2GP.definitions import ModelDefinition
from Wan2GP.engine.families import Cancel, Place, Report
from Wan2GP.engine.interpolation.between import Blend, OpticalFlow, dissolve_remarks, load_interpolator
from Wan2GP.engine.interpolation.kept_frames import check_kept_frames, kept_frames
from Wan2GP.engine.request import Frame, GenerationRequest
from Wan2GP.errors import InvalidInput, Unsupported


class Draft:
    """Fills the frames between kept ones; before the first and after the last it holds them."""

    reads = frozenset(
        {
            "image_start",
            "image_end",
            "image_refs",
            "video_source",
            "keep_frames_video_source",
            "sliding_window_overlap",
            "svi2pro",
            "video_guide",
            "video_mask",
            "video_prompt_type",
        }
    )

    def __init__(self, definition: ModelDefinition, place: Place, report: Report) -> None:
        """Load RIFE, or fall back on optical flow, with a note, where its weights are missing."""
        self._interrupt = False
        #: (first, last, share of interpolation) of the frames that are not interpolation alone
        self._dissolves: list[tuple[int, int, float]] = []
        report("loading", 0, 1)
        interpolator, self.notes = load_interpolator(place, definition.id)
        self._interpolator = Blend(interpolator)
        report("loading", 1, 1)

    @property
    def remarks(self) -> tuple[str, ...]:
        """Which frames of the latest run are no interpolation, and why."""
        return dissolve_remarks(self._dissolves)

    @staticmethod
    def check(request: GenerationRequest) -> None:
        """Raises InvalidInput when nothing says which frames to keep."""
        if request.image_output:
            raise Unsupported(f"{request.definition.id} makes videos, no stills", field="image_mode")
        given = (request.image_start, request.image_end, request.video_source, request.video_guide)
        if all(media is None for media in given):
            raise Unsupported(
                f"{request.definition.id} cannot draw from text: it fills the frames between given ones. "
                "Give image_start, image_end, or video_guide with video_mask, or a video_source to go on from",
                field="model",
            )
        check_kept_frames(request)

    def generate(self, request: GenerationRequest, report: Report, cancel: Cancel) -> Iterator[Frame]:
        """The frames in order, (H, W, 3) uint8; kept ones exactly as given, those of a `video_source` first.

        Streams: memory does not grow with length.

        Raises InvalidInput when the mask keeps no frame at all.
        """
        self._dissolves = []
        kept = kept_frames(request)
        first = next(kept, None)
        if first is None:
            raise InvalidInput("no frame is black, so there is nothing to keep and start from", field="video_mask")
        return self._counted(self._filled(chain([first], kept), request.total_frames, cancel), request, report, cancel)

    def release(self) -> None:
        """Let go of the network."""
        self._interpolator = Blend(OpticalFlow())

    def _filled(self, kept: Iterator[tuple[int, Frame]], num_frames: int, cancel: Cancel) -> Iterator[Frame]:
        start, frame = next(kept)
        yield from (frame for _ in range(start + 1))
        for stop, following in kept:
            gap = stop - start
            times = [step / gap for step in range(1, gap)]
            yield from self._interpolator.between(frame, following, times, cancel)
            if times and self._interpolator.share < 1:
                self._dissolves.append((start + 1, stop - 1, self._interpolator.share))
            yield following
            start, frame = stop, following
        yield from (frame for _ in range(start + 1, num_frames))

    @staticmethod
    def _counted(
        frames: Iterator[Frame], request: GenerationRequest, report: Report, cancel: Cancel
    ) -> Iterator[Frame]:
        cancel.raise_if_requested()
        for number, frame in enumerate(frames, start=1):
            cancel.raise_if_requested()
            yield frame
            report("decoding", number, request.total_frames)
