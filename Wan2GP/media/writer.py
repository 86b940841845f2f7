"""Writing video: H.264 mp4 that plays everywhere and can be cut without re-encoding, or lossless FFV1."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import ExitStack, suppress
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypeAlias

import av
import numpy as np
from av.container import OutputContainer
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream

from Wan2GP.errors import EngineError, InvalidInput
from Wan2GP.media.colour import BT709_SIGNALLING, Planes, Signalling, from_planes, from_rgb, from_rgb_lossless
from Wan2GP.media.containers import num_threads
from Wan2GP.media.files import publishing
from Wan2GP.media.images import Frame
from Wan2GP.media.index import VideoInfo, probe_video

VideoCodec: TypeAlias = Literal["libx264", "ffv1"]

_CONTAINERS: dict[str, tuple[str, str, dict[str, str]]] = {
    "libx264": (".mp4", "mp4", {"movflags": "+faststart"}),
    "ffv1": (".mkv", "matroska", {}),
}


class VideoWriter:
    """Writes frames one by one; the file takes its name when the `with` block ends well, and never exists half-written.

    fps         frames per second; frame i is stamped i / fps, exactly (Matroska rounds stamps to 1 ms)
    size        (width, height) in pixels; both even for libx264
    crf         constant quality of libx264: 0 lossless … 51 worst
    keyframes   frame indices that must begin a GOP (IDR). Every GOP is closed and lasts at most about one second
    codec       libx264: yuv420p, mp4 with its index in front. ffv1: bit-exact RGB, mkv
    signalling  what a libx264 stream says of its colours, and the matrix by which it gets them: BT.709, limited range

    Raises InvalidInput for a wrong size, suffix or frame, and for a video without frames.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        fps: Fraction | float,
        size: tuple[int, int],
        crf: int = 18,
        preset: str = "medium",
        keyframes: Collection[int] = frozenset(),
        codec: VideoCodec = "libx264",
        signalling: Signalling = BT709_SIGNALLING,
    ) -> None:
        self.path = Path(path)
        self._signalling = signalling
        self.num_frames = 0
        self._fps = exact_fps(fps)
        self._size = size
        # Macroblock trees make libx264 write different files for equal frames: 20 of 40 runs, without them 0 of 240.
        quality = {"preset": preset, "crf": str(crf), "forced-idr": "1", "mbtree": "0"}
        self._quality = quality if codec == "libx264" else {}
        self._keyframes = keyframes
        self._codec: VideoCodec = codec
        self._check()
        self._cleanup = ExitStack()

    def _check(self) -> None:
        width, height = self._size
        suffix = _CONTAINERS[self._codec][0]
        if self.path.suffix.lower() != suffix:
            raise InvalidInput(f"cannot write {self.path} as {self._codec}: use a name that ends in {suffix}")
        if width < 2 or height < 2:
            raise InvalidInput(f"cannot write a video of {width}x{height}: both sides must be at least 2 pixels")
        if self._codec == "libx264" and (width % 2 or height % 2):
            even = f"{width // 2 * 2}x{height // 2 * 2}"
            raise InvalidInput(f"cannot write a video of {width}x{height}: H.264 needs even sides; use {even}")

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            partial = stack.enter_context(publishing(self.path))
            _, container_format, options = _CONTAINERS[self._codec]
            self._container: OutputContainer = av.open(str(partial), "w", format=container_format, options=options)
            self._stream = self._add_stream()
            self._cleanup = stack.pop_all()
        return self

    def _add_stream(self) -> VideoStream:
        stream: VideoStream = self._container.add_stream(self._codec, rate=self._fps, options=self._quality)
        context = stream.codec_context
        context.width, context.height = self._size
        context.time_base = 1 / self._fps
        context.thread_count = num_threads()
        if self._codec == "libx264":
            context.pix_fmt = "yuv420p"
            context.gop_size = max(1, round(self._fps))
            said = self._signalling
            context.colorspace, context.color_primaries, context.color_trc = said.matrix, said.primaries, said.transfer
            context.color_range = 1
            if said.pixel_aspect != 1:
                context.sample_aspect_ratio = stream.sample_aspect_ratio = said.pixel_aspect
        else:
            context.pix_fmt = "bgr0"
            context.gop_size = 1
        return stream

    def write(self, frame: Frame) -> None:
        """Append one RGB frame, (H, W, 3) uint8."""
        self._check_frame(frame, (self._size[1], self._size[0], 3), "RGB")
        self._encode(from_rgb(frame, self._signalling) if self._codec == "libx264" else from_rgb_lossless(frame))

    def write_planes(self, planes: Planes) -> None:
        """Append one yuv420p frame, (H * 3 / 2, W) uint8, limited range; libx264 alone."""
        if self._codec != "libx264":
            raise InvalidInput(f"{self.path}: {self._codec} takes RGB frames, not yuv420p planes")
        self._check_frame(planes, (self._size[1] * 3 // 2, self._size[0]), "yuv420p")
        self._encode(from_planes(planes))

    def _check_frame(self, frame: Frame, shape: tuple[int, ...], kind: str) -> None:
        if frame.shape != shape or frame.dtype != np.uint8:
            raise InvalidInput(
                f"{self.path}: frame {self.num_frames} is {frame.dtype} of shape {frame.shape}, "
                f"but this {kind} video takes uint8 of shape {shape}; resize it first"
            )

    def _encode(self, frame: VideoFrame) -> None:
        frame.pts, frame.time_base = self.num_frames, 1 / self._fps
        frame.pict_type = PictureType.I if self.num_frames in self._keyframes else PictureType.NONE
        self._mux(frame)
        self.num_frames += 1

    def _mux(self, frame: VideoFrame | None) -> None:
        try:
            self._container.mux(self._stream.encode(frame))
        except av.FFmpegError as error:
            if isinstance(error, OSError | MemoryError):
                raise
            raise EngineError(f"cannot encode {self.path} as {self._codec}: {error.strerror}") from error

    def _finish(self) -> None:
        if self.num_frames == 0:
            raise InvalidInput(f"{self.path} would be a video without frames; write at least one")
        self._mux(None)
        self._container.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            with self._cleanup:
                self._finish()
            return
        with suppress(av.FFmpegError):
            self._container.close()
        self._cleanup.__exit__(kind, error, trace)


def write_video(
    path: str | Path,
    frames: Iterable[Frame],
    *,
    fps: Fraction | float,
    crf: int = 18,
    preset: str = "medium",
    keyframes: Collection[int] = frozenset(),
    codec: VideoCodec = "libx264",
    signalling: Signalling = BT709_SIGNALLING,
) -> VideoInfo:
    """Write RGB frames (H, W, 3) uint8, taken one at a time, and describe the file. The first frame sets the size.

    The other arguments are those of `VideoWriter`.
    """
    stream = iter(frames)
    first = next(stream, None)
    if first is None:
        raise InvalidInput(f"{path} would be a video without frames; give at least one")
    size = (first.shape[1], first.shape[0])
    writing = VideoWriter(
        path, fps=fps, size=size, crf=crf, preset=preset, keyframes=keyframes, codec=codec, signalling=signalling
    )
    with writing as writer:
        for frame in chain([first], stream):
            writer.write(frame)
    return probe_video(path)


def exact_fps(fps: Fraction | float) -> Fraction:
    """A frame rate as a fraction; 23.976, 29.97 and the like become the n * 1000 / 1001 they stand for."""
    rate = Fraction(fps).limit_denominator(1001)
    whole = round(fps)
    if whole and not isinstance(fps, Fraction | int) and abs(fps - whole * 1000 / 1001) < 0.005:
        rate = Fraction(whole * 1000, 1001)
    if not 0 < rate <= 1000:
        raise InvalidInput(f"{fps} frames per second is not a usable rate; give a number above 0, such as 16")
    return rate
