"""Prompts, and the pictures that they are about, as a Qwen-Image model reads them: the last states of Qwen2.5-VL.

The prompt stands in a chat whose system message says the role; the states of that message are left out. Stock pipelines
call the text encoder without the kinds of its tokens, so that it takes the patches of a picture for words in a row; it
was trained with their rows and columns, which is how they are given here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from Wan2GP.engine.language.chat_marks import PICTURE, with_places, without_marks
from Wan2GP.engine.language.vision_pictures import PatchRule
from Wan2GP.engine.request import Frame
from Wan2GP.engine.stock.remembering import remembering

#: tokens of a prompt that is not about pictures
MOST_TOKENS = 1024
#: pixels of a picture that the published processors of these models allow
_MOST_PIXELS = 12_845_056

_SYSTEM, _END, _USER = "<|im_start|>system\n", "<|im_end|>\n", "<|im_start|>user\n"


@dataclass(frozen=True)
class Chat:
    """The form that a model's prompts have."""

    #: with {} where the prompt stands, as a stock pipeline writes it
    template: str
    #: what stands before the prompt for each picture, with {} for its number; empty: the template has its place
    numbered: str = ""

    def texts(self, prompt: str, role: str, pictures: int) -> tuple[str, str]:
        """The whole chat, and the part of it whose states are left out. An empty role is the model's own."""
        start = self.template.index(_SYSTEM) + len(_SYSTEM)
        own, after = self.template[start:].split(_END, 1)
        lead = f"{self.template[:start]}{without_marks(role) or own}{_END}{_USER}"
        before, behind = after.removeprefix(_USER).split("{}")
        listed = "".join(self.numbered.format(number) for number in range(1, pictures + 1))
        words = without_marks(prompt) or " "
        return f"{lead}{before}{listed}{words}{behind}", lead


@dataclass(frozen=True)
class Encoded:
    """A prompt's states (1, T, D), and whether words at its end were left out."""

    states: torch.Tensor
    cut: bool = False


class Reader:
    """Reads prompts with the text encoder of a pipeline: those about pictures in the form `chat`."""

    def __init__(self, pipeline: Any, chat: Chat, model: str) -> None:
        self._pipeline, self._model = pipeline, model
        self._about_pictures, self._about_words = chat, about_words()
        vision = pipeline.text_encoder.config.vision_config
        self._rule = PatchRule(
            vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size, most_pixels=_MOST_PIXELS
        )

    @torch.inference_mode()
    def read(self, prompt: str, role: str, pictures: Sequence[Frame]) -> Encoded:
        """The states of a prompt about pictures, in their order."""
        cut = [self._rule.patches(picture) for picture in pictures]
        chat = self._about_pictures if cut else self._about_words
        text, lead = chat.texts(prompt, role, len(cut))
        skipped, ids = len(self._ids(lead)), self._ids(text)
        too_long = not cut and len(ids) > MOST_TOKENS + skipped
        ids = ids[: MOST_TOKENS + skipped] if too_long else ids
        mark = self._pipeline.text_encoder.config.image_token_id
        ids = with_places(ids, mark, [self._rule.tokens(grid) for _, grid in cut], self._model)
        states = self._states(torch.tensor([ids]), mark, cut)
        return Encoded(states[:, skipped:].to(self._pipeline.transformer.dtype), too_long)

    def _ids(self, text: str) -> list[int]:
        found: list[int] = self._pipeline.tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    def _states(self, tokens: torch.Tensor, mark: int, cut: Sequence[tuple[Any, tuple[int, int, int]]]) -> torch.Tensor:
        encoder, device = self._pipeline.text_encoder, self._pipeline._execution_device
        tokens = tokens.to(device)
        inputs: dict[str, torch.Tensor] = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
        if cut:
            values = torch.from_numpy(np.concatenate([patches for patches, _ in cut]))
            inputs |= {
                "pixel_values": values.to(device, encoder.dtype),
                "image_grid_thw": torch.tensor([grid for _, grid in cut], device=device),
                "mm_token_type_ids": (tokens == mark).int(),
            }

        def read() -> torch.Tensor:
            # The words that would come next are not asked for.
            answer = encoder(**inputs, output_hidden_states=True, use_cache=False, logits_to_keep=1)
            found: torch.Tensor = answer.hidden_states[-1]
            return found

        return remembering(self._pipeline).of("text", ["text_encoder"], [inputs], read)


def about_pictures() -> Chat:
    """The form of Edit-Plus: its pictures are numbered before the prompt."""
    from diffusers import QwenImageEditPlusPipeline

    return Chat(_template_of(QwenImageEditPlusPipeline), numbered=f"Picture {{}}: {PICTURE}")


def about_a_picture() -> Chat:
    """The form of Edit: one picture, before the prompt."""
    from diffusers import QwenImageEditPipeline

    return Chat(_template_of(QwenImageEditPipeline))


def about_words() -> Chat:
    """The form of Qwen-Image: the prompt alone."""
    from diffusers import QwenImagePipeline

    return Chat(_template_of(QwenImagePipeline))


def _template_of(cls: Any) -> str:
    """The text that a stock pipeline puts around a prompt."""
    import inspect

    parts = [name for name in inspect.signature(cls.__init__).parameters if name != "self"]
    template: str = cls(**dict.fromkeys(parts)).prompt_template_encode
    return template
