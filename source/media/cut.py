"""Frame-exact cutting."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from source.errors import InvalidInput
from source.media.assemble import Part, assemble
from source.media.clips import Clip
from source.media.splice import SpliceReport


def cut(
    path: str | Path,
    start: int,
    stop: int,
    output: str | Path,
    *,
    progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> SpliceReport:
    """Write the frames start..stop-1 of a video into the mp4 `output`, at the same size and frame rate, without sound.

    In H.264 mp4 whole GOPs are copied untouched and only the broken ones at the ends are encoded; any other video is
    encoded frame by frame. `progress(done, total)` counts frames; `cancelled()` is asked at each.

    Raises InvalidInput for a range that is empty or outside the video, InvalidMedia for a bad file.
    """
    clip = Clip.open(path)
    num_frames = clip.num_frames
    if not 0 <= start < stop <= num_frames:
        raise InvalidInput(f"cannot cut frames {start} to {stop} out of {path}: it has {num_frames} frames")
    return assemble(
        [Part(clip, start, stop)],
        Path(output),
        size=clip.size,
        fps=clip.fps,
        progress=progress,
        cancelled=cancelled,
    )
