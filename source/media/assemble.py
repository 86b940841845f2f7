"""Putting parts of clips one after another into one video, as much as possible by copying."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from source.errors import InvalidInput
from source.media.clips import Clip, Size
from source.media.crossfade import Crossfade
from source.media.soundtrack import SoundPiece, lay_sound
from source.media.splice import Fade, Piece, Span, SpliceReport, splice


@dataclass(frozen=True)
class Part:
    """The frames start..stop-1 of a clip; the first `fade` of them are cross-faded with the last of the part before.

    What is `generated` gives way to originals where only one of them can be copied.
    """

    clip: Clip
    start: int
    stop: int
    fade: int = 0
    generated: bool = False

    @property
    def num_frames(self) -> int:
        return self.stop - self.start


def assemble(
    parts: Sequence[Part],
    output: Path,
    *,
    size: Size,
    fps: Fraction,
    crossfade: Crossfade = Crossfade(),  # noqa: B008 - frozen
    sound: Sequence[SoundPiece] = (),
    progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> SpliceReport:
    """Write the parts into the mp4 `output`: the sum of their frames less the sum of their fades, exactly.

    size, fps   of the result. Clips of another size are stretched to it; frames are shown one for one
    sound       what is heard (`SoundPiece`); none at all leaves the result without a sound track. AAC, 48 kHz stereo,
                exactly as long as the pictures
    progress    called with (frames done, frames in all)
    cancelled   asked at each encoded frame; GenerationCancelled is raised when it says yes

    Whole GOPs outside fades are copied untouched where a clip is H.264 of that size and rate (`source.media.splice`);
    everything else is encoded once. Everything is checked before a byte is written.

    Raises InvalidInput for parts that do not fit, InvalidMedia for a clip that cannot be read.
    """
    _check(parts, fps)
    pieces = _pieces(parts, size, crossfade)
    if not sound:
        return splice(pieces, output, size=size, fps=fps, progress=progress, cancelled=cancelled)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".assemble-", dir=output.parent) as folder:
        silent = Path(folder) / "silent.mp4"
        report = splice(pieces, silent, size=size, fps=fps, progress=progress, cancelled=cancelled)
        lay_sound(silent, sound, output)
    return report


def _check(parts: Sequence[Part], fps: Fraction) -> None:
    if not parts:
        raise InvalidInput("there is nothing to put together")
    if parts[0].fade:
        raise InvalidInput(f"the first part cannot fade in over {parts[0].fade} frames: nothing is before it")
    for part, after in zip(parts, [*(part.fade for part in parts[1:]), 0], strict=True):
        path, length = part.clip.path, part.clip.num_frames
        if not 0 <= part.start < part.stop <= length:
            raise InvalidInput(f"frames {part.start} to {part.stop} do not exist in {path}: it has {length} frames")
        if min(part.fade, after) < 0 or part.fade + after > part.num_frames:
            raise InvalidInput(f"{path}: {part.num_frames} frames are too few to fade over {part.fade} and {after}")
        if part.clip.fps != fps:
            raise InvalidInput(f"{path} is seen at {part.clip.fps} frames per second, the result has {fps}")


def _pieces(parts: Sequence[Part], size: Size, crossfade: Crossfade) -> list[Piece]:
    """The edit list: the fade out of the part before, then what each part shows alone."""
    pieces: list[Piece] = []
    clips = [part.clip if part.clip.size == size else replace(part.clip, size=size) for part in parts]
    fades = [part.fade for part in parts] + [0]
    for i, (clip, part) in enumerate(zip(clips, parts, strict=True)):
        mixed = crossfade.mixed_frames(part.fade)
        alone = part.start + mixed
        if mixed:
            begin = parts[i - 1].stop - part.fade
            tail = Span(clips[i - 1], begin, begin + mixed)
            pieces.append(Fade(tail, Span(clip, part.start, alone), crossfade, part.fade))
        pieces.append(Span(clip, alone, part.stop - fades[i + 1], part.generated))
    return pieces
