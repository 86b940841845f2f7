"""Masks of people, without clicks: MediaPipe's selfie segmentation, a small network for one person or few, near the
camera. No torch here."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt

from Wan2GP.definitions import ModelDefinition
from Wan2GP.engine.control.models import READS, ControlModel
from Wan2GP.engine.families import Cancel, Place, Report
from Wan2GP.engine.litert import Network
from Wan2GP.engine.masks.request import Edges
from Wan2GP.engine.request import Frame, GenerationRequest
from Wan2GP.wheel_files import checked

NETWORK = "selfie_segmentation.tflite"
#: pixels a side of what the network sees
_SIDE = 256
#: from this probability on a pixel belongs to a person
_CERTAIN = 0.5


class PersonMask(ControlModel):
    """People white on black, frame by frame; letter N selects what is around them."""

    reads = READS | {"mask_feather"}

    def __init__(self, definition: ModelDefinition, place: Place, report: Report) -> None:
        """Load. Raises ModelUnavailable for a file that is not the published one."""
        super().__init__(definition, place, report)
        report("loading", 0, 1)
        self._network: Network | None = Network(checked(definition, place.checkpoints) / NETWORK)
        report("loading", 1, 1)

    @classmethod
    def check(cls, request: GenerationRequest) -> None:
        """Raises InvalidInput without a video or image, or for a feather that cannot be."""
        super().check(request)
        Edges.of(request)

    def generate(self, request: GenerationRequest, report: Report, cancel: Cancel) -> Iterator[Frame]:
        """The masks in order, (H, W, 3) uint8, all channels equal."""
        edges = Edges.of(request)
        for frame in super().generate(request, report, cancel):
            yield edges.draw(frame[..., 0] > 0)

    def picture(self, frame: Frame, size: tuple[int, int]) -> Frame:
        """Where people are, 255, and where not, 0."""
        selected = cv2.resize(self.probability(frame), size, interpolation=cv2.INTER_LINEAR) >= _CERTAIN
        return np.repeat(selected[..., None].astype(np.uint8) * np.uint8(255), 3, axis=2)

    def probability(self, frame: Frame) -> npt.NDArray[np.float32]:
        """(256, 256), 0-1: whether a pixel of the frame, which is stretched to a square, belongs to a person."""
        assert self._network is not None, "released"
        square = cv2.resize(frame, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32) / np.float32(255)
        return np.asarray(self._network(square)[0][0, ..., 0], np.float32)

    def release(self) -> None:
        """Let go of the network."""
        self._network = None
