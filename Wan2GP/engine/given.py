"""Pictures and files that a call was given. No torch here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from Wan2GP.errors import InvalidInput, Unsupported
from Wan2GP.media import Frame, read_image


def picture(value: Any, field: str) -> Frame | None:
    """A path, a PIL image, an array, or a list of one of these -> RGB uint8."""
    found = pictures(value, field)
    if len(found) > 1:
        raise Unsupported(f"takes one image, not {len(found)}", field=field)
    return found[0] if found else None


def pictures(value: Any, field: str) -> tuple[Frame, ...]:
    """One or several of what `picture` takes -> RGB uint8 pictures (H, W, 3)."""
    if value is None or (isinstance(value, str) and not value):
        return ()
    items = value if isinstance(value, (list, tuple)) else [value]
    return tuple(_decoded(item, field) for item in items if item is not None)


def path(value: Any, field: str) -> Path | None:
    """A file's path, or None."""
    if value is None or value == "":
        return None
    if not isinstance(value, (str, Path)):
        raise InvalidInput(f"must be the path of a file, not {type(value).__name__}", field=field)
    return Path(value)


def mode(value: Any, field: str) -> int:
    """The number of one of a model's modes; 0 where nothing was said."""
    if value in (None, ""):
        return 0
    try:
        return int(value)
    except (TypeError, ValueError):
        raise InvalidInput(f"must be one of the model's numbered modes, not {value!r}", field=field) from None


def _decoded(value: Any, field: str) -> Frame:
    if isinstance(value, (str, Path)):
        return read_image(Path(value))
    # A copy: what a PIL image shows as an array cannot be written to, which torch warns of.
    found = np.array(value.convert("RGB")) if hasattr(value, "convert") else np.asarray(value)
    if found.ndim != 3 or found.shape[2] != 3 or found.dtype != np.uint8:
        raise InvalidInput(
            f"must be a path, a PIL image or an RGB uint8 array, not {found.dtype} {found.shape}", field=field
        )
    return found
