"""What is done to a generated clip before it is delivered, all of it in one pass: each frame is decoded once, changed,
and encoded once.

The order is: trim, size, saturation, brightness, colour match, banner. Saturation and brightness are one linear map of
R, G and B:

    saturation s    U and V times s around 128: s * pixel + (1 - s) * luma (BT.709)
    brightness b    every pixel times 1 + b, clipped: positive is brighter

In yuv420p that map scales Y - 16 by 1 + b and U - 128, V - 128 by s (1 + b): a table for each plane. So it is done
wherever that is exact. Where it is not, the frames are RGB until they are encoded: when brightening, since what gets
too bright must be clipped in R, G and B each; and for a colour match.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np

from source.errors import EngineError, InvalidInput
from source.media.banner import banner, stacked
from source.media.colour_match import ColourMatch
from source.media.splice import Watch
from Wan2GP.media import (
    Frame,
    Planes,
    VideoIndex,
    VideoInfo,
    VideoWriter,
    index_video,
    probe_video,
    read_frames,
    read_planes,
    resize,
)
from Wan2GP.media.colour import from_rgb

#: a start and an end picture; either may be missing
Pictures: TypeAlias = tuple[Path | None, Path | None]

#: a smaller change of brightness is none
_LEAST_BRIGHTNESS = 1e-6
#: shares of R, G and B in the luma of BT.709
_LUMA = np.array([0.2126, 0.7152, 0.0722])


@dataclass(frozen=True)
class Finishing:
    """What is done to a clip. The defaults change nothing.

    start, stop     the frames start..stop-1 are kept (None: to the end)
    saturation      0 grey, 1 as it is, above 1 more colourful
    brightness      every pixel times 1 + brightness: -1 black … 0 as it is, positive is brighter
    colour_match    start and end picture whose colours the clip takes on
    banner          start and end picture shown side by side on top; the video gets taller by that
    keyframes       frames of the result that begin a GOP, so that a later join may copy up to them
    size            (width, height) of the pictures without the banner, floored to even (None: the clip's own)
    """

    start: int = 0
    stop: int | None = None
    saturation: float = 1.0
    brightness: float = 0.0
    colour_match: Pictures | None = None
    banner: Pictures | None = None
    keyframes: frozenset[int] = frozenset()
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.saturation < np.inf:
            raise InvalidInput(f"the saturation must be 0 or more, not {self.saturation}")
        if not -1 <= self.brightness < np.inf:
            raise InvalidInput(f"the brightness must be -1 or more, not {self.brightness}")

    @property
    def changes_tone(self) -> bool:
        return self.saturation != 1 or abs(self.brightness) > _LEAST_BRIGHTNESS

    @property
    def matches(self) -> bool:
        return any(self.colour_match or ())

    @property
    def shows_banner(self) -> bool:
        return any(self.banner or ())

    @property
    def needs_rgb(self) -> bool:
        """Whether yuv420p is not exact enough."""
        return self.matches or self.brightness > _LEAST_BRIGHTNESS

    @cached_property
    def _tables(self) -> tuple[Frame, Frame]:
        """The tables of Y and of U and V, (256,) uint8 each."""
        gain, levels = 1 + self.brightness, np.arange(256.0)
        tables = (levels - 16) * gain + 16, (levels - 128) * gain * self.saturation + 128
        luma, chroma = (np.rint(table).clip(0, 255).astype(np.uint8) for table in tables)
        return luma, chroma

    @cached_property
    def _matrix(self) -> np.ndarray:
        """(3, 3), from RGB to RGB."""
        mixed = self.saturation * np.eye(3) + (1 - self.saturation) * _LUMA
        return (1 + self.brightness) * mixed

    def toned_planes(self, planes: Planes) -> Planes:
        """Saturation and brightness of a yuv420p frame (H * 3 / 2, W) uint8."""
        if not self.changes_tone:
            return planes
        height = planes.shape[0] * 2 // 3
        luma, chroma = self._tables
        return np.concatenate([cv2.LUT(planes[:height], luma), cv2.LUT(planes[height:], chroma)])

    def toned_rgb(self, frame: Frame) -> Frame:
        """Saturation and brightness of an RGB frame (H, W, 3) uint8."""
        if not self.changes_tone:
            return frame
        return np.asarray(cv2.transform(frame, self._matrix), np.uint8)


def finish(
    source: Path,
    output: Path,
    finishing: Finishing,
    *,
    fps: Fraction | float | None = None,
    progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> VideoInfo:
    """Write the clip `source`, finished, as the mp4 `output`, without sound; frame for frame at `fps` (None: its own).

    A few frames are in memory, whatever the length. `progress(done, total)` counts frames; `cancelled()` is asked at
    each. Raises InvalidInput for frames that the clip does not have, InvalidMedia for a clip or picture that cannot
    be read, GenerationCancelled when asked to stop.
    """
    clip = index_video(source)
    finishing = _checked(finishing, clip)
    assert finishing.stop is not None and finishing.size is not None
    width, height = finishing.size
    above = _planes(banner(*finishing.banner, finishing.size)) if finishing.banner and finishing.shows_banner else None
    taller = (width, height + (above.shape[0] * 2 // 3 if above is not None else 0))
    watch = Watch(finishing.stop - finishing.start, progress, cancelled)
    with VideoWriter(output, fps=fps or clip.info.fps, size=taller, keyframes=finishing.keyframes) as writer:
        for planes in _pictures(clip, finishing):
            writer.write_planes(planes if above is None else stacked(above, planes))
            watch.step()
    made = probe_video(output)
    if made.num_frames != watch.total:
        raise EngineError(f"{output} holds {made.num_frames} frames instead of {watch.total}")
    return made


def _checked(finishing: Finishing, clip: VideoIndex) -> Finishing:
    """With its stop and size filled in."""
    info = clip.info
    stop = info.num_frames if finishing.stop is None else finishing.stop
    if not 0 <= finishing.start < stop <= info.num_frames:
        raise InvalidInput(
            f"cannot keep the frames {finishing.start} to {stop} of {info.path}: it has {info.num_frames} frames"
        )
    width, height = finishing.size or (info.width, info.height)
    return replace(finishing, stop=stop, size=(width // 2 * 2, height // 2 * 2))


def _pictures(clip: VideoIndex, finishing: Finishing) -> Iterator[Planes]:
    """The kept frames, finished but for the banner."""
    start, stop, size = finishing.start, finishing.stop, finishing.size
    assert stop is not None and size is not None
    if not finishing.needs_rgb:
        yield from map(finishing.toned_planes, read_planes(clip, start, stop, size))
        return
    match = ColourMatch(*(finishing.colour_match or (None, None)), num_frames=stop - start, size=size)
    for position, frame in enumerate(read_frames(clip.info.path, start, stop)):
        yield _planes(match.frame(finishing.toned_rgb(resize(frame, size)), position))


def _planes(frame: Frame) -> Planes:
    return np.asarray(from_rgb(frame).to_ndarray(), np.uint8)
