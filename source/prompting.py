"""Prompts by a vision-language model: what it is shown, and what its task found for a segment or a join."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from source.planning.prompts import TASK_TYPE
from source.task_registry import Dependency

if TYPE_CHECKING:
    from Wan2GP.media import Frame

#: no picture is shown larger than this many pixels a side
LONGEST_SIDE = 768
#: width of a border in pixels
BORDER = 6
GREEN, RED = (0, 200, 0), (220, 0, 0)


def enhanced_prompt(dependencies: Sequence[Dependency], index: int) -> str | None:
    """What an enhance_prompts task among the dependencies has for segment or join `index`.

    None when there is no such task, or when it was not asked about that one.
    """
    for dependency in dependencies:
        found = dependency.task.result_data or {}
        if dependency.task.task_type == TASK_TYPE and index in found.get("indices", ()):
            return str(found["prompts"][found["indices"].index(index)])
    return None


def read_picture(path: Path, frame: int | None) -> Frame:
    """An image, or one frame of a video, RGB (H, W, 3) uint8, scaled down to LONGEST_SIDE."""
    from source.media.images import contained
    from Wan2GP.media import read_frame, read_image

    picture = read_image(path) if frame is None else read_frame(path, frame)
    return contained(picture, (LONGEST_SIDE, LONGEST_SIDE)) if max(picture.shape) > LONGEST_SIDE else picture


def side_by_side(start: Frame, end: Frame) -> Frame:
    """One picture: the start in a green border, and right of it the end in a red one, both of the start's height."""
    import numpy as np

    from Wan2GP.media import resize

    height = start.shape[0]
    right = resize(end, (max(1, round(end.shape[1] * height / end.shape[0])), height))
    return np.hstack([_bordered(start, GREEN), _bordered(right, RED)])


def _bordered(picture: Frame, colour: tuple[int, int, int]) -> Frame:
    import numpy as np

    height, width = picture.shape[:2]
    canvas = np.full((height + 2 * BORDER, width + 2 * BORDER, 3), colour, np.uint8)
    canvas[BORDER:-BORDER, BORDER:-BORDER] = picture
    return canvas
