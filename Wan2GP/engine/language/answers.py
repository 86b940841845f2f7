"""What the models that answer with text share: greedy decoding, progress by tokens."""

from __future__ import annotations

from typing import Any

import torch
from transformers import GenerationConfig, StoppingCriteria

from Wan2GP.engine.families import Cancel, Report


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
