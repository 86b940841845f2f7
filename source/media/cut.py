"""Frame-exact cutting."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from source.errors import InvalidInput
from source.media.splice import Span, SpliceReport, splice
from Wan2GP.media import index_video


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

    In a video that our writer made, whole GOPs are copied untouched and only the broken ones at the ends are encoded;
    any other video is encoded frame by frame. `progress(done, total)` counts frames; `cancelled()` is asked at each.

    Raises InvalidInput for a range that is empty or outside the video, InvalidMedia for a bad file.
    """
    clip = index_video(path)
    num_frames = clip.info.num_frames
    if not 0 <= start < stop <= num_frames:
        raise InvalidInput(f"cannot cut frames {start} to {stop} out of {path}: it has {num_frames} frames")
    size = (clip.info.width, clip.info.height)
    return splice(
        [Span(clip, start, stop)], Path(output), size=size, fps=clip.info.fps, progress=progress, cancelled=cancelled
    )
