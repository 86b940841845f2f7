"""The synthetic clips that the tiny Wan models learn: one shape of one colour, moving one way over a dark ground.

A clip is (F, H, W, 3) float32 in [0, 1], 17 frames of 64x64 unless asked otherwise. Edges are anti-aliased from the
shape's signed distance, so a position between two pixels shows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Clip = npt.NDArray[np.float32]

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.92, 0.16, 0.14),
    "green": (0.16, 0.80, 0.22),
    "blue": (0.18, 0.34, 0.96),
    "yellow": (0.95, 0.85, 0.15),
    "purple": (0.68, 0.20, 0.85),
    "white": (0.94, 0.94, 0.94),
}
SHAPES = ("circle", "square", "triangle")
DIRECTIONS: dict[str, tuple[float, float]] = {
    "right": (1.0, 0.0),
    "left": (-1.0, 0.0),
    "up": (0.0, -1.0),
    "down": (0.0, 1.0),
}
GROUND = (0.05, 0.05, 0.08)
FRAMES = 17
SIDE = 64

TRIANGLE_HEIGHT = 0.9
"""The triangle's height over its width."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What one clip shows. `x`, `y`: the centre of the bounding box in the first frame, in pixels of a 64x64 picture;
    `size`: its width; `travel`: the pixels it moves from the first frame to the last."""

    colour: str
    shape: str
    direction: str
    x: float
    y: float
    size: float
    travel: float

    @property
    def prompt(self) -> str:
        return prompt(self.colour, self.shape, self.direction)


def prompt(colour: str, shape: str, direction: str) -> str:
    """The words for a scene, as the models were taught them."""
    return f"a {colour} {shape} moving {direction}"


ALL_PROMPTS = tuple((c, s, d) for c in COLOURS for s in SHAPES for d in DIRECTIONS)

HELD_OUT = tuple(
    (colour, SHAPES[(index + turn) % 3], direction)
    for turn, pair in enumerate((("right", "up"), ("left", "down")))
    for index, colour in enumerate(COLOURS)
    for direction in (pair[index % 2],)
)
"""Twelve prompts that training never sees, two of every colour, four of every shape, three of every direction."""

TRAINED = tuple(words for words in ALL_PROMPTS if words not in HELD_OUT)


def draw_scene(rng: np.random.Generator, words: tuple[str, str, str]) -> Scene:
    """A scene for the words, its size, place and speed by chance, wholly inside the picture in every frame."""
    colour, shape, direction = words
    size = float(rng.uniform(18, 28))
    travel = float(rng.uniform(14, 30))
    margin = size / 2 + 1
    dx, dy = DIRECTIONS[direction]
    along = rng.uniform(margin, SIDE - margin - travel)
    across = rng.uniform(margin, SIDE - margin)
    start = along if dx + dy > 0 else SIDE - along
    x, y = (start, across) if dx else (across, start)
    return Scene(colour, shape, direction, float(x), float(y), size, travel)


def render(scene: Scene, frames: int = FRAMES, side: int = SIDE) -> Clip:
    """The clip of a scene: (frames, side, side, 3) float32 in [0, 1]; the motion is even over the frames."""
    scale = side / SIDE
    steps = np.linspace(0.0, 1.0, frames)[:, None, None] if frames > 1 else np.zeros((1, 1, 1))
    dx, dy = DIRECTIONS[scene.direction]
    centre_x = (scene.x + dx * scene.travel * steps) * scale
    centre_y = (scene.y + dy * scene.travel * steps) * scale
    rows, columns = np.mgrid[0:side, 0:side] + 0.5
    distance = _distance(scene.shape, columns[None] - centre_x, rows[None] - centre_y, scene.size * scale)
    alpha = np.clip(0.5 - distance, 0.0, 1.0)[..., None]
    colour, ground = np.asarray(COLOURS[scene.colour]), np.asarray(GROUND)
    return (ground + alpha * (colour - ground)).astype(np.float32)


def _distance(
    shape: str, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], size: float
) -> npt.NDArray[np.float64]:
    """About the distance in pixels of each point from the shape's edge, negative inside."""
    half = size / 2
    if shape == "circle":
        return np.hypot(x, y) - half
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - half
    height = size * TRIANGLE_HEIGHT
    slope = np.hypot(half, height)
    sides = (np.abs(x) * height - (y + height / 2) * half) / slope  # the two slanted sides, apex on top
    return np.maximum(sides, y - height / 2)


def clip_of(rng: np.random.Generator, words: tuple[str, str, str] | None = None) -> tuple[Scene, Clip]:
    """One clip for training: for the words, or for one of the trained prompts by chance."""
    chosen = words or TRAINED[int(rng.integers(len(TRAINED)))]
    scene = draw_scene(rng, chosen)
    return scene, render(scene)
