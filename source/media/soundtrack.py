"""The sound of a composed video: spans of files laid along it, faded and mixed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from source.errors import InvalidInput
from Wan2GP.media import SOUND_RATE, Samples, check_sound, mux_samples, probe_video, stereo_pieces


@dataclass(frozen=True)
class SoundPiece:
    """The sound of `path` from `start_s` to `stop_s`, laid at `at_s` seconds of the result.

    Time in a file with pictures counts from its first picture; in a sound file, from its first sample. Fades are of
    equal power: two pieces that overlap by their fades keep one loudness. `speed` is how much faster than recorded it
    is played (the pitch goes along); the piece lasts (stop_s - start_s) / speed seconds.
    """

    path: Path
    start_s: float
    stop_s: float
    at_s: float
    fade_in_s: float = 0
    fade_out_s: float = 0
    speed: Fraction = Fraction(1)

    @property
    def begins(self) -> int:
        """Its place in the result, in samples."""
        return round(self.at_s * SOUND_RATE)

    @property
    def length(self) -> int:
        """How long it lasts, in samples."""
        return round((self.stop_s - self.start_s) / float(self.speed) * SOUND_RATE)

    def reaching(self, before_s: float, after_s: float) -> SoundPiece:
        """The same sound, begun and ended that much further out, in seconds of the result."""
        lead, tail = before_s * float(self.speed), after_s * float(self.speed)
        return replace(self, start_s=self.start_s - lead, stop_s=self.stop_s + tail, at_s=self.at_s - before_s)

    def gain(self, start: int, stop: int) -> Samples:
        """The factor of its samples start..stop-1, one for all outside fades: sin(pi t / 2) in, and back while out."""
        if start >= self.fade_in_s * SOUND_RATE and stop <= self.length - self.fade_out_s * SOUND_RATE:
            return np.ones(1, np.float32)
        middles = np.arange(start, stop, dtype=np.float64) + 0.5
        rising = _share(middles, self.fade_in_s)
        falling = _share(self.length - middles, self.fade_out_s)
        return np.asarray(np.sin(np.pi / 2 * rising) * np.sin(np.pi / 2 * falling), dtype=np.float32)


def lay_sound(video: str | Path, pieces: Sequence[SoundPiece], output: str | Path) -> Path:
    """Lay the pieces under the pictures of `video`, into the mp4 `output`; where there is no piece there is silence.

    The pictures are copied. The sound is AAC, 48 kHz stereo, 192 kbit/s, exactly as long as the pictures; pieces that
    overlap are added up, and clipped at full scale. No more than a second of each sounding piece is in memory.

    Raises InvalidInput for a piece that cannot be, InvalidMedia for a file that cannot be read or has no sound.
    """
    for piece in pieces:
        _check(piece)
    info = probe_video(video)
    return mux_samples(video, mixed(pieces, round(info.num_frames / info.fps * SOUND_RATE)), output)


def mixed(pieces: Sequence[SoundPiece], length: int) -> Iterator[Samples]:
    """The pieces added up, as blocks (2, N) of at most a second: `length` samples of SOUND_RATE in all."""
    waiting = sorted(pieces, key=lambda piece: piece.begins)
    voices: list[_Voice] = []
    for start in range(0, length, SOUND_RATE):
        stop = min(start + SOUND_RATE, length)
        block = np.zeros((2, stop - start), np.float32)
        while waiting and waiting[0].begins < stop:
            voices.append(_Voice(waiting.pop(0)))
        for voice in voices:
            voice.add_to(block, start)
        voices = [voice for voice in voices if voice.ends > stop]
        yield np.clip(block, -1, 1)


class _Voice:
    """A piece that sounds: its samples, decoded as they are needed."""

    def __init__(self, piece: SoundPiece) -> None:
        self._piece = piece
        self._decoded = stereo_pieces(piece.path, piece.start_s, piece.stop_s, speed=piece.speed)
        self._held: tuple[int, Samples] | None = None
        self.ends = piece.begins + piece.length

    def add_to(self, block: Samples, at: int) -> None:
        """Add what sounds during `block`, which begins at sample `at` of the result."""
        low = at - self._piece.begins
        high = low + block.shape[1]
        while (held := self._held or next(self._decoded, None)) is not None:
            position, samples = held
            start, stop = max(position, low, 0), min(position + samples.shape[1], high, self._piece.length)
            if start < stop:
                heard = samples[:, start - position : stop - position] * self._piece.gain(start, stop)
                block[:, start - low : stop - low] += heard
            # What reaches into the next block is looked at again then.
            self._held = held if position + samples.shape[1] > high else None
            if self._held:
                break


def _share(samples: NDArray[np.floating], fade_s: float) -> NDArray[np.floating]:
    return np.clip(samples / (fade_s * SOUND_RATE), 0, 1) if fade_s > 0 else np.ones_like(samples)


def _check(piece: SoundPiece) -> None:
    if not (0 <= piece.start_s < piece.stop_s and piece.speed > 0 and min(piece.fade_in_s, piece.fade_out_s) >= 0):
        raise InvalidInput(f"{piece.path}: there is no sound from {piece.start_s} s to {piece.stop_s} s")
    check_sound(piece.path)
