"""Captions of pictures (Florence-2): a paragraph about what a picture shows. Deterministic."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from transformers import Florence2ForConditionalGeneration, GenerationConfig

from Wan2GP.engine.families import Cancel, Report
from Wan2GP.engine.language.answers import EachToken, TextModel
from Wan2GP.engine.request import Frame, GenerationRequest
from Wan2GP.errors import EmptyAnswer, InvalidInput

#: longest caption, in tokens
MAX_NEW_TOKENS = 256
MAX_PICTURES = 8

#: pixels a side at which the published weights see a picture; its colours are normalised as those of ImageNet
SIDE = 768
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)

#: the words by which the weights were trained to describe a picture at length: others are other tasks to them
_TASK = "Describe with a paragraph what is shown in the image."


class Captioner(TextModel):
    """Describes pictures (`image_refs`), one paragraph each, in the order in which they were given."""

    reads = frozenset({"image_refs"})
    network = Florence2ForConditionalGeneration

    @classmethod
    def check(cls, request: GenerationRequest) -> None:
        """Raises InvalidInput for no picture, or too many."""
        super().check(request)
        if not 1 <= len(request.references) <= MAX_PICTURES:
            raise InvalidInput(f"takes 1 to {MAX_PICTURES} pictures, not {len(request.references)}", field="image_refs")

    def generate(self, request: GenerationRequest, report: Report, cancel: Cancel) -> str:
        """A line for each picture. Raises GenerationCancelled within a token, EmptyAnswer for a caption without a
        word."""
        return "\n".join(self.caption(picture, report, cancel) for picture in request.references)

    @torch.inference_mode()
    def caption(self, picture: Frame, report: Report, cancel: Cancel) -> str:
        """What one picture, RGB (H, W, 3) uint8, shows."""
        cancel.raise_if_requested()
        report("encoding", 0, 1)
        values = torch.from_numpy(network_input(picture))[None].to(self._device, self._model.dtype)
        tokens = torch.tensor([self._ids()], device=self._device)
        report("encoding", 1, 1)
        watch: Any = EachToken(report, cancel, MAX_NEW_TOKENS)
        output = self._model.generate(
            input_ids=tokens,
            attention_mask=torch.ones_like(tokens),
            pixel_values=values,
            generation_config=self._settings(),
            stopping_criteria=[watch],
        )
        answer = " ".join(str(self._tokenizer.decode(output[0], skip_special_tokens=True)).split())
        if not answer:
            raise EmptyAnswer(f"{self._name} gave an empty caption")
        return answer

    def _settings(self) -> GenerationConfig:
        """The weights' own (beams, repetition), without chance."""
        config = copy.deepcopy(self._model.generation_config)
        config.do_sample, config.max_length, config.max_new_tokens = False, None, MAX_NEW_TOKENS
        return config

    def _ids(self) -> list[int]:
        """The ids of the task, after as many places as the picture has tokens."""
        asked: list[int] = self._tokenizer(_TASK, add_special_tokens=False)["input_ids"]
        config = self._model.config
        places = [config.image_token_id] * tokens_of_a_picture(config.vision_config.patch_stride)
        return [*places, self._tokenizer.bos_token_id, *asked, self._tokenizer.eos_token_id]


def tokens_of_a_picture(strides: Any) -> int:
    """How many tokens stand for a picture: one for each cell of the last grid, and one for their mean."""
    return math.ceil(SIDE / math.prod(strides)) ** 2 + 1


def network_input(picture: Frame) -> npt.NDArray[np.float32]:
    """(3, 768, 768) for the network: the picture stretched to a square, whatever its shape, and normalised."""
    resized = Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    values = np.asarray(resized, np.float32) / np.float32(255)
    values = (values - np.asarray(MEAN, np.float32)) / np.asarray(DEVIATION, np.float32)
    return np.ascontiguousarray(values.transpose(2, 0, 1))
