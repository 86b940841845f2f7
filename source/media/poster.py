"""The poster of a video: the picture that stands for it before it plays."""

from __future__ import annotations

from pathlib import Path

from Wan2GP.media import read_frame, write_image


def poster(video: str | Path, output: str | Path) -> Path:
    """Write the first frame of a video as the JPEG (or PNG) `output`, at its size. Raises InvalidMedia."""
    return write_image(output, read_frame(video, 0))
