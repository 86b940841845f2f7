"""Whether an output is the media that a task handed in: the same samples or pixels, whatever its metadata say."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from Wan2GP.media.digest import content_digest

_PICTURES = {".png", ".jpg", ".jpeg", ".webp"}


def same_media(output: Path, given: Path | bytes) -> bool:
    """Pictures by their pixels, videos by the packets of all streams."""
    if isinstance(given, bytes) or output.suffix.lower() in _PICTURES:
        return bool(np.array_equal(_pixels(output), _pixels(given)))
    return content_digest(output) == content_digest(given)


def _pixels(picture: Path | bytes) -> np.ndarray:
    with Image.open(io.BytesIO(picture) if isinstance(picture, bytes) else picture) as image:
        return np.asarray(image)
