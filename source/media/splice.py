"""The edit list behind cuts and stitches, and the two ways to carry it out.

An edit list is a row of pieces: spans of clips, and fades from one clip into the next. It is carried out

- by copying, where all clips were written by our writer with the same settings: whole GOPs of spans are copied as they
  are, everything else (fades and the broken GOPs at the ends of spans) is encoded once into a scratch file, and the
  packets of both are put one after another. The result is decoded at every seam and compared with its sources;
- by streaming otherwise, or when that comparison fails: every frame is decoded and encoded, with no more in memory than
  the frame at hand and the look-ahead of the encoder.

Sound is not carried over.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from source.errors import EngineError, GenerationCancelled, InvalidMedia
from source.media.crossfade import Crossfade
from Wan2GP.media import (
    Encoding,
    PacketRange,
    Planes,
    VideoIndex,
    VideoWriter,
    concat_copy,
    index_video,
    read_planes,
    write_video,
)

log = logging.getLogger(__name__)

Size: TypeAlias = tuple[int, int]
Method: TypeAlias = Literal["copy", "smart", "stream"]


@dataclass(frozen=True)
class Span:
    """The frames start..stop-1 of a clip."""

    clip: VideoIndex
    start: int
    stop: int

    @property
    def num_frames(self) -> int:
        return self.stop - self.start

    @property
    def clips(self) -> tuple[VideoIndex, ...]:
        return (self.clip,)

    def planes(self, size: Size) -> Iterator[Planes]:
        return read_planes(self.clip, self.start, self.stop, size)


@dataclass(frozen=True)
class Fade:
    """`before` turning into `after`; both have the same number of frames."""

    before: Span
    after: Span
    crossfade: Crossfade

    @property
    def num_frames(self) -> int:
        return self.after.num_frames

    @property
    def clips(self) -> tuple[VideoIndex, ...]:
        return (self.before.clip, self.after.clip)

    def planes(self, size: Size) -> Iterator[Planes]:
        return self.crossfade.planes(self.before.planes(size), self.after.planes(size), self.num_frames)


Piece: TypeAlias = Span | Fade


@dataclass(frozen=True)
class Section:
    """Pieces that follow one another and are treated alike: one span copied, or all of them encoded."""

    pieces: tuple[Piece, ...]
    copied: bool

    @property
    def num_frames(self) -> int:
        return sum(piece.num_frames for piece in self.pieces)


@dataclass(frozen=True)
class SpliceReport:
    """What was made and how: "copy" (nothing encoded), "smart" (both) or "stream" (everything encoded)."""

    num_frames: int
    method: Method
    copied_frames: int
    encoded_frames: int


@dataclass
class Watch:
    """Tells how many frames are done, and stops the work when asked to."""

    total: int
    progress: Callable[[int, int], None] | None = None
    cancelled: Callable[[], bool] | None = None
    done: int = field(default=0, init=False)

    def step(self, num_frames: int = 1) -> None:
        """Count frames as done. Raises GenerationCancelled when the caller wants to stop."""
        if self.cancelled is not None and self.cancelled():
            raise GenerationCancelled(f"stopped after {self.done} of {self.total} frames")
        self.done += num_frames
        if self.progress is not None:
            self.progress(self.done, self.total)


def splice(
    pieces: Sequence[Piece],
    output: Path,
    *,
    size: Size,
    fps: Fraction,
    progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> SpliceReport:
    """Carry out an edit list into the mp4 `output`, which holds exactly the frames of the pieces.

    Raises InvalidMedia for a clip that does not decode, GenerationCancelled when `cancelled` says so.
    """
    pieces = [piece for piece in pieces if piece.num_frames]
    total = sum(piece.num_frames for piece in pieces)
    sections = sections_of(pieces)
    if any(section.copied for section in sections) and _is_ours([c for p in pieces for c in p.clips], size, fps):
        report = _by_copying(sections, output, size, fps, Watch(total, progress, cancelled))
        if report is not None:
            return report
        log.warning("%s: the copied result did not match its sources; encoding it afresh", output.name)
    return _by_streaming(pieces, output, size, fps, Watch(total, progress, cancelled))


def sections_of(pieces: Sequence[Piece]) -> list[Section]:
    """Part spans into whole GOPs to copy and rests to encode; neighbouring rests and fades become one section."""
    sections: list[Section] = []
    for piece, copied in (part for each in pieces for part in _parts(each)):
        if sections and not copied and not sections[-1].copied:
            sections[-1] = Section((*sections[-1].pieces, piece), copied=False)
        else:
            sections.append(Section((piece,), copied))
    return sections


def _parts(piece: Piece) -> list[tuple[Piece, bool]]:
    """(part, whether it can be copied) of one piece, in order."""
    if isinstance(piece, Fade):
        return [(piece, False)]
    clip = piece.clip
    bounds = [b for b in (*clip.entry_points, clip.info.num_frames) if piece.start <= b <= piece.stop]
    if len(bounds) < 2:
        return [(piece, False)]
    head = Span(clip, piece.start, bounds[0])
    tail = Span(clip, bounds[-1], piece.stop)
    parts: list[tuple[Piece, bool]] = [(head, False), (Span(clip, bounds[0], bounds[-1]), True), (tail, False)]
    return [part for part in parts if part[0].num_frames]


def _is_ours(clips: Sequence[VideoIndex], size: Size, fps: Fraction) -> bool:
    """Whether all clips have the very encoding that our writer gives a video of this size and rate."""
    encodings = {clip.encoding for clip in clips}
    if len(encodings) > 1 or not all(clip.has_constant_rate for clip in clips):
        return False
    return encodings == {_writer_encoding(size, fps)} if size[0] % 2 == size[1] % 2 == 0 else False


def _writer_encoding(size: Size, fps: Fraction) -> Encoding:
    """The encoding of a video of one black frame, written just now."""
    with tempfile.TemporaryDirectory(prefix="splice-") as folder:
        path = Path(folder) / "one.mp4"
        write_video(path, [np.zeros((size[1], size[0], 3), np.uint8)], fps=fps)
        return index_video(path).encoding


def _by_copying(
    sections: Sequence[Section], output: Path, size: Size, fps: Fraction, watch: Watch
) -> SpliceReport | None:
    """The smart way; None when the result fails its check (the output is not there then)."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".splice-", dir=output.parent) as folder:
        joined = Path(folder) / "joined.mp4"
        try:
            ranges = _ranges(sections, Path(folder) / "encoded.mp4", size, fps, watch)
            concat_copy(ranges, joined)
            if not _matches(index_video(joined), ranges, size):
                return None
        except InvalidMedia:
            # Not a verdict on the clips yet: the streaming way decodes every frame and says what is wrong.
            log.warning("%s: copying failed", output.name, exc_info=True)
            return None
        joined.replace(output)
    copied = sum(section.num_frames for section in sections if section.copied)
    encoded = sum(section.num_frames for section in sections) - copied
    return SpliceReport(copied + encoded, "smart" if encoded else "copy", copied, encoded)


