"""Opening video files with PyAV, and turning its errors into ours."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from Wan2GP.errors import InvalidMedia
from Wan2GP.media.files import content_kind, require_file
from Wan2GP.media.images import MAX_PIXELS

#: Real video containers alone. Playlists are left out: they could make the process read other files or addresses.
_DEMUXERS = "mov,matroska,webm,avi,mpegts,mpeg,flv,gif,ogg,asf,ivf,h264,hevc"
_OPTIONS = {"format_whitelist": _DEMUXERS, "protocol_whitelist": "file"}

#: decoders gain little beyond this, and each thread of theirs holds frames in memory
MAX_THREADS = 4


def num_threads() -> int:
    """How many threads a decoder or an encoder may use here."""
    return min(MAX_THREADS, os.cpu_count() or 1)


@contextmanager
def open_video(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a video file and its first moving picture stream (cover art is passed over).

    Raises InvalidMedia when the file is missing, empty, or not a video; also for any decoding error inside the block.
    Faults of the disk stay OSError.
    """
    require_file(path)
    with translating(path):
        try:
            container = av.open(str(path), options=_OPTIONS, metadata_errors="ignore")
        except (av.error.InvalidDataError, av.error.ArgumentError) as error:
            raise InvalidMedia(_not_a_video(path)) from error
        with container:
            yield container, _video_stream(container, path)


@contextmanager
def translating(path: Path) -> Iterator[None]:
    """Turn FFmpeg's complaints about the content of `path` into InvalidMedia; system errors pass through."""
    try:
        yield
    except av.FFmpegError as error:
        if isinstance(error, OSError | MemoryError):
            raise
        raise InvalidMedia(f"{path} is damaged and cannot be decoded ({error.strerror}); export it again") from error


def decoded_frames(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """Decode from the current position; broken data is an error, never silently patched over."""
    context = stream.codec_context
    context.thread_type = "AUTO"
    context.thread_count = num_threads()
    context.options = {"err_detect": "explode"}
    yield from container.decode(stream)


def _video_stream(container: InputContainer, path: Path) -> VideoStream:
    streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not streams:
        raise InvalidMedia(f"{path} has no video stream (only sound or subtitles)")
    stream = streams[0]
    context = stream.codec_context
    if context is None or not context.width or not context.height or not context.pix_fmt:
        if ends_early(container, stream, path):
            raise InvalidMedia(f"{path} is truncated: not even its first frame is whole; upload or copy it again")
        raise InvalidMedia(f"{path}: its video stream cannot be decoded here; convert it to H.264 mp4")
    if context.width * context.height > MAX_PIXELS:
        raise InvalidMedia(f"{path} is {context.width}x{context.height}: too large to decode; scale it down")
    return stream


def ends_early(container: InputContainer, stream: VideoStream, path: Path) -> bool:
    """Whether an mp4's table of contents names bytes beyond the end of the file."""
    if "mp4" not in container.format.name:
        return False
    size = path.stat().st_size
    return any(entry.pos + entry.size > size for entry in stream.index_entries)


def _not_a_video(path: Path) -> str:
    kind = content_kind(path)
    if kind in ("an MP4 or MOV file", "a Matroska or WebM file"):
        return (
            f"{path} is cut off or damaged: it begins as {kind} but its table of contents is missing; upload it again"
        )
    return f"{path} is not a video: it holds {kind}; give an mp4, mov, mkv, webm, avi or gif"
