"""Reading sound: any file's first sound track as mono samples of one rate."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer

from Wan2GP.errors import InvalidMedia
from Wan2GP.media.containers import translating
from Wan2GP.media.files import content_kind, require_file

#: sound files, and videos that have sound; playlists are left out, as for videos
_DEMUXERS = "wav,w64,aiff,mp3,flac,aac,ogg,mov,matroska,webm,avi,mpegts,mpeg,asf"
_OPTIONS = {"format_whitelist": _DEMUXERS, "protocol_whitelist": "file"}

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
