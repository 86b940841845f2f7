"""Frames between two frames: how far the pictures show the same scene, optical flow, and the cross-dissolve. No torch.

Interpolators warp one picture towards the other. Between pictures of different scenes that only smears, so the share of
pixels whose motion is consistent decides how much of the interpolation is shown, and how much of a plain dissolve.
Between neighbouring frames of a video a cut is a cut: nothing is mixed there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import cv2
import numpy as np

from Wan2GP.engine.families import Cancel, Place
from Wan2GP.engine.interpolation.rife_weights import FETCH_COMMAND, weights_path
from Wan2GP.engine.request import Frame

#: Below the first share of consistent motion two pictures are different scenes, above the second one scene. Measured at
#: 416x240: unrelated photos 0.04-0.06; one clip 3 s apart 0.71; turned by 10 degrees and zoomed by 1.2, 0.75.
UNRELATED, RELATED = 0.2, 0.6

#: flow is compared at this size at most: enough to tell scenes apart, and fast
_COMPARED_SIDE = 416
#: frames whose mean difference is below this, in levels of 255 and at this width, are one scene without a closer look
_ALIKE, _GLANCED_WIDTH = 8.0, 64


class Interpolator(Protocol):
    """Draws frames between two frames."""

    name: str

    def between(self, first: Frame, second: Frame, times: Sequence[float], cancel: Cancel) -> Iterator[Frame]:
        """Frames at `times` (ascending, between 0 and 1), like the inputs in shape and type.

        Raises GenerationCancelled, at the latest before the next frame.
        """


class OpticalFlow:
    """Both pictures warped along dense optical flow (DIS: Kroeger et al., ECCV 2016) and blended by time."""

    name = "optical flow"

    def between(self, first: Frame, second: Frame, times: Sequence[float], cancel: Cancel) -> Iterator[Frame]:
        """RGB uint8 frames at `times`; the flow is computed once for all of them."""
        forward, backward = _flows(first, second)
        for time in times:
            cancel.raise_if_requested()
            from_first = _warped(first, -time * forward)
            from_second = _warped(second, -(1 - time) * backward)
            yield cv2.addWeighted(from_first, 1 - time, from_second, time, 0)


class Blend:
    """An interpolator that fades into a cross-dissolve where the two pictures share too little."""

    def __init__(self, interpolator: Interpolator) -> None:
        self._interpolator = interpolator
        self.name = interpolator.name
        #: how much of the latest pair was interpolated: 1 all of it, 0 nothing (dissolved)
        self.share = 1.0

    def between(self, first: Frame, second: Frame, times: Sequence[float], cancel: Cancel) -> Iterator[Frame]:
        """RGB uint8 frames at `times`."""
        if not times:
            return
        trust = self.share = interpolation_share(first, second)
        dissolved = (cv2.addWeighted(first, 1 - time, second, time, 0) for time in times)
        if trust == 0:
            yield from dissolved
            return
        for moved, faded in zip(self._interpolator.between(first, second, times, cancel), dissolved, strict=True):
            yield moved if trust == 1 else cv2.addWeighted(moved, trust, faded, 1 - trust, 0)


class Steps:
    """An interpolator for the steps of a video: at a cut, the nearer of both frames is shown."""

    def __init__(self, interpolator: Interpolator) -> None:
        self._interpolator = interpolator
        self.name = interpolator.name
        #: whether the latest pair was a cut
        self.cut = False

    def between(self, first: Frame, second: Frame, times: Sequence[float], cancel: Cancel) -> Iterator[Frame]:
        """RGB uint8 frames at `times`."""
        self.cut = bool(times) and is_cut(first, second)
        if self.cut:
            yield from (first if time <= 0.5 else second for time in times)
        else:
            yield from self._interpolator.between(first, second, times, cancel)


def load_interpolator(place: Place, who: str) -> tuple[Interpolator, tuple[str, ...]]:
    """RIFE; or, where its weights are missing, optical flow, and a note that says so and how to get them.

    `who` draws with it. Raises ModelUnavailable for weights that are not those that were tested.
    """
    weights = weights_path(place.checkpoints)
    if not weights.is_file():
        note = (
            f"{who} draws motion by optical flow: RIFE's weights are not at {weights}. "
            f"Fetch them with: {FETCH_COMMAND} --ckpts {place.checkpoints}"
        )
        return OpticalFlow(), (note,)
    from Wan2GP.engine.interpolation.rife import Rife

    return Rife(weights, place.device), ()


def is_cut(first: Frame, second: Frame) -> bool:
    """Whether neighbouring frames of a video show different scenes."""
    glanced = (
        cv2.resize(frame, (_GLANCED_WIDTH, _GLANCED_WIDTH), interpolation=cv2.INTER_AREA) for frame in (first, second)
    )
    if np.abs(np.subtract(*(frame.astype(np.float32) for frame in glanced))).mean() < _ALIKE:
        return False
    return consistent_share(first, second) < UNRELATED


def interpolation_share(first: Frame, second: Frame) -> float:
    """0 for different scenes, 1 for one scene in motion, smooth between."""
    share = (consistent_share(first, second) - UNRELATED) / (RELATED - UNRELATED)
    share = min(max(share, 0.0), 1.0)
    return share * share * (3 - 2 * share)


def consistent_share(first: Frame, second: Frame) -> float:
    """The share (0-1) of pixels that the backward flow brings back to where the forward flow took them from.

    |f + b|^2 < 0.01 (|f|^2 + |b|^2) + 0.5, in pixels: Sundaram, Brox, Keutzer, ECCV 2010, equation 5.
    """
    forward, backward = _flows(_small(first), _small(second))
    returned = cv2.remap(backward, *_positions(forward), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    error = np.square(forward + returned).sum(-1)
    limit = 0.01 * (np.square(forward).sum(-1) + np.square(returned).sum(-1)) + 0.5
    return float((error < limit).mean())


def dissolve_remarks(dissolves: Sequence[tuple[int, int, float]]) -> tuple[str, ...]:
    """Which frames (first, last, share of interpolation) are no interpolation alone, and why, for the user."""
    whole = [(first, last) for first, last, share in dissolves if share == 0]
    partly = [(first, last) for first, last, share in dissolves if share > 0]
    return (
        *_remark(whole, "the pictures show different scenes; dissolved"),
        *_remark(partly, "the pictures have little in common; partly dissolved"),
    )


def _remark(ranges: Sequence[tuple[int, int]], what: str) -> tuple[str, ...]:
    frames = ", ".join(f"{first}-{last}" if first < last else f"{first}" for first, last in ranges)
    return (f"frames {frames}: {what}",) if ranges else ()


def _small(frame: Frame) -> Frame:
    scale = _COMPARED_SIDE / max(frame.shape[:2])
    return frame if scale >= 1 else cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def _flows(first: Frame, second: Frame) -> tuple[np.ndarray, np.ndarray]:
    """(H, W, 2) float32 in pixels: where each pixel of the first goes in the second, and the other way."""
    grey_first, grey_second = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (first, second))
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return flow.calc(grey_first, grey_second, None), flow.calc(grey_second, grey_first, None)


def _warped(frame: Frame, offset: np.ndarray) -> Frame:
    return cv2.remap(frame, *_positions(offset), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _positions(offset: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    height, width = offset.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return x + offset[..., 0], y + offset[..., 1]
