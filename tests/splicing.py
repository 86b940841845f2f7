"""Whole clips one after another, and one piece of a clip, as tests write them down."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from source.media.assemble import Part, assemble
from source.media.clips import Clip
from source.media.crossfade import Crossfade, CrossfadeMode
from source.media.splice import SpliceReport


def stitch(
    clips: Sequence[str | Path],
    overlaps: Sequence[int],
    output: Path,
    *,
    mode: CrossfadeMode = "ease",
    sharp_amount: float = 0.3,
    progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> SpliceReport:
    """The clips at the size and rate of the first, frame for frame, neighbours cross-faded over their overlap."""
    first = Clip.open(clips[0])
    seen = [Clip.open(clip, fps=first.fps, size=first.size, fps_tolerance=math.inf) for clip in clips]
    parts = [Part(clip, 0, clip.num_frames, fade) for clip, fade in zip(seen, [0, *overlaps], strict=True)]
    fading = Crossfade(mode, sharp_amount)
    return assemble(
        parts, output, size=first.size, fps=first.fps, crossfade=fading, progress=progress, cancelled=cancelled
    )


def cut(path: Path, start: int, stop: int, output: Path) -> SpliceReport:
    """The frames start..stop-1 of a video."""
    clip = Clip.open(path)
    return assemble([Part(clip, start, stop)], output, size=clip.size, fps=clip.fps)
