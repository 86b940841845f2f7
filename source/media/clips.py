"""Clips as views: the frames of a file at another rate, crop and size, read when they are asked for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import repeat
from pathlib import Path
from typing import TypeAlias, TypeVar

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from source.errors import InvalidInput, InvalidMedia
from source.media.soundtrack import SoundPiece
from Wan2GP.media import (
    BT709_SIGNALLING,
    Box,
    Frame,
    Planes,
    Signalling,
    VideoIndex,
    decode,
    exact_fps,
    index_video,
    to_planes,
    to_rgb,
)

Size: TypeAlias = tuple[int, int]
Made = TypeVar("Made")

#: a rate this near to the file's own keeps its frames one for one, frames per second
FPS_TOLERANCE = 0.5

#: shapes this near to each other are not cropped, width / height
ASPECT_TOLERANCE = 0.01


@dataclass(frozen=True)
class Clip:
    """A video file seen at `fps`, cropped to `aspect` and resized to `size`; nothing is written, nothing is kept.

    index     the file
    fps       frames per second of the view
    size      (width, height) in pixels, both even
    aspect    width / height of the centred crop that comes before resizing; None crops nothing
    by_time   frame k is the file's frame nearest to k / fps seconds; otherwise it is the file's frame k
    """

    index: VideoIndex
    fps: Fraction
    size: Size
    aspect: Fraction | None = None
    by_time: bool = False

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        fps: Fraction | float | None = None,
        size: Size | None = None,
        aspect: Fraction | None = None,
        fps_tolerance: float = FPS_TOLERANCE,
    ) -> Clip:
        """View a file; what is None is the file's own, its size after the crop.

        A rate within `fps_tolerance` of the file's own keeps the frames one for one, unless the file's frames are not
        evenly spaced; `math.inf` keeps them always. Odd sides lose one row or column of pixels.

        Raises InvalidMedia for a bad file, InvalidInput for a rate, shape or size that cannot be.
        """
        index = index_video(path)
        rate = index.info.fps if fps is None else exact_fps(fps)
        by_time = fps is not None and math.isfinite(fps_tolerance) and _needs_time(index, rate, fps_tolerance)
        box = _crop(index, aspect)
        if size is not None and (min(size) < 2 or size[0] % 2 or size[1] % 2):
            raise InvalidInput(f"a clip cannot be shown at {size[0]}x{size[1]}: both sides must be even and at least 2")
        return cls(index, rate, size or box[2:], aspect, by_time)

    @property
    def path(self) -> Path:
        return self.index.info.path

    @cached_property
    def num_frames(self) -> int:
        """Frames of the view: those of the file, or as many as fit into its duration, rounded, at least one."""
        own = self.index.info.num_frames
        if not self.by_time:
            return own
        return max(1, math.floor(own / self.index.info.fps * self.fps + Fraction(1, 2)))

    @property
    def has_audio(self) -> bool:
        return self.index.info.has_audio

    @property
    def is_plain(self) -> bool:
        """Whether frame k is the file's frame k, pixel for pixel, so that its GOPs may be copied."""
        whole = (0, 0, *self.index.encoding.size)
        plain = self.box == whole and self.size == whole[2:]
        return plain and not self.by_time and self.index.encoding.rotation == 0

    @cached_property
    def box(self) -> Box:
        """(left, top, width, height) of what is shown of the upright picture; all even."""
        return _crop(self.index, self.aspect)

    def source_frame(self, frame: int) -> int:
        """The frame of the file that frame `frame` of the view shows. Raises InvalidInput outside the view."""
        self._check(frame, frame + 1)
        return int(self._sources(frame, frame + 1)[0])

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[Frame]:
        """Frames start..stop-1 of the view (None: to the end), RGB (H, W, 3) uint8, decoded as they are asked for."""
        stop = self.num_frames if stop is None else stop
        rotation, box, size = self.index.encoding.rotation, self.box, self.size
        return self._repeated(start, stop, (to_rgb(frame, rotation, box, size) for frame in self._decoded(start, stop)))

    def planes(self, start: int, stop: int, signalling: Signalling = BT709_SIGNALLING) -> Iterator[Planes]:
        """Frames start..stop-1 of the view as yuv420p planes; untouched where the file holds just those."""
        rotation, box, size = self.index.encoding.rotation, self.box, self.size
        made = (to_planes(frame, size, rotation, box, signalling) for frame in self._decoded(start, stop))
        return self._repeated(start, stop, made)

    def sound(
        self, start: int, stop: int, at_s: Fraction | float, *, fade_in_s: float = 0, fade_out_s: float = 0
    ) -> SoundPiece | None:
        """The sound of the frames start..stop-1 laid at `at_s` seconds, in step with them; None for a silent file.

        Frames kept one for one at another rate are shown faster or slower than they were taken, and so is their sound.
        """
        if not self.has_audio:
            return None
        self._check(start, stop)
        own = self.fps if self.by_time else self.index.info.fps
        span = float(start / own), float(stop / own)
        return SoundPiece(self.path, *span, float(at_s), fade_in_s, fade_out_s, speed=self.fps / own)

    def _check(self, start: int, stop: int) -> None:
        if not 0 <= start <= stop <= self.num_frames:
            raise InvalidInput(f"frames {start} to {stop} do not exist in {self.path}: it has {self.num_frames} frames")

    def _sources(self, start: int, stop: int) -> NDArray[np.int64]:
        """The frame of the file for each frame start..stop-1 of the view; never falling."""
        wanted = np.arange(start, stop, dtype=np.int64)
        if not self.by_time:
            return wanted
        stamps, step = _stamps(self.index, self.fps)
        # In whole numbers, so that a tie always goes to the earlier frame: k * step against halfway between stamps.
        halfway = (stamps[:-1] + stamps[1:]) * step.denominator
        return np.searchsorted(halfway, wanted * (2 * step.numerator), side="left")

    def _decoded(self, start: int, stop: int) -> Iterator[VideoFrame]:
        """Each frame of the file that the frames start..stop-1 show, once."""
        self._check(start, stop)
        if start == stop:
            return iter(())
        sources = self._sources(start, stop)
        first, shown = int(sources[0]), set(sources.tolist())
        decoded = decode(self.index, first, int(sources[-1]) + 1)
        return (frame for number, frame in enumerate(decoded, first) if number in shown)

    def _repeated(self, start: int, stop: int, made: Iterator[Made]) -> Iterator[Made]:
        """One picture for each frame start..stop-1, given each picture of the file once."""
        if not self.by_time:
            return made
        _, counts = np.unique(self._sources(start, stop), return_counts=True)
        return (picture for picture, count in zip(made, counts, strict=True) for picture in repeat(picture, count))


