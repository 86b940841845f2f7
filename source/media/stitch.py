"""Joining clips into one video, neighbours cross-faded over their overlap."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from source.errors import InvalidInput
from source.media.assemble import Part, assemble
from source.media.clips import Clip
from source.media.crossfade import Crossfade, CrossfadeMode
from source.media.splice import SpliceReport
from Wan2GP.media import VideoIndex

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
    mode          how shared frames mix: "ease", "equal_power" (another name of it), "linear" or "linear_sharp"
                  (`sharp_amount` of unsharp mask)
    progress      called with (frames done, frames in all)
    cancelled     asked at each encoded frame; GenerationCancelled is raised when it says yes

    Size and frame rate are the first clip's: others are resized, and keep their number of frames. H.264 clips of that
    size and rate keep their whole GOPs untouched. Everything is checked before a byte is written.

    Raises InvalidInput for overlaps that do not fit, InvalidMedia for a clip that cannot be read.
    """
    crossfade = Crossfade(mode, sharp_amount)
    if not clips:
        raise InvalidInput("there are no clips to stitch")
    first = Clip.open(clips[0])
    seen = [first, *(Clip.open(c, fps=first.fps, size=first.size, fps_tolerance=math.inf) for c in clips[1:])]
    check_overlaps([clip.index for clip in seen], overlaps)
    return assemble(
        [Part(clip, 0, clip.num_frames, fade) for clip, fade in zip(seen, [0, *overlaps], strict=True)],
        Path(output),
        size=first.size,
        fps=first.fps,
        crossfade=crossfade,
        progress=progress,
        cancelled=cancelled,
    )


def check_overlaps(clips: Sequence[VideoIndex], overlaps: Sequence[int]) -> None:
    """Raise InvalidInput unless there is one overlap for each join and every clip is as long as its two overlaps."""
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
