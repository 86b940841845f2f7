"""What the models that answer with text share: how they are loaded, greedy decoding, progress by tokens."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from transformers import AutoTokenizer, GenerationConfig, StoppingCriteria

from Wan2GP.definitions import ModelDefinition
from Wan2GP.engine.families import Cancel, Place, Report
from Wan2GP.engine.folder_models import load_from_folder, read_folder
from Wan2GP.engine.loading import free_memory, weights_dtype
from Wan2GP.engine.request import GenerationRequest
from Wan2GP.errors import Unsupported


class TextModel:
    """A network and its tokenizer out of one folder."""

    #: class of the transformers library
    network: ClassVar[Any]
    remarks: tuple[str, ...] = ()

    def __init__(self, definition: ModelDefinition, place: Place, report: Report) -> None:
        """Load: bfloat16 on an accelerator, float32 on a CPU. Raises ModelUnavailable."""
        self._interrupt = False
        self.notes: tuple[str, ...] = ()
        self._name, self._device = definition.id, place.device
        report("loading", 0, 1)
        self._tokenizer: Any = read_folder(
            definition, place, lambda folder: AutoTokenizer.from_pretrained(folder, local_files_only=True)
        )
        self._model: Any = load_from_folder(self.network, definition, place, weights_dtype(place.device))
        report("loading", 1, 1)

    @classmethod
    def check(cls, request: GenerationRequest) -> None:
        """Raises Unsupported for a still."""
        if request.image_output:
            raise Unsupported(f"{request.definition.id} writes text, no stills", field="image_mode")

    def release(self) -> None:
        """Give back all memory."""
        self._model = self._tokenizer = None
        free_memory()


def greedy(model: Any, pad_token_id: int | None, most_tokens: int) -> GenerationConfig:
    """Always the likeliest token: the same again for the same input. Where an answer ends is the model's own."""
    own = model.generation_config
    return GenerationConfig(
        do_sample=False,
        temperature=1.0,
        top_p=1.0,
        max_new_tokens=most_tokens,
        repetition_penalty=own.repetition_penalty or 1.0,
        eos_token_id=own.eos_token_id,
        pad_token_id=pad_token_id,
    )


class EachToken(StoppingCriteria):  # type: ignore[misc]
    """Reports each token as a step of "decoding", and raises when the run shall stop."""

    def __init__(self, report: Report, cancel: Cancel, most_tokens: int) -> None:
        self._report, self._cancel, self._most, self._tokens = report, cancel, most_tokens, 0

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        """Never stops by itself; raises GenerationCancelled."""
        self._cancel.raise_if_requested()
        self._tokens += 1
        self._report("decoding", self._tokens, self._most)
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)
