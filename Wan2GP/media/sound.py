"""Sound: any file's first sound track as samples of one rate, and samples laid under pictures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer

from Wan2GP.errors import InvalidInput, InvalidMedia
from Wan2GP.media.containers import open_video, translating
from Wan2GP.media.files import content_kind, publishing, require_file

#: sound files, and videos that have sound; playlists are left out, as for videos
_DEMUXERS = "wav,w64,aiff,mp3,flac,aac,ogg,mov,matroska,webm,avi,mpegts,mpeg,asf"
_OPTIONS = {"format_whitelist": _DEMUXERS, "protocol_whitelist": "file"}

#: containers that lead to the very moment that was asked for
_EXACT_SEEK = ("mov", "matroska", "wav")

#: seconds that a decoder needs before the moment of interest to be at full quality there
_RUN_UP_S = 0.25

#: a step in the time stamps larger than this is a hole or a jump in the sound, seconds
_JUMP_S = 0.05

#: samples a second, and bits a second, of the sound that we write
SOUND_RATE = 48_000
_BIT_RATE = 192_000

Samples = npt.NDArray[np.float32]


def check_sound(path: str | Path) -> None:
    """Raises InvalidMedia when the file is missing, holds no sound, or its sound cannot be decoded."""
    read_sound(path, rate=16_000, stop_s=0.1)


def read_sound(path: str | Path, *, rate: int, start_s: float = 0.0, stop_s: float | None = None) -> Samples:
    """Mono samples (N,) in [-1, 1], `rate` of them a second, from `start_s` to `stop_s` (None: to the end).

    Fewer where the sound ends earlier, and none where it ends before `start_s`. Several channels are averaged.
    Raises InvalidMedia when the file is missing, empty, or has no sound.
    """
    first = round(start_s * rate)
    last = None if stop_s is None else round(stop_s * rate)
    pieces, position = [], 0
    for piece in _pieces(Path(path), rate):
        pieces.append(piece[max(first - position, 0) : None if last is None else max(last - position, 0)])
        position += len(piece)
        if last is not None and position >= last:
            break
    if not position:
        raise InvalidMedia(f"{path} holds no sound: its sound track is empty")
    return np.concatenate(pieces)


def _pieces(path: Path, rate: int) -> Iterator[Samples]:
    resampler = AudioResampler(format="fltp", rate=rate)
    with _open_sound(path) as (container, stream):
        for frame in container.decode(stream):
            for piece in resampler.resample(frame):
                yield piece.to_ndarray().mean(axis=0)
        for piece in resampler.resample(None):
            yield piece.to_ndarray().mean(axis=0)


def stereo_pieces(
    path: str | Path, start_s: float, stop_s: float, *, speed: Fraction = Fraction(1)
) -> Iterator[tuple[int, Samples]]:
    """The sound from `start_s` to `stop_s`, decoded as it is asked for: (position, samples (2, N)), positions rising.

    Positions count samples of SOUND_RATE from `start_s`; the first may be negative and the last piece may reach beyond
    the end. Where the file has no sound there is no piece. Time counts from the first picture of a file that has any,
    otherwise from its first sample. Played `speed` times as fast, pitch and all. One channel is given to both sides.

    Raises InvalidMedia when the file is missing or has no sound track.
    """
    path = Path(path)
    with _open_sound(path) as (container, stream):
        zero = _zero(container)
        if start_s > _RUN_UP_S and container.format.name.startswith(_EXACT_SEEK):
            zero = _start(stream) if zero is None else zero
            container.seek(round((zero + start_s - _RUN_UP_S) / stream.time_base), stream=stream, backward=True)
        mono = stream.layout.nb_channels == 1
        for run in _runs(container.decode(stream)):
            first = next(run)
            begun = Fraction(first.pts or 0) * first.time_base
            zero = begun if zero is None else zero
            position = round((begun - zero - Fraction(start_s)) / speed * SOUND_RATE)
            for samples in _resampled(chain([first], run), speed, "mono" if mono else "stereo"):
                yield position, np.repeat(samples, 2, axis=0) if mono else samples
                position += samples.shape[1]
                if position >= (stop_s - start_s) / speed * SOUND_RATE:
                    return


def _zero(container: InputContainer) -> Fraction | None:
    """When the first picture of a file is shown; None for a file without pictures."""
    moving = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    return _start(moving[0]) if moving else None


def _start(stream: av.stream.Stream) -> Fraction:
    return (stream.start_time or 0) * (stream.time_base or Fraction(0))


def _runs(frames: Iterable[AudioFrame]) -> Iterator[Iterator[AudioFrame]]:
    """Part decoded sound where its time stamps jump; each part is to be used up before the next is taken."""
    frames = iter(frames)
    held = next(frames, None)

    def run() -> Iterator[AudioFrame]:
        nonlocal held
        while held is not None:
            frame, held = held, next(frames, None)
            jumps = held is not None and _jumps(frame, held)
            yield frame
            if jumps:
                return

    while held is not None:
        yield run()


def _jumps(frame: AudioFrame, following: AudioFrame) -> bool:
    if frame.pts is None or following.pts is None:
        return False
    ended = frame.pts * frame.time_base + Fraction(frame.samples, frame.sample_rate)
    return abs(following.pts * following.time_base - ended) > _JUMP_S


def _resampled(frames: Iterable[AudioFrame], speed: Fraction, layout: str) -> Iterator[Samples]:
    resampler = AudioResampler(format="fltp", layout=layout, rate=SOUND_RATE)
    for frame in frames:
        frame.pts = None
        frame.sample_rate = round(frame.sample_rate * speed)
        for piece in resampler.resample(frame):
            yield piece.to_ndarray()
    for piece in resampler.resample(None):
        yield piece.to_ndarray()


def mux_samples(video: str | Path, samples: Iterable[Samples], output: str | Path) -> Path:
    """Lay samples (2, N) in [-1, 1] at SOUND_RATE under the pictures of `video`, into the mp4 `output`.

    The pictures are copied; the sound becomes AAC 192 kbit/s and lasts as long as the samples do. They are taken block
    by block as the pictures go by.

    Raises InvalidInput for another suffix, InvalidMedia for a video that cannot be read.
    """
    video, output = Path(video), Path(output)
    if output.suffix.lower() != ".mp4":
        raise InvalidInput(f"cannot write {output}: use a name that ends in .mp4")
    options = {"movflags": "+faststart"}
    with (
        publishing(output) as partial,
        open_video(video) as (source, pictures),
        av.open(str(partial), "w", format="mp4", options=options) as container,
    ):
        copied = container.add_stream_from_template(pictures)
        if pictures.codec_context.codec_tag == "avc3":
            copied.codec_context.codec_tag = "avc3"
        track: AudioStream = container.add_stream("aac", rate=SOUND_RATE, layout="stereo")
        track.bit_rate = _BIT_RATE
        sound = _encoding(container, track, samples)
        sounded = 0.0
        for packet in source.demux(pictures):
            if not packet.size:
                continue
            while packet.dts is not None and sounded <= packet.dts * packet.time_base:
                sounded = next(sound, float("inf"))
            packet.stream = copied
            container.mux_one(packet)
        for _ in sound:
            pass
    return output


def _encoding(container: OutputContainer, track: AudioStream, samples: Iterable[Samples]) -> Iterator[float]:
    """Encode block after block, telling after each how many seconds there are."""
    done = 0
    for block in samples:
        frame = AudioFrame.from_ndarray(np.ascontiguousarray(block), format="fltp", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = SOUND_RATE, done, Fraction(1, SOUND_RATE)
        container.mux(track.encode(frame))
        done += block.shape[1]
        yield done / SOUND_RATE
    container.mux(track.encode(None))


@contextmanager
def _open_sound(path: Path) -> Iterator[tuple[InputContainer, AudioStream]]:
    require_file(path)
    with translating(path):
        try:
            container = av.open(str(path), options=_OPTIONS, metadata_errors="ignore")
        except (av.error.InvalidDataError, av.error.ArgumentError) as error:
            raise InvalidMedia(
                f"{path} is no sound: it holds {content_kind(path)}; give a wav, mp3, flac, m4a or ogg file"
            ) from error
        with container:
            if not container.streams.audio:
                raise InvalidMedia(f"{path} has no sound track")
            yield container, container.streams.audio[0]
