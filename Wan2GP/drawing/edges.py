"""Edges of a frame: thin white lines (Canny, 1986), or the broader and fewer lines of a scribble."""

from __future__ import annotations

import cv2
import numpy as np

from Wan2GP.media.images import Frame

#: gradients of an edge: above the second one it begins, down to the first one it goes on
CANNY_THRESHOLDS = (100, 200)

#: a scribble is drawn from a picture smoothed by this share of its shorter side: what is finer leaves no line
_SMOOTHING = 1 / 170
#: lines of a scribble are this share of the shorter side broad, and at least as broad as …
_STROKE = 1 / 160
#: … so many pixels
_LEAST_STROKE = 2
#: lines shorter than this share of the sum of both sides are left out
_LEAST_LENGTH = 1 / 24


def edge_picture(frame: Frame, intensity: float = 1.0) -> Frame:
    """The edges of a frame, white times `intensity` on black (Canny, 1986).

    The predecessor drew them with a scribble network: fewer, softer lines. Above 1 the intensity changes nothing.
    """
    edges = cv2.Canny(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), *CANNY_THRESHOLDS)
    scaled = cv2.convertScaleAbs(edges, alpha=intensity)
    return np.asarray(cv2.cvtColor(scaled, cv2.COLOR_GRAY2RGB), dtype=np.uint8)


def scribble_picture(frame: Frame) -> Frame:
    """The outlines of a frame as a broad pen would draw them: white on black.

    Edges of the smoothed picture without the short ones, at thresholds that follow its own contrast, thickened. It
    stands for the scribble network of the predecessor and is not that network: it knows contrasts, no objects.
    """
    height, width = frame.shape[:2]
    side = min(height, width)
    grey = cv2.GaussianBlur(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), (0, 0), max(0.8, side * _SMOOTHING))
    lines = _without_short_ones(_outlines(grey), (height + width) * _LEAST_LENGTH)
    stroke = max(_LEAST_STROKE, round(side * _STROKE))
    pen = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (stroke, stroke))
    drawn = cv2.dilate(lines, pen)
    return np.asarray(cv2.cvtColor(drawn, cv2.COLOR_GRAY2RGB), dtype=np.uint8)


def _outlines(grey: np.ndarray) -> np.ndarray:
    """Edges whose gradients stand out in this picture, and at least those that anybody would call an edge."""
    right, down = (cv2.Sobel(grey, cv2.CV_16S, *order) for order in ((1, 0), (0, 1)))
    strength = np.abs(right.astype(np.int32)) + np.abs(down)
    upper = max(40.0, float(np.percentile(strength, 82)))
    return cv2.Canny(right, down, upper * 0.4, upper)


def _without_short_ones(lines: np.ndarray, least: float) -> np.ndarray:
    count, labels, statistics, _ = cv2.connectedComponentsWithStats(lines, connectivity=8)
    keeps = statistics[:, cv2.CC_STAT_AREA] >= least
    keeps[0] = False
    return np.where(keeps[labels], np.uint8(255), np.uint8(0)) if count > 1 else lines