def _needs_time(index: VideoIndex, fps: Fraction, tolerance: float) -> bool:
    """Whether frames must be picked by time: another rate, or frames further than half a frame from their place."""
    own = index.info.fps
    if abs(own - fps) > tolerance:
        return True
    if not index.seekable:
        return False
    seconds = (index.pts - index.pts[0]) * float(index.encoding.time_base)
    return bool(np.any(np.abs(seconds * float(own) - np.arange(len(seconds))) > 0.5))


def _stamps(index: VideoIndex, fps: Fraction) -> tuple[NDArray[np.int64], Fraction]:
    """When each frame of the file is shown, from 0, and how far apart frames of the view are, in one unit."""
    if index.seekable:
        return index.pts - index.pts[0], 1 / (fps * index.encoding.time_base)
    return np.arange(index.info.num_frames, dtype=np.int64), index.info.fps / fps


def _crop(index: VideoIndex, aspect: Fraction | None) -> Box:
    """The centred box of shape `aspect` in the upright picture: as large as it can be, with even sides and corner."""
    width, height = index.info.width, index.info.height
    if aspect is not None and aspect <= 0:
        raise InvalidInput(f"a picture cannot have the shape {aspect}; give width / height, such as 16/9")
    wide, high = width, height
    if aspect is not None and abs(Fraction(width, height) - aspect) >= ASPECT_TOLERANCE:
        wide, high = min(width, round(height * aspect)), min(height, round(width / aspect))
    wide, high = wide // 2 * 2, high // 2 * 2
    if not wide or not high:
        if aspect is None:
            raise InvalidMedia(f"{index.info.path} is {width}x{height}; both sides must be at least 2 pixels")
        raise InvalidInput(
            f"{index.info.path} is {width}x{height}: nothing is left of it at the shape {aspect}", field="aspect_ratio"
        )
    return (width - wide) // 4 * 2, (height - high) // 4 * 2, wide, high
