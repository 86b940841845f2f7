"""What a clip shows: colour, shape and direction, measured from its pixels alone. No model is involved.

Colour: the nearest mean colour. Shape: the area over the bounding box (square 1, circle 0.785, triangle 0.5).
Direction: the way the centroid goes. On drawn ground truth it is right for every prompt, so it can serve as a test.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.tiny_wan.shapes import COLOURS, DIRECTIONS, GROUND

#: area of a shape over the area of its bounding box, between which the nearest wins
FILL = {"square": 1.0, "circle": np.pi / 4, "triangle": 0.5}
#: a pixel belongs to the shape when it is at least this much of the way from the ground to the shape's colour
HALF = 0.5
LEAST_AREA = 25

Frames = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Verdict:
    """What was seen; None where nothing could be made out."""

    colour: str | None
    shape: str | None
    direction: str | None
    #: for each frame, how like a clean drawing of what it shows it is, as a PSNR in dB (0 where nothing is seen)
    clarity: tuple[float, ...]

    @property
    def first_frame_gap(self) -> float:
        """By how many dB the first frame is less clear than the others are in the middle (median)."""
        return float(np.median(self.clarity[1:]) - self.clarity[0])


def judge(frames: Frames) -> Verdict:
    """(F, H, W, 3) uint8 -> what it shows."""
    pixels = frames.astype(np.float32) / 255
    colour = _colour(pixels)
    if colour is None:
        return Verdict(None, None, None, (0.0,) * len(frames))
    cover = _cover(pixels, colour)
    boxes = [_box(mask > HALF) for mask in cover]
    fills = [box[4] for box in boxes if box is not None]
    shape = min(FILL, key=lambda name: abs(FILL[name] - float(np.median(fills)))) if fills else None
    return Verdict(colour, shape, _direction(cover), tuple(_clarity(mask) for mask in cover))


def _colour(pixels: npt.NDArray[np.float32]) -> str | None:
    """The named colour nearest to the mean of what stands out from the ground."""
    apart = np.abs(pixels - np.asarray(GROUND)).max(axis=-1)
    bright = apart > max(0.25, 0.6 * float(np.quantile(apart, 0.995)))
    if bright.sum() < LEAST_AREA:
        return None
    mean = pixels[bright].mean(axis=0)
    return min(COLOURS, key=lambda name: float(np.linalg.norm(mean - np.asarray(COLOURS[name]))))


def _cover(pixels: npt.NDArray[np.float32], colour: str) -> npt.NDArray[np.float32]:
    """(F, H, W): how much of each pixel is the shape, 0 ground to 1, along the way from the ground to the colour."""
    ground = np.asarray(GROUND, np.float32)
    way = np.asarray(COLOURS[colour], np.float32) - ground
    return np.clip((pixels - ground) @ way / float(way @ way), 0, 1)


def _box(mask: npt.NDArray[np.bool_]) -> tuple[float, float, float, float, float] | None:
    """(left, top, right, bottom, fill) of a mask's largest part; None for next to nothing."""
    import cv2

    _, _, parts, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if len(parts) < 2:
        return None
    left, top, width, height, area = parts[1:][int(np.argmax(parts[1:, cv2.CC_STAT_AREA]))]
    return None if area < LEAST_AREA else (left, top, left + width, top + height, area / (width * height))


def _direction(cover: npt.NDArray[np.float32]) -> str | None:
    """Where the centroid went between the first and the last third of the clip."""
    third = max(1, len(cover) // 3)
    begin, end = _centroid(cover[:third]), _centroid(cover[-third:])
    if begin is None or end is None:
        return None
    x, y = end[0] - begin[0], end[1] - begin[1]
    if max(abs(x), abs(y)) < 3:
        return None
    return max(DIRECTIONS, key=lambda name: DIRECTIONS[name][0] * x + DIRECTIONS[name][1] * y)


def _centroid(cover: npt.NDArray[np.float32]) -> tuple[float, float] | None:
    weights = np.where(cover > HALF, cover, 0).sum(axis=0)
    if weights.sum() < LEAST_AREA:
        return None
    rows, columns = np.mgrid[0 : weights.shape[0], 0 : weights.shape[1]]
    return float((weights * columns).sum() / weights.sum()), float((weights * rows).sum() / weights.sum())


def _clarity(cover: npt.NDArray[np.float32]) -> float:
    """PSNR of the cover against the nearest of three clean shapes in its bounding box."""
    box = _box(cover > HALF)
    if box is None:
        return 0.0
    errors = [float(((cover - clean) ** 2).mean()) for clean in _clean_shapes(cover.shape, box[:4])]
    return -10 * float(np.log10(max(min(errors), 1e-6)))


def _clean_shapes(size: tuple[int, ...], box: tuple[float, float, float, float]) -> list[npt.NDArray[np.float32]]:
    """Drawings (H, W) in [0, 1] of a square, a circle and a triangle that fill a box."""
    left, top, right, bottom = box
    x = (np.arange(size[1]) + 0.5 - (left + right) / 2)[None, :] / ((right - left) / 2)
    y = (np.arange(size[0]) + 0.5 - (top + bottom) / 2)[:, None] / ((bottom - top) / 2)
    edge = (right - left) / 2
    distances = (np.maximum(np.abs(x), np.abs(y)) - 1, np.hypot(x, y) - 1, np.maximum(np.abs(x) - (y + 1) / 2, y - 1))
    return [np.clip(0.5 - distance * edge, 0, 1).astype(np.float32) for distance in distances]
