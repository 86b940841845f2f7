"""The edit list behind cuts and stitches, and the two ways to carry it out.

An edit list is a row of pieces: spans of clips, and fades from one clip into the next. It is carried out

- by copying, where clips are H.264 of the result's size and rate that say the same of their colours: packets of spans
  are copied as they are, from a keyframe on to the last frame that needs none after it; everything else (fades, the
  broken GOPs at the ends of spans, clips of another kind) is encoded once into a scratch file, in the colours of the
  copied ones, and the packets of all are put one after another. The result is decoded at every seam, and in the middle
  of what was copied when several encoders had a hand in it, and compared with its sources;
- by streaming otherwise, or when that comparison fails: every frame is decoded and encoded, with no more in memory than
  the frame at hand and the look-ahead of the encoder.

Sound is not carried over.
"""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from source.errors import EngineError, GenerationCancelled, InvalidInput, InvalidMedia
from source.media.clips import Clip, Size
from source.media.crossfade import Crossfade, Pixels
from Wan2GP.media import (
    BT709_SIGNALLING,
    PacketRange,
    Planes,
    Signalling,
    VideoIndex,
    VideoWriter,
    concat_copy,
    decode,
    index_video,
    needs_sets_in_band,
)

log = logging.getLogger(__name__)

Method: TypeAlias = Literal["copy", "smart", "stream"]


@dataclass(frozen=True)
class Span:
    """The frames start..stop-1 of a clip."""

    clip: Clip
    start: int
    stop: int
    generated: bool = False

    @property
    def num_frames(self) -> int:
        return self.stop - self.start

    def planes(self, signalling: Signalling) -> Iterator[Planes]:
        return self.clip.planes(self.start, self.stop, signalling)


@dataclass(frozen=True)
class Fade:
    """The mixed frames of `before` turning into `after` over `length` frames; both spans hold just those."""

    before: Span
    after: Span
    crossfade: Crossfade
    length: int

    @property
    def num_frames(self) -> int:
        return self.after.num_frames

    def planes(self, signalling: Signalling) -> Iterator[Planes]:
        return self.crossfade.planes(self.before.planes(signalling), self.after.planes(signalling), self.length)


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
    signalling, copyable = _to_copy(pieces, size, fps)
    if copyable:
        watch = Watch(total, progress, cancelled)
        report = _by_copying(sections_of(pieces, copyable), output, _Target(size, fps, signalling), watch)
        if report is not None:
            return report
        log.warning("%s: the copied result did not match its sources; encoding it afresh", output.name)
    return _by_streaming(pieces, output, _Target(size, fps), Watch(total, progress, cancelled))


def _to_copy(pieces: Sequence[Piece], size: Size, fps: Fraction) -> tuple[Signalling, set[Clip]]:
    """The clips to copy from, and what they all say of their colours: the kind that saves encoding the most frames.

    First of originals, then of what was generated.
    """
    originals: Counter[Signalling] = Counter()
    saved: Counter[Signalling] = Counter()
    fit = {piece.clip for piece in pieces if isinstance(piece, Span) and can_be_copied(piece.clip, size, fps)}
    for section in sections_of(pieces, fit):
        for span in section.pieces if section.copied else ():
            assert isinstance(span, Span)
            said = span.clip.index.encoding.signalling
            saved[said] += span.num_frames
            originals[said] += 0 if span.generated else span.num_frames
    if not saved:
        return BT709_SIGNALLING, set()
    signalling = max(saved, key=lambda said: (originals[said], saved[said]))
    return signalling, {clip for clip in fit if clip.index.encoding.signalling == signalling}


def signalling_beside(clips: Sequence[Clip], size: Size, fps: Fraction) -> Signalling:
    """What a video should say of its colours to be copied together with the first of `clips` that can be copied."""
    said = (clip.index.encoding.signalling for clip in clips if can_be_copied(clip, size, fps))
    return next(said, BT709_SIGNALLING)


def can_be_copied(clip: Clip, size: Size, fps: Fraction) -> bool:
    """Whether packets of the clip may stand in a video of that size and rate beside those of our writer."""
    index = clip.index
    encoding = index.encoding
    shows_alike = clip.is_plain and encoding.size == size and encoding.fps == fps and index.has_constant_rate
    limited = encoding.pix_fmt == "yuv420p" and not encoding.signalling.full_range
    return shows_alike and limited and encoding.has_parameter_sets


def sections_of(pieces: Sequence[Piece], copyable: Collection[Clip]) -> list[Section]:
    """Part spans into packets to copy and rests to encode; neighbouring rests and fades become one section."""
    sections: list[Section] = []
    for piece, copied in (part for each in pieces for part in _parts(each, copyable)):
        if sections and not copied and not sections[-1].copied:
            sections[-1] = Section((*sections[-1].pieces, piece), copied=False)
        else:
            sections.append(Section((piece,), copied))
    return sections


