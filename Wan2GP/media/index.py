"""Where every frame of a video file lies: exact counts, exact positions, and the places where decoding may begin."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from av.container import InputContainer
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream
from numpy.typing import NDArray

from Wan2GP.errors import InvalidMedia
from Wan2GP.media.colour import Signalling
from Wan2GP.media.containers import decoded_frames, ends_early, open_video

#: containers whose own index leads to the very keyframe that was asked for
_EXACT_SEEK = ("mov", "matroska")


@dataclass(frozen=True)
class VideoInfo:
    """What a video is. Width and height are in pixels as shown (after rotation); fps is the mean frame rate."""

    path: Path
    width: int
    height: int
    fps: Fraction
    num_frames: int
    duration_s: float
    codec: str
    pix_fmt: str
    has_audio: bool


@dataclass(frozen=True)
class Encoding:
    """What two streams must share for their packets to follow one another in one file."""

    codec: str
    parameter_sets: bytes
    size: tuple[int, int]
    pix_fmt: str
    fps: Fraction
    time_base: Fraction
    rotation: int
    signalling: Signalling
    #: whether packets carry parameter sets of their own (sample entry "avc3"), which may differ along the file
    in_band: bool = False

    @property
    def has_parameter_sets(self) -> bool:
        """Whether this is H.264 as mp4 holds it: parameter sets beside the packets, NAL units led by 4-byte lengths."""
        sets = self.parameter_sets
        return self.codec == "h264" and len(sets) > 6 and sets[0] == 1 and sets[4] & 3 == 3


@dataclass(frozen=True, eq=False)
class VideoIndex:
    """The frames of one video file, in the order in which they are shown.

    pts            time stamp of each frame, rising, in units of `encoding.time_base`; empty when the file has no
                   usable ones: then `seekable` is false and it can only be read from its beginning
    decode_order   the frame that each packet holds, in the order of the file
    entry_points   frames at which decoding may begin: keyframes that no frame refers across (closed GOPs)
    """

    info: VideoInfo
    encoding: Encoding
    pts: NDArray[np.int64]
    decode_order: NDArray[np.int64]
    entry_points: tuple[int, ...]

    @property
    def seekable(self) -> bool:
        return len(self.pts) > 0

    def entry_before(self, frame_index: int) -> int:
        """The last entry point at or before `frame_index`."""
        return self.entry_points[bisect_right(self.entry_points, frame_index) - 1]

    def is_boundary(self, frame_index: int) -> bool:
        """Whether the packets may be parted just before `frame_index`; the end of the file is a boundary too."""
        return frame_index == self.info.num_frames or frame_index in self.entry_points

    def last_close(self, start: int, stop: int) -> int:
        """The last frame c <= `stop` such that the packets of start..c-1 need none after them; at least `start`.

        Those packets are the first of the file's from the entry point `start`, so a copy may end there, inside a GOP.
        """
        furthest = np.maximum.accumulate(self.decode_order[start:stop])
        closed = np.flatnonzero(furthest == np.arange(start, stop))
        return start + int(closed[-1]) + 1 if len(closed) else start

    @property
    def has_constant_rate(self) -> bool:
        """Whether frame i is shown exactly i / fps seconds after the first one."""
        step = 1 / self.encoding.fps / self.encoding.time_base
        if not self.seekable or step.denominator != 1:
            return False
        return bool(np.all(np.diff(self.pts) == step.numerator))


def probe_video(path: str | Path) -> VideoInfo:
    """Describe a video. Frames are counted from the packets of the file, never believed from its metadata.

    Raises InvalidMedia when the file is missing, empty, not a video, truncated, or its first frame does not decode.
    """
    return index_video(path).info


def index_video(path: str | Path) -> VideoIndex:
    """Read the packets of a video (its first frame is decoded, no other); errors as `probe_video`."""
    path = Path(path)
    with open_video(path) as (container, stream):
        packets = _packets(container, stream, path)
        has_audio = bool(container.streams.audio)
        fps = stream.average_rate or stream.guessed_rate
        time_base, context = stream.time_base, stream.codec_context
        rotation = _rotation(path)
        size = (context.width, context.height)
        can_seek = container.format.name.startswith(_EXACT_SEEK)
        pix_fmt, codec = str(context.pix_fmt), context.codec.canonical_name
        parameter_sets = bytes(context.extradata or b"")
        signalling, in_band = _signalling(context), context.codec_tag == "avc3"
    if not fps or not time_base:
        raise InvalidMedia(f"{path} does not say its frame rate; convert it to mp4")
    pts, order, entry_points = _arrange(packets)
    if not can_seek:
        entry_points = entry_points[:1]
    fps = _even_rate(pts, time_base) or fps
    num_frames = len(pts) or _count_by_decoding(path)
    width, height = size if rotation % 180 == 0 else size[::-1]
    info = VideoInfo(path, width, height, fps, num_frames, float(num_frames / fps), codec, pix_fmt, has_audio)
    encoding = Encoding(codec, parameter_sets, size, pix_fmt, fps, time_base, rotation, signalling, in_band)
    return VideoIndex(info, encoding, pts, order, entry_points)


def _signalling(context: VideoCodecContext) -> Signalling:
    pixel_aspect = context.sample_aspect_ratio or Fraction(1)
    numbers = int(context.colorspace), int(context.color_primaries), int(context.color_trc)
    full_range = context.color_range == 2 or str(context.pix_fmt).startswith("yuvj")
    return Signalling(*numbers, full_range, pixel_aspect)


def _even_rate(pts: NDArray[np.int64], time_base: Fraction) -> Fraction | None:
    """The rate of frames that are evenly spaced to the last; a container's mean is off where its last frame is longer.

    None where stamps are rounded to milliseconds (Matroska): a header says more than they do.
    """
    steps = np.unique(np.diff(pts))
    return 1 / (int(steps[0]) * time_base) if len(steps) == 1 and time_base < Fraction(1, 1000) else None


def _packets(container: InputContainer, stream: VideoStream, path: Path) -> list[tuple[int | None, bool]]:
    """(time stamp, is keyframe) of every packet that is shown, in file order."""
    packets = [(p.pts, p.is_keyframe, p.is_corrupt, p.is_discard) for p in container.demux(stream) if p.size]
    if not packets:
        raise InvalidMedia(f"{path} holds no frames; it may be cut off")
    complete = sum(not corrupt for _, _, corrupt, _ in packets)
    if complete < len(packets) or ends_early(container, stream, path):
        of = f" of {stream.frames}" if stream.frames > complete else ""
        raise InvalidMedia(f"{path} is truncated: its data ends after {complete}{of} frames; upload or copy it again")
    return [(pts, keyframe) for pts, keyframe, _, discarded in packets if not discarded]


def _rotation(path: Path) -> int:
    """Degrees by which the first frame is to be turned counter-clockwise to stand upright (0, 90, 180, 270)."""
    with open_video(path) as (container, stream):
        for frame in decoded_frames(container, stream):
            return round(frame.rotation) % 360
    raise InvalidMedia(f"{path} holds no frame that can be decoded")


def _arrange(
    packets: list[tuple[int | None, bool]],
) -> tuple[NDArray[np.int64], NDArray[np.int64], tuple[int, ...]]:
    """Sort packets into showing order; all empty when time stamps are missing, repeated, or no keyframe leads."""
    stamps = [pts for pts, _ in packets if pts is not None]
    if len(stamps) != len(packets) or len(set(stamps)) != len(packets) or not packets[0][1]:
        return np.empty(0, np.int64), np.empty(0, np.int64), ()
    in_file = np.array(stamps, dtype=np.int64)
    order = np.empty(len(stamps), dtype=np.int64)
    order[np.argsort(in_file)] = np.arange(len(stamps))
    # The frames before a keyframe in the file are also those shown before it: nothing refers across it.
    furthest = np.maximum.accumulate(order)
    closed = [k for k, (_, key) in enumerate(packets) if key and order[k] == k and (k == 0 or furthest[k - 1] < k)]
    return np.sort(in_file), order, tuple(closed)


def _count_by_decoding(path: Path) -> int:
    with open_video(path) as (container, stream):
        return sum(1 for _ in decoded_frames(container, stream))