def _ranges(sections: Sequence[Section], scratch: Path, size: Size, fps: Fraction, watch: Watch) -> list[PacketRange]:
    """The packets of every section: of its clip when copied, of the scratch file when encoded."""
    fresh = [section for section in sections if not section.copied]
    ends = list(accumulate(section.num_frames for section in fresh))
    encoded: Iterator[PacketRange] = iter(())
    if fresh:
        pieces = [piece for section in fresh for piece in section.pieces]
        _encode(pieces, scratch, size, fps, watch, keyframes=frozenset(ends))
        index = index_video(scratch)
        encoded = (PacketRange(index, start, stop) for start, stop in zip([0, *ends], ends, strict=False))
    ranges = []
    for section in sections:
        if section.copied:
            span = section.pieces[0]
            assert isinstance(span, Span)
            ranges.append(PacketRange(span.clip, span.start, span.stop))
            watch.step(span.num_frames)
        else:
            ranges.append(next(encoded))
    return ranges


def _matches(result: VideoIndex, ranges: Sequence[PacketRange], size: Size) -> bool:
    """Whether every frame has its exact time, each seam decodes, and each range begins as its source does."""
    starts = list(accumulate((part.num_frames for part in ranges), initial=0))
    total = starts.pop()
    if result.info.num_frames != total or not result.has_constant_rate:
        return False
    for start, part in zip(starts, ranges, strict=True):
        around = list(read_planes(result, max(start - 1, 0), start + 1, size))
        source = next(read_planes(part.video, part.start, part.start + 1, size))
        if not np.array_equal(around[-1], source):
            return False
    return len(list(read_planes(result, total - 1, total, size))) == 1


def _by_streaming(pieces: Sequence[Piece], output: Path, size: Size, fps: Fraction, watch: Watch) -> SpliceReport:
    starts = frozenset(accumulate(piece.num_frames for piece in pieces))
    _encode(pieces, output, size, fps, watch, keyframes=starts)
    made = index_video(output).info.num_frames
    if made != watch.total:
        raise EngineError(f"{output} holds {made} frames instead of {watch.total}")
    return SpliceReport(made, "stream", 0, made)


def _encode(
    pieces: Sequence[Piece], output: Path, size: Size, fps: Fraction, watch: Watch, keyframes: frozenset[int]
) -> None:
    with VideoWriter(output, fps=fps, size=size, keyframes=keyframes) as writer:
        for piece in pieces:
            for planes in piece.planes(size):
                writer.write_planes(planes)
                watch.step()
