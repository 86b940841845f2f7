"""Between decoded frames and arrays, with the matrix and range always named.

FFmpeg's default conversion truncates: five round trips darken a picture by 6 of 255 levels. The flags used here round,
and leave the mean unchanged. Everything we write is BT.709, limited range, and says so; a stream that does not say what
it is gets BT.601, which is what FFmpeg itself uses when it encodes RGB without being told.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation
from numpy.typing import NDArray

from Wan2GP.media.images import Frame

#: one yuv420p picture as one array, (H * 3 / 2, W) uint8: the Y plane, then U and V at half size
Planes: TypeAlias = NDArray[np.uint8]

BT709 = 1
_BT601 = 5
_LIMITED, _FULL = 1, 2
_NAMED = {1: BT709, 4: 4, 5: _BT601, 6: _BT601, 7: 7, 9: 9}

_EXACT = Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
_BICUBIC = Interpolation.BICUBIC | _EXACT
_AREA = Interpolation.AREA | _EXACT
_LANCZOS = Interpolation.LANCZOS | _EXACT


def to_rgb(frame: VideoFrame, rotation: int = 0) -> Frame:
    """A decoded frame as RGB (H, W, 3) uint8, turned upright by `rotation` degrees counter-clockwise."""
    converted = frame.reformat(
        format="rgb24",
        src_colorspace=_matrix(frame),
        dst_colorspace=_matrix(frame),
        src_color_range=_range(frame),
        dst_color_range=_FULL,
        interpolation=_BICUBIC,
    )
    rgb = np.asarray(converted.to_ndarray(), dtype=np.uint8)
    return np.ascontiguousarray(np.rot90(rgb, rotation // 90)) if rotation else rgb


def to_planes(frame: VideoFrame, size: tuple[int, int], rotation: int = 0) -> Planes:
    """A decoded frame as yuv420p, BT.709 limited, at `size` = (width, height); untouched when it is that already."""
    if rotation:
        frame = _rgb_frame(to_rgb(frame, rotation))
    if not _is_plain(frame, size):
        frame = _to_yuv(frame, size)
    return np.asarray(frame.to_ndarray(), dtype=np.uint8)


def from_rgb(frame: Frame) -> VideoFrame:
    """RGB (H, W, 3) uint8 as a yuv420p frame, BT.709 limited."""
    height, width = frame.shape[:2]
    return _to_yuv(_rgb_frame(frame), (width, height))


def from_rgb_lossless(frame: Frame) -> VideoFrame:
    """RGB (H, W, 3) uint8 as a bgr0 frame: the same values in another order."""
    return _rgb_frame(frame).reformat(format="bgr0")


def from_planes(planes: Planes) -> VideoFrame:
    """yuv420p planes as a frame to encode."""
    return VideoFrame.from_ndarray(np.ascontiguousarray(planes), format="yuv420p")


def _rgb_frame(frame: Frame) -> VideoFrame:
    return VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")


def _to_yuv(frame: VideoFrame, size: tuple[int, int]) -> VideoFrame:
    width, height = size
    return frame.reformat(
        width=width,
        height=height,
        format="yuv420p",
        src_colorspace=BT709 if frame.format.is_rgb else _matrix(frame),
        dst_colorspace=BT709,
        src_color_range=_range(frame),
        dst_color_range=_LIMITED,
        interpolation=_scaling(frame, size),
    )


def _scaling(frame: VideoFrame, size: tuple[int, int]) -> Interpolation:
    width, height = size
    if (frame.width, frame.height) == size:
        return _BICUBIC
    return _AREA if width <= frame.width and height <= frame.height else _LANCZOS


def _is_plain(frame: VideoFrame, size: tuple[int, int]) -> bool:
    return (
        frame.format.name == "yuv420p"
        and (frame.width, frame.height) == size
        and frame.colorspace == BT709
        and frame.color_range != _FULL
    )


def _matrix(frame: VideoFrame) -> int:
    return _NAMED.get(int(frame.colorspace), _BT601)


def _range(frame: VideoFrame) -> int:
    return _FULL if frame.format.is_rgb or frame.color_range == _FULL else _LIMITED
