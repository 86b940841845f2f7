"""One window's conditions of a tiny Wan model, and every pass of its transformer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from wan_runs import Tiny

from Wan2GP.engine.request import GenerationRequest
from Wan2GP.engine.wan.architectures import conditions_class
from Wan2GP.engine.wan.conditions import Conditions
from Wan2GP.engine.wan.media import context_of, last_frames, prompt_of, source_frames, spans_of, window_of
from Wan2GP.engine.wan.steps import Step, plan_steps


@dataclass(frozen=True)
class Pass:
    """What the transformer saw and answered."""

    hidden: torch.Tensor
    prompt: torch.Tensor
    found: torch.Tensor


def conditions_of(tiny: Tiny, **values: Any) -> Conditions:
    """The conditions of a request's first window."""
    request = tiny.request(**values)
    spans = spans_of(request)
    before = last_frames(source_frames(request), context_of(request, spans[0]), request)
    window = window_of(request, 0, spans[0], len(spans), before)
    prompts = tiny.prompts(prompt_of(request, 0), request.negative_prompt)
    return conditions_class(request)(tiny.parts, request, window, prompts)


def first_step(request: GenerationRequest) -> Step:
    return plan_steps(request.sampling, ("transformer",))[0][0]


def predicted(conditions: Conditions) -> torch.Tensor:
    """The velocity of the first step, from noise of seed 0."""
    noise = torch.randn(conditions.latent_shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return conditions.predict(first_step(conditions.request), noise)


@contextmanager
def passes(transformer: Any) -> Iterator[list[Pass]]:
    """Every pass of the transformer while the block runs."""
    seen: list[Pass] = []

    def note(module: Any, args: Any, named: dict[str, Any], found: Any) -> None:
        seen.append(Pass(named["hidden_states"].clone(), named["encoder_hidden_states"].clone(), found[0].clone()))

    hook = transformer.register_forward_hook(note, with_kwargs=True)
    try:
        yield seen
    finally:
        hook.remove()
