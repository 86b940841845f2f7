"""Motion between two frames, and its picture on the colour wheel."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from Wan2GP.media.images import Frame

#: a motion of this share of the picture's diagonal has the full colour; 30 pixels at 832x480
FULL_MOTION = 1 / 32

#: colours of the wheel between red, yellow, green, cyan, blue, magenta and red again (Baker et al. 2007)
_ARCS = (15, 6, 4, 11, 13, 6)
_CORNERS = ((255, 0, 0), (255, 255, 0), (0, 255, 0), (0, 255, 255), (0, 0, 255), (255, 0, 255))
#: the wheel is read in this many steps around
_ANGLES = 2048

Flow = NDArray[np.float32]


def motion(first: Frame, second: Frame) -> Flow:
    """Where the pixels of `first` are in `second`: (H, W, 2) float32, pixels to the right and down (OpenCV's DIS)."""
    if first is second:
        return np.zeros((*first.shape[:2], 2), np.float32)
    before, after = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (first, second))
    # A new one for each pair: what one of them remembers would make a frame depend on those before it.
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    rest = np.zeros((*first.shape[:2], 2), np.float32)
    return np.asarray(search.calc(before, after, rest), dtype=np.float32)


def flow_picture(flow: Flow) -> Frame:
    """A motion field (H, W, 2) in pixels as colours: the direction on the wheel of Baker et al. 2007, white for rest.

    To the right is red, down yellow, to the left cyan to blue, up violet. The colour is full at FULL_MOTION of the
    diagonal, for every picture alike; beyond that it is darker by a quarter.
    """
    height, width = flow.shape[:2]
    magnitude, angle = cv2.cartToPolar(flow[..., 0], flow[..., 1])
    share = magnitude / np.float32(FULL_MOTION * np.hypot(height, width))
    hue = _wheel()[np.rint(angle * (_ANGLES / (2 * np.pi))).astype(np.int32) % _ANGLES]
    inside = 255 - np.minimum(share, 1)[..., None] * (255 - hue)
    picture = np.where((share > 1)[..., None], hue * np.float32(0.75), inside)
    return np.asarray(np.rint(picture), dtype=np.uint8)


@cache
def _wheel() -> NDArray[np.float32]:
    """(_ANGLES, 3) RGB by direction, clockwise on the screen from "to the right"."""
    stops = np.cumsum((0, *_ARCS))
    corners = np.array([*_CORNERS, _CORNERS[0]], np.float32)
    around = np.arange(_ANGLES) / _ANGLES * stops[-1]
    return np.stack([np.interp(around, stops, channel) for channel in corners.T], axis=1).astype(np.float32)
