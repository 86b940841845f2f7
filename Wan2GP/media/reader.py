"""Reading frames by exact index, one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from av.video.frame import VideoFrame

from Wan2GP.errors import InvalidInput, InvalidMedia
from Wan2GP.media.colour import Planes, to_planes, to_rgb
from Wan2GP.media.containers import decoded_frames, open_video
from Wan2GP.media.images import Frame
from Wan2GP.media.index import VideoIndex, VideoInfo, index_video


def read_frames(path: str | Path, start: int = 0, stop: int | None = None) -> Iterator[Frame]:
    """The frames start..stop-1 (to the end when `stop` is None), RGB (H, W, 3) uint8, decoded as they are asked for.

    The range is checked at once. Raises InvalidInput when it lies outside the video, InvalidMedia for a bad file.
    """
    index = index_video(path)
    frames = decode(index, start, index.info.num_frames if stop is None else stop)
    return (to_rgb(frame, index.encoding.rotation) for frame in frames)


def read_frame(path: str | Path, index: int) -> Frame:
    """One frame, RGB (H, W, 3) uint8; a negative index counts from the end (-1 is the last frame)."""
    video = index_video(path)
    num_frames = video.info.num_frames
    if not -num_frames <= index < num_frames:
        raise InvalidInput(f"frame {index} does not exist in {path}: it has {num_frames} frames")
    position = index % num_frames
    return to_rgb(next(decode(video, position, position + 1)), video.encoding.rotation)


def read_planes(video: VideoIndex, start: int, stop: int, size: tuple[int, int]) -> Iterator[Planes]:
    """The frames start..stop-1 as yuv420p planes at `size`; without any conversion when the file holds just that."""
    return (to_planes(frame, size, video.encoding.rotation) for frame in decode(video, start, stop))


def check_video(path: str | Path) -> VideoInfo:
    """Describe a video after decoding its last GOP: finds files whose end is missing. Errors as `probe_video`."""
    video = index_video(path)
    num_frames = video.info.num_frames
    first = video.entry_before(num_frames - 1) if video.seekable else 0
    for _ in decode(video, first, num_frames):
        pass
    return video.info


def decode(video: VideoIndex, start: int, stop: int) -> Iterator[VideoFrame]:
    """Decoded frames start..stop-1. The range is checked at once, the decoding is lazy."""
    num_frames = video.info.num_frames
    if not 0 <= start <= stop <= num_frames:
        raise InvalidInput(f"frames {start} to {stop} do not exist in {video.info.path}: it has {num_frames} frames")
    if start == stop:
        return iter(())
    if not video.seekable:
        return _decode_from_zero(video, start, stop)
    return _from_nearest_entry(video, start, stop)


def _from_nearest_entry(video: VideoIndex, start: int, stop: int) -> Iterator[VideoFrame]:
    entry = video.entry_before(start)
    frames = _seek_and_decode(video, entry, start, stop)
    try:
        first = next(frames)
    except InvalidMedia:
        if entry == 0:
            raise
        # A keyframe that is no IDR looks like an entry point, but a strict decoder misses the frames before it.
        yield from _seek_and_decode(video, 0, start, stop)
    else:
        yield first
        yield from frames


def _seek_and_decode(video: VideoIndex, entry: int, start: int, stop: int) -> Iterator[VideoFrame]:
    path, position = video.info.path, start
    with open_video(path) as (container, stream):
        if entry:
            container.seek(int(video.pts[entry]), stream=stream, backward=True)
        for frame in decoded_frames(container, stream):
            if frame.pts is None or frame.pts < video.pts[position]:
                continue
            if frame.pts != video.pts[position]:
                raise InvalidMedia(f"{path} is damaged: frame {position} cannot be decoded; export it again")
            yield frame
            position += 1
            if position == stop:
                return
    raise InvalidMedia(f"{path} is damaged: decoding ended at frame {position}; export it again")


def _decode_from_zero(video: VideoIndex, start: int, stop: int) -> Iterator[VideoFrame]:
    with open_video(video.info.path) as (container, stream):
        for position, frame in enumerate(decoded_frames(container, stream)):
            if position >= stop:
                return
            if position >= start:
                yield frame
