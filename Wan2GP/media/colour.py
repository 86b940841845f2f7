"""Between decoded frames and arrays, with the matrix and range always named.

FFmpeg's default conversion truncates: five round trips darken a picture by 6 of 255 levels. The flags used here round,
and leave the mean unchanged. Everything we write is BT.709, limited range, and says so, but for frames that go between
copied ones of a clip that says otherwise: these follow the clip. A stream that does not say what it is gets BT.601,
which is what FFmpeg itself uses when it encodes RGB without being told.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation
from numpy.typing import NDArray

from Wan2GP.media.images import Frame, resize

#: one yuv420p picture as one array, (H * 3 / 2, W) uint8: the Y plane, then U and V at half size
Planes: TypeAlias = NDArray[np.uint8]

#: (left, top, width, height) of a part of a picture, in pixels; all even
Box: TypeAlias = tuple[int, int, int, int]

BT709 = 1
_BT601 = 5
_LIMITED, _FULL = 1, 2
_NAMED = {1: BT709, 4: 4, 5: _BT601, 6: _BT601, 7: 7, 9: 9}

_EXACT = Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
_BICUBIC = Interpolation.BICUBIC | _EXACT
_AREA = Interpolation.AREA | _EXACT
_LANCZOS = Interpolation.LANCZOS | _EXACT


@dataclass(frozen=True)
class Signalling:
    """What a stream tells a player about its pictures: numbers of ITU-T H.273 (2: unsaid), and the shape of a pixel."""

    matrix: int = BT709
    primaries: int = BT709
    transfer: int = BT709
    full_range: bool = False
    pixel_aspect: Fraction = Fraction(1)


BT709_SIGNALLING = Signalling()


def to_rgb(frame: VideoFrame, rotation: int = 0, box: Box | None = None, size: tuple[int, int] | None = None) -> Frame:
    """A decoded frame as RGB (H, W, 3) uint8, turned upright by `rotation` degrees counter-clockwise.

    `box` is the part of the upright picture to take, `size` the (width, height) to which that is stretched.
    """
    converted = frame.reformat(
        format="rgb24",
        src_colorspace=_matrix(frame),
        dst_colorspace=_matrix(frame),
        src_color_range=_range(frame),
        dst_color_range=_FULL,
        interpolation=_BICUBIC,
    )
    rgb = np.asarray(converted.to_ndarray(), dtype=np.uint8)
    if rotation:
        rgb = np.rot90(rgb, rotation // 90)
    if box is not None:
        left, top, width, height = box
        rgb = rgb[top : top + height, left : left + width]
    rgb = np.ascontiguousarray(rgb)
    return rgb if size is None else resize(rgb, size)


def to_planes(
    frame: VideoFrame,
    size: tuple[int, int],
    rotation: int = 0,
    box: Box | None = None,
    signalling: Signalling = BT709_SIGNALLING,
) -> Planes:
    """A decoded frame as yuv420p, limited range, at `size` = (width, height); untouched when it is that already.

    `box` is the part of the upright picture to take; the matrix is that of `signalling`.
    """
    if rotation:
        frame = _rgb_frame(to_rgb(frame, rotation))
    if box is not None and box != (0, 0, frame.width, frame.height):
        frame = _cropped(frame, box)
    matrix = _NAMED.get(signalling.matrix, _BT601)
    if not _is_plain(frame, size, matrix):
        frame = _to_yuv(frame, size, matrix)
    return np.asarray(frame.to_ndarray(), dtype=np.uint8)


def from_rgb(frame: Frame, signalling: Signalling = BT709_SIGNALLING) -> VideoFrame:
    """RGB (H, W, 3) uint8 as a yuv420p frame, limited range, by the matrix of `signalling`."""
    height, width = frame.shape[:2]
    return _to_yuv(_rgb_frame(frame), (width, height), _NAMED.get(signalling.matrix, _BT601))


def from_rgb_lossless(frame: Frame) -> VideoFrame:
    """RGB (H, W, 3) uint8 as a bgr0 frame: the same values in another order."""
    return _rgb_frame(frame).reformat(format="bgr0")


def from_planes(planes: Planes) -> VideoFrame:
    """yuv420p planes as a frame to encode."""
    return VideoFrame.from_ndarray(np.ascontiguousarray(planes), format="yuv420p")


def _rgb_frame(frame: Frame) -> VideoFrame:
    return VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")


def _cropped(frame: VideoFrame, box: Box) -> VideoFrame:
    left, top, width, height = box
    if frame.format.name != "yuv420p" or frame.width % 2 or frame.height % 2:
        return _rgb_frame(to_rgb(frame, box=box))
    planes = frame.to_ndarray()
    luma = planes[: frame.height][top : top + height, left : left + width]
    chroma = planes[frame.height :].reshape(2, frame.height // 2, frame.width // 2)
    chroma = chroma[:, top // 2 : (top + height) // 2, left // 2 : (left + width) // 2]
    part = from_planes(np.concatenate([luma, chroma.reshape(height // 2, width)]))
    part.colorspace, part.color_range = frame.colorspace, frame.color_range
    return part


def _to_yuv(frame: VideoFrame, size: tuple[int, int], matrix: int) -> VideoFrame:
    width, height = size
    return frame.reformat(
        width=width,
        height=height,
        format="yuv420p",
        src_colorspace=matrix if frame.format.is_rgb else _matrix(frame),
        dst_colorspace=matrix,
        src_color_range=_range(frame),
        dst_color_range=_LIMITED,
        interpolation=_scaling(frame, size),
    )


def _scaling(frame: VideoFrame, size: tuple[int, int]) -> Interpolation:
    width, height = size
    if (frame.width, frame.height) == size:
        return _BICUBIC
    return _AREA if width <= frame.width and height <= frame.height else _LANCZOS


def _is_plain(frame: VideoFrame, size: tuple[int, int], matrix: int) -> bool:
    return (
        frame.format.name == "yuv420p"
        and (frame.width, frame.height) == size
        and _matrix(frame) == matrix
        and frame.color_range != _FULL
    )


def _matrix(frame: VideoFrame) -> int:
    return _NAMED.get(int(frame.colorspace), _BT601)


def _range(frame: VideoFrame) -> int:
    return _FULL if frame.format.is_rgb or frame.color_range == _FULL else _LIMITED
