"""What is read for a request before its turn comes, while the accelerator is at work on another one. No torch here.

The run finds here what it would read by itself, made by the same functions, and takes it: what was taken is held by
the run alone. What is not here it reads then.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

#: pixels that are read ahead for one request: 81 frames of 1280x720 of a control video and its mask are 522 MB
MOST_BYTES = 512 * 1024**2


class Ahead:
    """What was read for one request. One thread fills it, and then another one takes from it."""

    def __init__(self) -> None:
        self._read: dict[Hashable, Any] = {}
        #: by the identity of a picture, which is kept so that no other can have it; or by path
        self._digests: dict[int | Path, tuple[Any, str]] = {}
        self.num_bytes = 0

    def keep(self, key: Hashable, num_bytes: int, read: Callable[[], Any]) -> None:
        """Read what takes at most `num_bytes`, if there is room for so much beside what was read before."""
        if self.num_bytes + num_bytes <= MOST_BYTES:
            self._read[key] = read()
            self.num_bytes += num_bytes

    def take(self, key: Hashable) -> Any:
        """What was kept under that key, once; None when nothing is."""
        return self._read.pop(key, None)

    def remember(self, media: Iterable[Any], digest: Callable[[Any], str]) -> None:
        """Note the digests of pictures and files."""
        for each in media:
            if isinstance(each, (np.ndarray, Path)):
                self._digests[_name(each)] = (each, digest(each))

    def digest(self, value: Any) -> str | None:
        """The digest of a picture or a file, when it was noted."""
        known = self._digests.get(_name(value)) if isinstance(value, (np.ndarray, Path)) else None
        return known[1] if known is not None else None


def _name(value: np.ndarray | Path) -> int | Path:
    return value if isinstance(value, Path) else id(value)
