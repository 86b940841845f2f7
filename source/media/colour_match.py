"""Colour match: every frame takes on the mean and spread of colour of a start picture, then of an end picture.

The formula, for frame i of n with t = i / (n - 1) (0 for a clip of one frame):

    faded   the frame with half its HSV saturation: (frame + max(R, G, B)) / 2
    S, E    `faded` in CIE LAB, each channel (x - mean) * ratio + mean of the picture, back in RGB; `ratio` is the
            picture's standard deviation over that of `faded`, at least 0.1 for L and 0.4 for a and b; a channel
            without any spread becomes the picture's mean
    result  w_start * S + w_end * E + w_own * frame, with w_own = 0.5 t before the middle and 0.5 - 0.5 t after it,
            w_start = (1 - t)(1 - w_own), w_end = t (1 - w_own)

The fast path: LAB in 8 bits, where a transfer is a table of 256 entries a channel, in buffers that are used again. Mean
and deviation are those of each frame, as the formula has it, and not of the whole clip: a clip that goes from a red
picture to a blue one has no one mean, and with it both its ends would be thrown off. They cost a tenth of the work,
since the LAB picture is needed anyway, and so one pass over the clip is enough.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from source.media.images import load_fitted
from Wan2GP.media import Frame

Array: TypeAlias = NDArray[np.float64]

#: share of its HSV saturation that a frame keeps before the transfer
KEPT_SATURATION = 0.5
#: least factor by which the spread of L, a and b is scaled
RATIO_FLOORS: Array = np.array([0.1, 0.4, 0.4])
#: a smaller deviation, in levels of 255, is none
NO_SPREAD = 1e-3


@dataclass(frozen=True, eq=False)
class LabStatistics:
    """Mean and standard deviation of L, a and b, each (3,), in levels of OpenCV's 8-bit LAB."""

    mean: Array
    deviation: Array

    @classmethod
    def of(cls, lab: Frame) -> LabStatistics:
        """Those of a picture (H, W, 3) uint8 in 8-bit LAB."""
        mean, deviation = cv2.meanStdDev(lab)
        return cls(np.asarray(mean, np.float64).ravel(), np.asarray(deviation, np.float64).ravel())

    def table_to(self, target: LabStatistics) -> Frame:
        """The transfer to `target` as a table for cv2.LUT, (1, 256, 3) uint8."""
        spread = self.deviation > NO_SPREAD
        ratio = np.maximum(target.deviation / np.where(spread, self.deviation, 1.0), RATIO_FLOORS) * spread
        levels = (np.arange(256)[:, None] - self.mean) * ratio + target.mean
        return np.asarray(np.rint(levels).clip(0, 255)[None], np.uint8)


def weights(index: int, num_frames: int) -> tuple[float, float, float]:
    """(w_start, w_end, w_own) of the frame `index`; they add up to 1."""
    t = index / (num_frames - 1) if num_frames > 1 else 0.0
    own = 0.5 * t if t < 0.5 else 0.5 - 0.5 * t
    return (1 - t) * (1 - own), t * (1 - own), own


class ColourMatch:
    """Matches the frames of one clip of `num_frames` at `size` = (width, height).

    Where one of the two pictures is missing, its share goes to the frame as it is: the match fades in or out.
    Raises InvalidMedia for a picture that cannot be read.
    """

    def __init__(self, start: Path | None, end: Path | None, *, num_frames: int, size: tuple[int, int]) -> None:
        self._targets = [reference(path, size) if path else None for path in (start, end)]
        self._num_frames = num_frames
        width, height = size
        self._faded, self._lab, self._matched = (np.empty((height, width, 3), np.uint8) for _ in range(3))
        self._channels = [np.empty((height, width), np.uint8) for _ in range(3)]

    def frame(self, frame: Frame, index: int) -> Frame:
        """The matched frame `index`, RGB (H, W, 3) uint8. It lies in a buffer that the next call fills anew; where no
        picture has a share, it is `frame` itself.
        """
        shares = weights(index, self._num_frames)[:2]
        wanted = [(target, w) for target, w in zip(self._targets, shares, strict=True) if target is not None and w]
        if not wanted:
            return frame
        cv2.cvtColor(self._half_saturated(frame), cv2.COLOR_RGB2LAB, dst=self._lab)
        own = LabStatistics.of(self._lab)
        matched, total = None, 0.0
        for target, share in wanted:
            total += share
            taken = self._transfer(own.table_to(target), self._matched if matched is None else self._faded)
            matched = taken if matched is None else _mixed(matched, taken, share / total, matched)
        assert matched is not None
        return _mixed(frame, matched, total, matched)

    def _half_saturated(self, frame: Frame) -> Frame:
        largest, *others = (cv2.extractChannel(frame, c, dst=buffer) for c, buffer in enumerate(self._channels))
        for other in others:
            cv2.max(largest, other, dst=largest)
        cv2.cvtColor(largest, cv2.COLOR_GRAY2RGB, dst=self._faded)
        return _mixed(self._faded, frame, KEPT_SATURATION, self._faded)

    def _transfer(self, table: Frame, buffer: Frame) -> Frame:
        cv2.LUT(self._lab, table, dst=buffer)
        return np.asarray(cv2.cvtColor(buffer, cv2.COLOR_LAB2RGB, dst=buffer), np.uint8)


def reference(path: Path, size: tuple[int, int]) -> LabStatistics:
    """The colours of a picture, stretched to `size` as the clip shows it."""
    return LabStatistics.of(np.asarray(cv2.cvtColor(load_fitted(path, size), cv2.COLOR_RGB2LAB), np.uint8))


def _mixed(first: Frame, second: Frame, share: float, into: Frame | None = None) -> Frame:
    """(1 - share) * first + share * second, rounded."""
    return np.asarray(cv2.addWeighted(first, 1 - share, second, share, 0, dst=into), np.uint8)