def _parts(piece: Piece, copyable: Collection[Clip]) -> list[tuple[Piece, bool]]:
    """(part, whether it can be copied) of one piece, in order."""
    if isinstance(piece, Fade) or piece.clip not in copyable:
        return [(piece, False)]
    index = piece.clip.index
    begin = next((entry for entry in index.entry_points if entry >= piece.start), piece.stop)
    if begin >= piece.stop:
        return [(piece, False)]
    end = index.last_close(begin, piece.stop)
    bounds = ((piece.start, begin, False), (begin, end, True), (end, piece.stop, False))
    return [(replace(piece, start=start, stop=stop), copied) for start, stop, copied in bounds if start < stop]


@dataclass(frozen=True)
class _Target:
    size: Size
    fps: Fraction
    signalling: Signalling = BT709_SIGNALLING


def _by_copying(sections: Sequence[Section], output: Path, target: _Target, watch: Watch) -> SpliceReport | None:
    """The smart way; None when the result fails its check (the output is not there then)."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".splice-", dir=output.parent) as folder:
        joined = Path(folder) / "joined.mp4"
        try:
            ranges = _ranges(sections, Path(folder) / "encoded.mp4", target, watch)
            concat_copy(ranges, joined)
            if not _matches(index_video(joined), ranges):
                return None
        except (InvalidInput, InvalidMedia):
            # Not a verdict on the clips yet: the streaming way decodes every frame and says what is wrong.
            log.warning("%s: copying failed", output.name, exc_info=True)
            return None
        joined.replace(output)
    copied = sum(section.num_frames for section in sections if section.copied)
    encoded = sum(section.num_frames for section in sections) - copied
    return SpliceReport(copied + encoded, "smart" if encoded else "copy", copied, encoded)


def _ranges(sections: Sequence[Section], scratch: Path, target: _Target, watch: Watch) -> list[PacketRange]:
    """The packets of every section: of its clip when copied, of the scratch file when encoded."""
    fresh = [section for section in sections if not section.copied]
    ends = list(accumulate(section.num_frames for section in fresh))
    encoded: Iterator[PacketRange] = iter(())
    if fresh:
        pieces = [piece for section in fresh for piece in section.pieces]
        _encode(pieces, scratch, target, watch, keyframes=frozenset(ends))
        index = index_video(scratch)
        encoded = (PacketRange(index, start, stop) for start, stop in zip([0, *ends], ends, strict=False))
    ranges = []
    for section in sections:
        if section.copied:
            span = section.pieces[0]
            assert isinstance(span, Span)
            ranges.append(PacketRange(span.clip.index, span.start, span.stop))
            watch.step(span.num_frames)
        else:
            ranges.append(next(encoded))
    return ranges


def _matches(result: VideoIndex, ranges: Sequence[PacketRange]) -> bool:
    """Whether every frame has its exact time, and the result shows what its sources do where it is most in danger.

    Each seam is played across: the last frame before it and the first one behind it must be those of their sources.
    With several encoders also the middle of each range, found by seeking, as a player would that was set up by the
    parameter sets of another.
    """
    starts = list(accumulate((part.num_frames for part in ranges), initial=0))
    total = starts.pop()
    if result.info.num_frames != total or not result.has_constant_rate:
        return False
    mixed = needs_sets_in_band(ranges)
    lasts: list[Pixels] = []
    for start, part in zip(starts, ranges, strict=True):
        first = _picture(part.video, part.start)
        if not _shows(result, start - len(lasts), [*lasts, first]):
            return False
        half = part.num_frames // 2
        if mixed and not _shows(result, start + half, [_picture(part.video, part.start + half)]):
            return False
        lasts = [_picture(part.video, part.stop - 1)]
    return _shows(result, total - 1, lasts)


def _picture(video: VideoIndex, frame: int) -> Pixels:
    return np.asarray(next(decode(video, frame, frame + 1)).to_ndarray(), dtype=np.uint8)


def _shows(video: VideoIndex, start: int, pictures: Sequence[Pixels]) -> bool:
    """Whether the frames of a video from `start` on are these, to the last bit."""
    made = decode(video, start, start + len(pictures))
    return all(np.array_equal(frame.to_ndarray(), picture) for frame, picture in zip(made, pictures, strict=True))


def _by_streaming(pieces: Sequence[Piece], output: Path, target: _Target, watch: Watch) -> SpliceReport:
    starts = frozenset(accumulate(piece.num_frames for piece in pieces))
    _encode(pieces, output, target, watch, keyframes=starts)
    made = index_video(output).info.num_frames
    if made != watch.total:
        raise EngineError(f"{output} holds {made} frames instead of {watch.total}")
    return SpliceReport(made, "stream", 0, made)


def _encode(pieces: Sequence[Piece], output: Path, target: _Target, watch: Watch, keyframes: frozenset[int]) -> None:
    signalling = target.signalling
    with VideoWriter(output, fps=target.fps, size=target.size, keyframes=keyframes, signalling=signalling) as writer:
        for piece in pieces:
            for planes in piece.planes(signalling):
                writer.write_planes(planes)
                watch.step()
