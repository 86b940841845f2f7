"""Masks from clicks and boxes (SAM 2.1): what was clicked on is white, in a still or through a whole video."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import Sam2VideoModel

from Wan2GP.definitions import ModelDefinition
from Wan2GP.engine.control.models import READS, ControlModel, given_frames
from Wan2GP.engine.families import Cancel, Place, Report
from Wan2GP.engine.folder_models import load_from_folder
from Wan2GP.engine.loading import free_memory
from Wan2GP.engine.masks.request import MaskRequest
from Wan2GP.engine.masks.sam2_tracking import Tracker, selected
from Wan2GP.engine.request import Frame, GenerationRequest
from Wan2GP.errors import InvalidInput
from Wan2GP.mask_prompts import FIELD, MISSING
from Wan2GP.media import read_frame, read_frames

#: bytes of decoded frames that are held while a video is read backwards
_HELD_BYTES = 1 << 26


class Sam2(ControlModel):
    """Frames 0 to video_length - 1 of the control video, or its one image, as masks at the size that was asked for.

    Objects are followed forwards from the frame on which they were shown first, and backwards from there to the
    beginning. The result selects all of them; letter N selects the rest.
    """

    reads = READS | {"mask_prompts", "mask_feather"}

    def __init__(self, definition: ModelDefinition, place: Place, report: Report) -> None:
        """Load, in float32: the memory that masks are followed by is sensitive to rounding. Raises ModelUnavailable."""
        super().__init__(definition, place, report)
        self._device = place.device
        report("loading", 0, 1)
        self._model: Any = load_from_folder(Sam2VideoModel, definition, place, torch.float32)
        report("loading", 1, 1)

    @classmethod
    def check(cls, request: GenerationRequest) -> None:
        """Raises InvalidInput without a video or image, without prompts, or for prompts that lie outside of it."""
        super().check(request)
        if not MaskRequest.of(request).prompts:
            raise InvalidInput(MISSING, field=FIELD)

    def generate(self, request: GenerationRequest, report: Report, cancel: Cancel) -> Iterator[Frame]:
        """The masks in order, (H, W, 3) uint8, all channels equal. Streams: memory does not grow with the length, but
        for a few kB a frame of what is tracked backwards."""
        cancel.raise_if_requested()
        asked = MaskRequest.of(request)
        tracker = Tracker(self._model, self._device, asked.prompts, asked.num_frames)
        for number in tracker.prompted:
            cancel.raise_if_requested()
            tracker.learn(number, _frame(request, number))
        earlier = _tracked_backwards(request, tracker, report, cancel)
        tracker.turn()
        for number, frame in enumerate(given_frames(request)):
            cancel.raise_if_requested()
            found = selected(tracker.forwards(number, frame), request.size)
            if number in earlier:
                found |= _unpacked(earlier.pop(number), request.size)
            yield asked.edges.draw(found)
            report("decoding", number + 1, asked.num_frames)

    def release(self) -> None:
        """Let go of the network."""
        self._model = None
        free_memory()


def _tracked_backwards(
    request: GenerationRequest, tracker: Tracker, report: Report, cancel: Cancel
) -> dict[int, bytes]:
    """Frame -> packed mask of the objects that are shown later, for all frames before the latest of these."""
    packed: dict[int, bytes] = {}
    if not tracker.last_start:
        return packed
    assert request.video_guide is not None, "a still has one frame"
    for number, frame in _backwards(request.video_guide, tracker.last_start):
        cancel.raise_if_requested()
        found = selected(tracker.backwards(number, frame), request.size)
        packed[number] = zlib.compress(np.packbits(found).tobytes(), 1)
        report("encoding", tracker.last_start - number, tracker.last_start)
    return packed


def _unpacked(packed: bytes, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    bits = np.unpackbits(np.frombuffer(zlib.decompress(packed), np.uint8), count=size[0] * size[1])
    return bits.reshape(size[::-1]).astype(np.bool_)


def _frame(request: GenerationRequest, number: int) -> Frame:
    if request.image_guide is not None:
        return request.image_guide
    assert request.video_guide is not None
    return read_frame(request.video_guide, number)


def _backwards(video: Path, stop: int) -> Iterator[tuple[int, Frame]]:
    """The frames stop - 1 … 0 with their numbers, read in pieces."""
    piece = max(1, _HELD_BYTES // read_frame(video, 0).nbytes)
    for end in range(stop, 0, -piece):
        start = max(0, end - piece)
        frames = list(read_frames(video, start, end))
        for number in range(end - 1, start - 1, -1):
            yield number, frames[number - start]
