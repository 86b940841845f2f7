"""Vision-language models (Qwen2.5-VL): a prompt and pictures in, a text out. Greedy: the same again for the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from Wan2GP.definitions import ModelDefinition
from Wan2GP.engine.families import Cancel, Place, Report
from Wan2GP.engine.language.answers import EachToken, TextModel, greedy
from Wan2GP.engine.language.chat_marks import PICTURE, with_places, without_marks
from Wan2GP.engine.language.vision_pictures import PatchRule
from Wan2GP.engine.request import Frame, GenerationRequest
from Wan2GP.errors import EmptyAnswer, InvalidInput

#: longest answer, in tokens
MAX_NEW_TOKENS = 256
MAX_PICTURES = 8

_SYSTEM = "You are a helpful assistant."
#: ChatML, for a tokenizer that brings no template of its own
_CHAT = (
    "<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{pictures}{prompt}<|im_end|>\n<|im_start|>assistant\n"
)


class VisionLanguage(TextModel):
    """Answers a prompt about pictures (`image_refs`), in the order in which they were given, in the role that
    `system_prompt` describes."""

    reads = frozenset({"prompt", "system_prompt", "image_refs"})
    network = Qwen2_5_VLForConditionalGeneration

    def __init__(self, definition: ModelDefinition, place: Place, report: Report) -> None:
        """Load, as every model that answers; how it cuts pictures stands in its configuration."""
        super().__init__(definition, place, report)
        vision = self._model.config.vision_config
        self._rule = PatchRule(vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size)

    @classmethod
    def check(cls, request: GenerationRequest) -> None:
        """Raises InvalidInput for no prompt, too many pictures, or pictures of a shape that cannot be read."""
        super().check(request)
        if not without_marks(request.prompt):
            raise InvalidInput("is missing; say what the model shall write", field="prompt")
        if len(request.references) > MAX_PICTURES:
            raise InvalidInput(
                f"takes up to {MAX_PICTURES} pictures, not {len(request.references)}", field="image_refs"
            )
        for picture in request.references:
            PatchRule().size(picture.shape[1], picture.shape[0])

    @torch.inference_mode()
    def generate(self, request: GenerationRequest, report: Report, cancel: Cancel) -> str:
        """The answer. Raises GenerationCancelled within a token, EmptyAnswer for one without a word."""
        cancel.raise_if_requested()
        report("encoding", 0, 1)
        system = without_marks(str(request.settings["system_prompt"]))
        inputs = self._inputs(without_marks(request.prompt), request.references, system)
        report("encoding", 1, 1)
        watch: Any = EachToken(report, cancel, MAX_NEW_TOKENS)
        config = greedy(self._model, self._tokenizer.pad_token_id, MAX_NEW_TOKENS)
        output = self._model.generate(**inputs, generation_config=config, stopping_criteria=[watch])
        new = output[0, inputs["input_ids"].shape[1] :]
        answer = str(self._tokenizer.decode(new, skip_special_tokens=True)).strip()
        if not answer:
            raise EmptyAnswer(f"{self._name} gave an empty answer")
        return answer

    def _inputs(self, prompt: str, pictures: tuple[Frame, ...], system: str) -> dict[str, torch.Tensor]:
        """Token ids, in which each picture has as many places as it has tokens, and the pictures' patches."""
        cut = [self._rule.patches(picture) for picture in pictures]
        mark = self._model.config.image_token_id
        counts = [self._rule.tokens(grid) for _, grid in cut]
        ids = with_places(self._chat(prompt, len(pictures), system), mark, counts, self._name)
        tokens = torch.tensor([ids], device=self._device)
        inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
        if cut:
            values = torch.from_numpy(np.concatenate([patches for patches, _ in cut]))
            inputs |= {
                "pixel_values": values.to(self._device, self._model.dtype),
                "image_grid_thw": torch.tensor([grid for _, grid in cut], device=self._device),
                "mm_token_type_ids": (tokens == mark).int(),
            }
        return inputs

    def _chat(self, prompt: str, pictures: int, system: str) -> list[int]:
        """The ids of a conversation in which a user shows the pictures and says the prompt."""
        if self._tokenizer.chat_template:
            content = [*({"type": "image"} for _ in range(pictures)), {"type": "text", "text": prompt}]
            said: list[dict[str, Any]] = [{"role": "user", "content": content}]
            if system:
                said.insert(0, {"role": "system", "content": [{"type": "text", "text": system}]})
            text = self._tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
        else:
            text = _CHAT.format(system=system or _SYSTEM, pictures=PICTURE * pictures, prompt=prompt)
        found: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return found
