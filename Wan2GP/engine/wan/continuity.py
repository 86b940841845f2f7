"""How a window joins the one before: noise on what they share, and colours moved to match. No torch here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice

import cv2
import numpy as np

from Wan2GP.engine.wan.window import Frames
from Wan2GP.media import Frame


def with_noise(frames: Frames, level: float, seed: int) -> Frames:
    """Frames mixed with normal noise: (1 - level) * frame + level * noise in the models' range of -1 to 1."""
    if level == 0 or not len(frames):
        return frames
    noise = np.random.default_rng(seed).standard_normal(frames.shape, dtype=np.float32)
    mixed = (1 - level) * (frames / np.float32(127.5) - 1) + level * noise
    return np.round((mixed.clip(-1, 1) + 1) * 127.5).astype(np.uint8)


def colour_matched(frames: Frames, shared: Frames, strength: float) -> Frames:
    """`colours_matched` of frames that are all there."""
    return np.stack(list(colours_matched(frames, shared, strength)))


def colours_matched(frames: Iterable[Frame], shared: Frames, strength: float) -> Iterator[Frame]:
    """A window's frames with the mean and deviation of each Lab channel moved, by `strength` (0-1), to where the frames
    that it shares with the window before have them (Reinhard et al. 2001, "Color transfer between images").

    The change is measured on the shared frames alone, so what moves or appears later does not bend the colours; these
    frames alone wait for it.
    """
    coming = iter(frames)
    if strength == 0 or not len(shared):
        yield from coming
        return
    first = list(islice(coming, len(shared)))
    made, wanted = _statistics(first), _statistics(shared)
    gain = np.clip(wanted[1] / np.maximum(made[1], 1e-3), 0.5, 2.0)
    for frame in chain(first, coming):
        lab = _lab(frame)
        moved = (lab - made[0]) * gain + wanted[0]
        yield _rgb(lab + strength * (moved - lab))


def _statistics(frames: Iterable[Frame]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each Lab channel."""
    pixels = np.concatenate([_lab(frame).reshape(-1, 3) for frame in frames])
    return pixels.mean(axis=0), pixels.std(axis=0)


def _lab(frame: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(frame.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)


def _rgb(lab: np.ndarray) -> np.ndarray:
    rgb = cv2.cvtColor(lab.astype(np.float32), cv2.COLOR_LAB2RGB)
    return np.round(rgb.clip(0, 1) * 255).astype(np.uint8)
