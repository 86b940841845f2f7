"""Pictures as the vision-language models of the Qwen2-VL line read them. No torch here.

The rule is that of "Qwen2-VL: Enhancing Vision-Language Model's Perception of the World at Any Resolution" (2024): a
picture keeps its shape, its sides become multiples of what one token covers, and it is cut into patches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from Wan2GP.errors import InvalidInput
from Wan2GP.media import Frame

#: colours are normalised as those that the vision encoder was trained on (CLIP's), channels R G B, of 0-1
MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)

#: pixels of a picture as the model sees it; the most is 1280 tokens, as the model's authors advise for answers
LEAST_PIXELS = 56 * 56
MOST_PIXELS = 1280 * 28 * 28
#: a picture longer than this many times its other side is refused
MOST_ASPECT = 200


@dataclass(frozen=True)
class PatchRule:
    """How a picture is cut."""

    #: pixels a side of a patch
    patch: int = 14
    #: patches a side of what one token covers
    merge: int = 2
    #: frames that a patch is deep; a still picture is repeated
    depth: int = 2
    #: pixels of a picture at most
    most_pixels: int = MOST_PIXELS

    def size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) at which a picture is read. Raises InvalidInput for one that is far too long."""
        if max(width, height) > MOST_ASPECT * min(width, height):
            raise InvalidInput(f"{width}x{height} is too long a picture; crop it", field="image_refs")
        unit = self.patch * self.merge
        wide, high = round(width / unit) * unit, round(height / unit) * unit
        if wide * high > self.most_pixels:
            scale = math.sqrt(width * height / self.most_pixels)
            return max(unit, math.floor(width / scale / unit) * unit), max(
                unit, math.floor(height / scale / unit) * unit
            )
        if wide * high < LEAST_PIXELS:
            scale = math.sqrt(LEAST_PIXELS / (width * height))
            return math.ceil(width * scale / unit) * unit, math.ceil(height * scale / unit) * unit
        return wide, high

    def tokens(self, grid: tuple[int, int, int]) -> int:
        """How many tokens stand for a picture of `grid` (depth, rows, columns) patches."""
        return math.prod(grid) // self.merge**2

    def patches(self, picture: Frame) -> tuple[npt.NDArray[np.float32], tuple[int, int, int]]:
        """(patches, channels * depth * patch * patch), and the grid (1, rows, columns) of patches.

        Patches that one token covers stand together.
        """
        width, height = self.size(picture.shape[1], picture.shape[0])
        resized = Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC)
        values = np.asarray(resized, np.float32) / np.float32(255)
        values = (values - np.asarray(MEAN, np.float32)) / np.asarray(DEVIATION, np.float32)
        rows, columns = height // self.patch, width // self.patch
        split = values.reshape(
            rows // self.merge, self.merge, self.patch, columns // self.merge, self.merge, self.patch, 3
        )
        ordered = split.transpose(0, 3, 1, 4, 6, 2, 5)[:, :, :, :, :, None]
        deep = np.repeat(ordered, self.depth, axis=5)
        return deep.reshape(rows * columns, -1), (1, rows, columns)
