"""Following objects through a video with SAM 2, frame by frame: the video stays in its file.

"SAM 2: Segment Anything in Images and Videos" (2024). The network and its memory are those of transformers; what is
here decides which frame it sees when, and what of its memory is kept. Each object has a session of its own, and all of
them share what the image encoder makes of a frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceCache, Sam2VideoInferenceSession

from Wan2GP.engine.request import Frame
from Wan2GP.mask_prompts import MaskPrompt

#: colours are normalised as those of ImageNet, channels R G B, of 0-1
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)

#: labels of the prompt encoder: a click beside and on the object, and the two corners of a box
_BESIDE, _ON, _UPPER_LEFT, _LOWER_RIGHT = 0, 1, 2, 3
#: an object's id inside its session
_OBJECT = 1


def network_input(frame: Frame, side: int) -> npt.NDArray[np.float32]:
    """(3, side, side) for the network: the frame stretched to a square, whatever its shape, and normalised."""
    resized = Image.fromarray(frame).resize((side, side), Image.Resampling.BILINEAR)
    values = np.asarray(resized, np.float32) / np.float32(255)
    values = (values - np.asarray(MEAN, np.float32)) / np.asarray(DEVIATION, np.float32)
    return np.ascontiguousarray(values.transpose(2, 0, 1))


def encoded(prompt: MaskPrompt, size: tuple[int, int], side: int) -> dict[str, torch.Tensor]:
    """The clicks (1, 1, N, 2) in pixels of the network's square, and their labels (1, 1, N); `size` is the picture's
    (width, height). The corners of a box come first."""
    corners = [prompt.box[:2], prompt.box[2:]] if prompt.box else []
    labels = [_UPPER_LEFT, _LOWER_RIGHT] if prompt.box else []
    points = torch.tensor([*corners, *prompt.points], dtype=torch.float32)
    scale = torch.tensor([side / size[0], side / size[1]], dtype=torch.float32)
    labels += [_ON if each else _BESIDE for each in prompt.labels]
    return {
        "point_coords": (points * scale)[None, None],
        "point_labels": torch.tensor(labels, dtype=torch.int32)[None, None],
    }


class Session(Sam2VideoInferenceSession):  # type: ignore[misc]
    """The library's session for one object, of a video of which only the frame at work is in memory."""

    def __init__(self, total: int, device: str, cache: Sam2VideoInferenceCache) -> None:
        super().__init__(inference_device=device, inference_state_device=device, dtype=torch.float32)
        self.cache = cache
        self._total = total
        self._at: tuple[int, torch.Tensor] | None = None

    @property
    def num_frames(self) -> int:
        """Frames of the whole video: the network counts by it how far its memory of an object reaches."""
        return self._total

    def show(self, number: int, values: torch.Tensor) -> None:
        """The frame (3, side, side) that the network shall see next."""
        self._at = number, values

    def get_frame(self, frame_idx: int) -> torch.Tensor:
        """The frame at work; the network asks for no other."""
        assert self._at is not None and self._at[0] == frame_idx, "a frame is shown before it is looked at"
        return self._at[1]


class Follower:
    """One object: where it was shown, and the network's memory of it."""

    def __init__(self, prompts: Sequence[MaskPrompt], session: Session) -> None:
        self.prompts = {prompt.frame: prompt for prompt in prompts}
        self.first = min(self.prompts)
        self.session = session


class Tracker:
    """All objects of a video. Frames are shown one at a time: first those with prompts, then neighbour by neighbour.

    Memory does not grow with the video's length: a frame that the network's memory does not reach is forgotten.
    """

    def __init__(self, model: Any, device: str, prompts: Sequence[MaskPrompt], num_frames: int) -> None:
        """`prompts` are placed: in order of object and frame, one for each of both."""
        self._model, self._device = model, device
        self._side: int = model.config.image_size
        config = model.config
        self._reach = max(config.num_maskmem, config.max_object_pointers_in_encoder)
        cache = Sam2VideoInferenceCache(inference_device=device, inference_state_device=device)
        self._cache = cache
        self._followers = [
            Follower(list(shown), Session(num_frames, device, cache))
            for _, shown in groupby(prompts, lambda prompt: prompt.object)
        ]

    @property
    def prompted(self) -> tuple[int, ...]:
        """The frames with prompts, in order."""
        return tuple(sorted({frame for each in self._followers for frame in each.prompts}))

    @property
    def last_start(self) -> int:
        """The latest frame at which an object is shown for the first time; frames before it are tracked backwards."""
        return max(each.first for each in self._followers)

    def learn(self, number: int, frame: Frame) -> None:
        """Take the prompts of a frame. All are taken before anything is tracked."""
        values = self._values(frame)
        size = (frame.shape[1], frame.shape[0])
        for each in self._followers:
            if number not in each.prompts:
                continue
            session = each.session
            session.show(number, values)
            index = session.obj_id_to_idx(_OBJECT)
            session.add_point_inputs(index, number, encoded(each.prompts[number], size, self._side))
            session.obj_with_new_inputs = [_OBJECT]
            self._look(each, number, reverse=False)

    def backwards(self, number: int, frame: Frame) -> list[torch.Tensor]:
        """The mask logits (1, 1, h, w) of the objects that are shown later than this frame; frames come in falling
        order."""
        return self._seen(number, frame, [each for each in self._followers if each.first > number], reverse=True)

    def turn(self) -> None:
        """From now on forwards: what was tracked backwards is forgotten."""
        for each in self._followers:
            each.session.output_dict_per_obj[0]["non_cond_frame_outputs"].clear()
            each.session.frames_tracked_per_obj[0].clear()

    def forwards(self, number: int, frame: Frame) -> list[torch.Tensor]:
        """The mask logits of the objects that were shown by now; frames come in rising order."""
        return self._seen(number, frame, [each for each in self._followers if each.first <= number], reverse=False)

    def _seen(self, number: int, frame: Frame, followers: list[Follower], reverse: bool) -> list[torch.Tensor]:
        if not followers:
            return []
        values = self._values(frame)
        logits = []
        for each in followers:
            each.session.show(number, values)
            logits.append(self._look(each, number, reverse))
        return logits

    def _look(self, follower: Follower, number: int, reverse: bool) -> torch.Tensor:
        session = follower.session
        found: torch.Tensor = self._model(session, frame_idx=number, reverse=reverse).pred_masks
        kept = session.output_dict_per_obj[0]
        for outputs in kept.values():
            # Its own memory of the frame was made of it: the network has no further use for it.
            outputs.get(number, {}).pop("high_res_masks", None)
        tracked = kept["non_cond_frame_outputs"]
        for far in [each for each in tracked if abs(each - number) >= self._reach]:
            del tracked[far]
        session.frames_tracked_per_obj[0].clear()
        return found

    def _values(self, frame: Frame) -> torch.Tensor:
        self._cache.clear_all()
        return torch.from_numpy(network_input(frame, self._side)).to(self._device)


def selected(logits: Sequence[torch.Tensor], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Where any of the objects is, (H, W) at `size` = (width, height): logits (1, 1, h, w) above 0 once enlarged."""
    found = np.zeros(size[::-1], np.bool_)
    for each in logits:
        fitted = torch.nn.functional.interpolate(each.float(), size[::-1], mode="bilinear", align_corners=False)
        found |= (fitted[0, 0] > 0).cpu().numpy()
    return found
