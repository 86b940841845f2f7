"""Videos whose frames say which one they are, or move in a known direction; and how to read them again."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from Wan2GP.media import Frame, write_video

SIZE = (64, 48)


def numbered(index: int, size: tuple[int, int] = SIZE) -> Frame:
    """A picture that says its own number: eight stripes, a bit each, the lowest one on the left."""
    width, height = size
    bits = [255 * (index >> bit & 1) for bit in range(8)]
    row = np.repeat(np.array(bits, np.uint8), width // 8)
    return np.repeat(np.tile(row, (height, 1))[..., None], 3, axis=2)


def number(frame: Frame) -> int:
    """The number that a picture says; 0 is black."""
    stripes = frame.mean(axis=(0, 2)).reshape(8, -1)[:, 1:-1].mean(axis=1)
    return sum(1 << bit for bit, value in enumerate(stripes) if value > 128)


def numbered_video(path: Path, count: int, fps: int = 16, first: int = 1) -> Path:
    return write_video(path, (numbered(first + index) for index in range(count)), fps=fps, codec="ffv1").path


def texture(seed: int = 0) -> Frame:
    noise = np.random.default_rng(seed).integers(0, 256, (96, 160, 3), dtype=np.uint8)
    return np.asarray(cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX), dtype=np.uint8)


def moving(path: Path, right: int, down: int, count: int = 4) -> Path:
    """A texture that moves by so many pixels a frame."""
    still = texture()
    frames = (np.roll(still, (index * down, index * right), axis=(0, 1)) for index in range(count))
    return write_video(path, frames, fps=16, codec="ffv1").path


def inner_colour(frame: Frame) -> tuple[int, int, int]:
    red, green, blue = np.median(frame[20:-20, 20:-20].reshape(-1, 3), axis=0)
    return int(red), int(green), int(blue)
