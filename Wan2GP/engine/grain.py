"""Film grain: noise that is strongest in the middle tones, as in a print, and leaves black black and white white.

Every channel of a pixel of luma Y (0-1) moves by a normal deviate of the standard deviation

    STRENGTH * intensity * 4 Y (1 - Y)      levels of 255

made of one deviate that the three channels share and one of their own, so mixed that the saturation decides how much of
it is colour and never how much there is:

    (s own + (1 - s) shared) / sqrt(s^2 + (1 - s)^2)

Frame k of seed n always has the same grain, whatever comes before it. No torch here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np

from Wan2GP.media import Frame

#: standard deviation in the middle tones at intensity 1, in levels of 255
STRENGTH = 32.0
#: begins the random numbers of grain, so that they are not those of something else with the same seed
_DOMAIN = 0x6772616E

Weights = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class Grain:
    """The grain of one run. `intensity` and `saturation` are shares, 0 to 1."""

    intensity: float
    saturation: float
    seed: int

    @cached_property
    def _deviation(self) -> Weights:
        """(256,): levels by luma."""
        luma = np.arange(256, dtype=np.float32) / 255
        return np.asarray(STRENGTH * self.intensity * 4 * luma * (1 - luma), np.float32)

    def on(self, frame: Frame, number: int) -> Frame:
        """Frame `number` of the run with grain, (H, W, 3) uint8."""
        if not self.intensity:
            return frame
        height, width = frame.shape[:2]
        random = np.random.default_rng((_DOMAIN, self.seed, number))
        shared = random.standard_normal((height, width, 1), np.float32)
        s, rest = self.saturation, 1 - self.saturation
        mixed = rest * shared
        if s:
            mixed = mixed + s * random.standard_normal((height, width, 3), np.float32)
        deviation = cv2.LUT(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), self._deviation)
        moved = frame + mixed * (deviation / math.hypot(s, rest))[..., None]
        return np.asarray(np.rint(moved).clip(0, 255), np.uint8)
