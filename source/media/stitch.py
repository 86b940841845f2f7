"""Joining clips into one video, neighbours cross-faded over their overlap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from source.errors import InvalidInput
from source.media.crossfade import Crossfade, CrossfadeMode
from source.media.splice import Fade, Piece, Span, SpliceReport, splice
from Wan2GP.media import VideoIndex, index_video

StitchReport: TypeAlias = SpliceReport


def stitch(
    clips: Sequence[str | Path],
    overlaps: Sequence[int],
    output: str | Path,
    *,
    mode: CrossfadeMode = "ease",
    sharp_amount: float = 0.3,
    progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> StitchReport:
    """Join `clips` into the mp4 `output`: sum of their frames minus sum of `overlaps`, exactly. Sound is dropped.

    overlaps      frames that clip i and clip i + 1 share, one number for each join; 0 is a plain cut
    mode          how shared frames mix: "ease", "linear" or "linear_sharp" (`sharp_amount` of unsharp mask)
    progress      called with (frames done, frames in all)
    cancelled     asked at each encoded frame; GenerationCancelled is raised when it says yes

    Size and frame rate are the first clip's: others are resized, and keep their number of frames. Clips that our writer
    made with the same settings keep their whole GOPs untouched. Everything is checked before a byte is written.

    Raises InvalidInput for overlaps that do not fit, InvalidMedia for a clip that cannot be read.
    """
    crossfade = Crossfade(mode, sharp_amount)
    indexes = [index_video(clip) for clip in clips]
    check_overlaps(indexes, overlaps)
    first = indexes[0].info
    return splice(
        pieces_of(indexes, overlaps, crossfade),
        Path(output),
        size=(first.width, first.height),
        fps=first.fps,
        progress=progress,
        cancelled=cancelled,
    )


def check_overlaps(clips: Sequence[VideoIndex], overlaps: Sequence[int]) -> None:
    """Raise InvalidInput unless there is one overlap for each join and every clip is as long as its two overlaps."""
    if not clips:
        raise InvalidInput("there are no clips to stitch")
    if len(overlaps) != len(clips) - 1:
        raise InvalidInput(f"{len(clips)} clips need {len(clips) - 1} overlaps, but {len(overlaps)} were given")
    if any(overlap < 0 for overlap in overlaps):
        raise InvalidInput(f"overlaps cannot be negative: {list(overlaps)}")
    for clip, before, after in zip(clips, [0, *overlaps], [*overlaps, 0], strict=True):
        if before + after > clip.info.num_frames:
            raise InvalidInput(
                f"{clip.info.path} has {clip.info.num_frames} frames, too few for overlaps of {before} before it and "
                f"{after} after it; use smaller overlaps or longer clips"
            )


def pieces_of(clips: Sequence[VideoIndex], overlaps: Sequence[int], crossfade: Crossfade) -> list[Piece]:
    """The edit list: what each clip shows alone, then the fade into the next one."""
    pieces: list[Piece] = []
    for i, clip in enumerate(clips):
        start = overlaps[i - 1] if i else 0
        stop = clip.info.num_frames - (overlaps[i] if i < len(overlaps) else 0)
        pieces.append(Span(clip, start, stop))
        if i < len(overlaps):
            fade_in = Span(clips[i + 1], 0, overlaps[i])
            pieces.append(Fade(Span(clip, stop, clip.info.num_frames), fade_in, crossfade))
    return pieces
