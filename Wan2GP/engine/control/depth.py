"""Depth of a control image, or of a control video frame by frame (Depth Anything V2): grey pictures, near is bright.

The network answers with relative inverse depth, whose scale means nothing outside its frame. So each frame is stretched
by its own least and greatest value, to black and white: frame k of the result follows from frame k of the control video
alone, and every slice of a video shows the same pictures as the whole.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import DepthAnythingForDepthEstimation

from Wan2GP.definitions import ModelDefinition
from Wan2GP.engine.control.models import ControlModel
from Wan2GP.engine.families import Place, Report
from Wan2GP.engine.folder_models import load_from_folder
from Wan2GP.engine.loading import free_memory
from Wan2GP.engine.request import Frame

#: colours are normalised as those of ImageNet, channels R G B, of 0-1
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)
#: what a frame shows whose depth is the same everywhere
FLAT = 128


class Depth(ControlModel):
    """A control image, or frames 0 to video_length - 1 of a control video, as depth."""

    def __init__(self, definition: ModelDefinition, place: Place, report: Report) -> None:
        """Load, in float32: bfloat16 has fewer levels than a grey picture. Raises ModelUnavailable."""
        super().__init__(definition, place, report)
        self._device = place.device
        report("loading", 0, 1)
        self._model: Any = load_from_folder(DepthAnythingForDepthEstimation, definition, place, torch.float32)
        report("loading", 1, 1)

    def picture(self, frame: Frame, size: tuple[int, int]) -> Frame:
        """The depth of one frame, all channels equal."""
        return grey(self.depth(frame, size))

    @torch.inference_mode()
    def depth(self, frame: Frame, size: tuple[int, int]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Relative inverse depth (H, W) of a frame at `size` = (width, height): larger is nearer."""
        side, multiple = self._model.config.backbone_config.image_size, self._model.config.patch_size
        values = network_input(frame, side, multiple)
        found = self._model(pixel_values=torch.from_numpy(values)[None].to(self._device)).predicted_depth
        fitted = torch.nn.functional.interpolate(found[None], size=size[::-1], mode="bicubic", align_corners=False)
        return np.asarray(fitted[0, 0].float().cpu().numpy(), np.float32)

    def release(self) -> None:
        """Let go of the network."""
        self._model = None
        free_memory()


def network_input(frame: Frame, side: int, multiple: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """(3, H, W) for the network: the frame scaled, its shape kept, so that the side which changes less becomes `side`
    pixels; both are multiples of a patch. The rule is that of the published weights."""
    height, width = frame.shape[:2]
    scale = min(side / width, side / height, key=lambda each: abs(1 - each))
    fitted = [max(multiple, round(scale * length / multiple) * multiple) for length in (width, height)]
    resized = Image.fromarray(frame).resize((fitted[0], fitted[1]), Image.Resampling.BICUBIC)
    values = np.asarray(resized, np.float32) / np.float32(255)
    values = (values - np.asarray(MEAN, np.float32)) / np.asarray(DEVIATION, np.float32)
    return np.ascontiguousarray(values.transpose(2, 0, 1))


def grey(depth: np.ndarray[Any, np.dtype[np.float32]]) -> Frame:
    """Depth (H, W) as a picture (H, W, 3): the least value black, the greatest white; grey where all are equal."""
    least, greatest = float(depth.min()), float(depth.max())
    if greatest > least:
        shade = np.rint((depth - least) * (255 / (greatest - least))).astype(np.uint8)
    else:
        shade = np.full(depth.shape, FLAT, np.uint8)
    return np.repeat(shade[..., None], 3, axis=2)
