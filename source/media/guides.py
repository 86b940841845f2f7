"""Guide and mask videos: what a control model is to keep, and what it is to make.

In the guide, kept frames show their picture; all others show the structure that they are to follow, or grey 128. In the
mask, black (0) keeps a frame of the guide and white (255) has it generated, by its structure where it has one. Both are
lossless, so that grey is exactly 128 and masks have no soft edges.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from source.errors import InvalidInput
from source.media.structure import fitted
from source.planning.guidance import StructureClip
from Wan2GP.media import Frame, index_video, read_frames, resize, write_video

GREY, KEEP, GENERATE = 128, 0, 255


@dataclass(frozen=True)
class GuidePlan:
    """Which frames of a segment are given.

    size        (width, height) in pixels
    kept        frame index -> RGB picture (H, W, 3) uint8 of any size; it is stretched to `size`
    structure   guidance of the other frames, by index: frame k shows frame `offset + k` of it, grey after its end
    """

    num_frames: int
    size: tuple[int, int]
    fps: Fraction | float
    kept: Mapping[int, Frame]
    structure: StructureClip | None = None

    def __post_init__(self) -> None:
        outside = sorted(index for index in self.kept if not 0 <= index < self.num_frames)
        if outside:
            raise InvalidInput(f"a guide of {self.num_frames} frames cannot keep the frames {outside}")


@dataclass(frozen=True)
class ContextTreatment:
    """What is done to frames taken over from the predecessor. The defaults change nothing; they apply in this order.

    strength_adjustment   mixed with grey: e * frame + (1 - e) * 128, with e = 1 + adjustment clipped to 0..1
    desaturate            share of the frame's own grey: 0 colour … 1 grey
    brightness            every pixel times 1 + brightness, clipped: positive is brighter
    """

    strength_adjustment: float = 0.0
    desaturate: float = 0.0
    brightness: float = 0.0

    def apply(self, frame: Frame) -> Frame:
        """The treated frame, RGB (H, W, 3) uint8; the same object when nothing is to be done."""
        strength = min(max(1 + self.strength_adjustment, 0.0), 1.0)
        if strength < 1:
            frame = _mix(frame, np.full_like(frame, GREY), strength)
        if self.desaturate:
            grey = cv2.cvtColor(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
            frame = _mix(frame, np.asarray(grey, dtype=np.uint8), 1 - min(max(self.desaturate, 0.0), 1.0))
        if self.brightness:
            frame = np.asarray(cv2.convertScaleAbs(frame, alpha=max(1 + self.brightness, 0.0)), dtype=np.uint8)
        return frame


def guide_frames(plan: GuidePlan) -> Iterator[Frame]:
    """The frames of the guide, RGB (H, W, 3) uint8."""
    structure = iter(()) if plan.structure is None else _structure_frames(plan.structure, plan.num_frames)
    for index in range(plan.num_frames):
        guidance = next(structure, None)
        if index in plan.kept:
            yield resize(plan.kept[index], plan.size)
        else:
            yield _solid(plan.size, GREY) if guidance is None else fitted(guidance, plan.size)


def _structure_frames(clip: StructureClip, num_frames: int) -> Iterator[Frame]:
    """The frames of the guidance that a guide of `num_frames` shows, fewer where it ends."""
    last = index_video(clip.path).info.num_frames
    return read_frames(clip.path, min(clip.offset, last), min(clip.offset + num_frames, last))


def mask_frames(plan: GuidePlan) -> Iterator[Frame]:
    """The frames of the mask, RGB (H, W, 3) uint8: 0 where the guide is kept, 255 elsewhere."""
    for index in range(plan.num_frames):
        yield _solid(plan.size, KEEP if index in plan.kept else GENERATE)


def write_guide(plan: GuidePlan, path: str | Path) -> Path:
    """Write the guide as lossless FFV1 (.mkv)."""
    return write_video(path, guide_frames(plan), fps=plan.fps, codec="ffv1").path


def write_mask(plan: GuidePlan, path: str | Path) -> Path:
    """Write the mask as lossless FFV1 (.mkv)."""
    return write_video(path, mask_frames(plan), fps=plan.fps, codec="ffv1").path


def _mix(frame: Frame, other: Frame, share: float) -> Frame:
    return np.asarray(cv2.addWeighted(frame, share, other, 1 - share, 0), dtype=np.uint8)


def _solid(size: tuple[int, int], value: int) -> Frame:
    return np.full((size[1], size[0], 3), value, dtype=np.uint8)
