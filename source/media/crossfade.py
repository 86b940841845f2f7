"""Cross-fades: how much of the second clip each blended frame holds, and the blending itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from Wan2GP.errors import InvalidInput, did_you_mean

CrossfadeMode: TypeAlias = Literal["ease", "equal_power", "linear", "linear_sharp"]
MODES: tuple[CrossfadeMode, ...] = ("ease", "equal_power", "linear", "linear_sharp")

#: pixels, of the blur that the unsharp mask subtracts
SHARPEN_SIGMA = 3.0

Pixels: TypeAlias = NDArray[np.uint8]


def weights(num_frames: int, mode: CrossfadeMode = "ease") -> NDArray[np.float64]:
    """The share of the second clip in each of `num_frames` blended frames, rising to exactly 1 at the last.

    With t = (k + 1) / num_frames: t for the linear modes, (1 - cos(pi t)) / 2 for "ease", which front
    ends also call "equal_power".
    """
    t = np.arange(1, num_frames + 1) / max(num_frames, 1)
    return (1 - np.cos(np.pi * t)) / 2 if mode in ("ease", "equal_power") else t


def blend(first: Pixels, second: Pixels, alpha: float) -> Pixels:
    """(1 - alpha) * first + alpha * second, rounded. Both uint8 of one shape, RGB or yuv420p planes."""
    return np.asarray(cv2.addWeighted(first, 1 - alpha, second, alpha, 0), dtype=np.uint8)


def sharpen(frame: Pixels, amount: float, sigma: float = SHARPEN_SIGMA) -> Pixels:
    """Unsharp mask: (1 + amount) * frame - amount * gauss(frame, sigma). For (H, W) or (H, W, 3) uint8."""
    blurred = cv2.GaussianBlur(frame, (0, 0), sigma)
    return np.asarray(cv2.addWeighted(frame, 1 + amount, blurred, -amount, 0), dtype=np.uint8)


def sharpen_planes(planes: Pixels, amount: float) -> Pixels:
    """`sharpen` for yuv420p planes (H * 3 / 2, W): each plane alone, the blur halved for the half-size U and V.

    The matrix between RGB and YUV is linear, so this is the unsharp mask of the RGB picture but for clipping.
    """
    width = planes.shape[1]
    height = planes.shape[0] * 2 // 3
    luma = sharpen(planes[:height], amount)
    chroma = planes[height:].reshape(2, height // 2, width // 2)
    halves = [sharpen(plane, amount, SHARPEN_SIGMA / 2) for plane in chroma]
    return np.concatenate([luma, np.stack(halves).reshape(height // 2, width)])


@dataclass(frozen=True)
class Crossfade:
    """How one clip turns into the next. `sharp_amount` counts in mode "linear_sharp" alone."""

    mode: CrossfadeMode = "ease"
    sharp_amount: float = 0.3

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise InvalidInput(f"{self.mode!r} is no cross-fade.{did_you_mean(self.mode, MODES)} There are: {MODES}")

    @property
    def sharpens(self) -> bool:
        return self.mode == "linear_sharp" and self.sharp_amount > 0

    def mixed_frames(self, num_frames: int) -> int:
        """How many of the frames of a fade are mixed: the last is the second clip's own, unless it is sharpened."""
        return num_frames if self.sharpens else max(num_frames - 1, 0)

    def planes(self, first: Iterable[Pixels], second: Iterable[Pixels], num_frames: int) -> Iterator[Pixels]:
        """The mixed frames of a fade over `num_frames` frames, one pair of yuv420p frames at a time."""
        alphas = weights(num_frames, self.mode)[: self.mixed_frames(num_frames)]
        for before, after, alpha in zip(first, second, alphas, strict=True):
            mixed = blend(before, after, float(alpha))
            yield sharpen_planes(mixed, self.sharp_amount * float(alpha)) if self.sharpens else mixed
