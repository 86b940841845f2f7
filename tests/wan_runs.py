"""The Wan loop in tests: a tiny model, the latents of a request, and what its transformers were asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import TINY_WAN

from Wan2GP.definitions import ModelDefinition, load_definitions
from Wan2GP.engine.families import Cancel, Place
from Wan2GP.engine.request import GenerationRequest, parse_request
from Wan2GP.engine.wan.architectures import conditions_class
from Wan2GP.engine.wan.conditions import Prompts
from Wan2GP.engine.wan.loop import denoise
from Wan2GP.engine.wan.media import context_of, last_frames, prompt_of, source_frames, spans_of, window_of
from Wan2GP.engine.wan.model import Wan
from Wan2GP.engine.wan.steps import plan_steps
from Wan2GP.engine.wan.text import encode_prompts

CLIP = {
    "prompt": "a red circle moving right", "negative_prompt": "ring", "resolution": "64x64", "video_length": 17,
    "seed": 5, "num_inference_steps": 4, "guidance_scale": 3.0, "flow_shift": 5.0,
}  # fmt: skip


@dataclass
class Steps:
    """A loop's memory that keeps the latents after every step."""

    latents: list[torch.Tensor] = field(default_factory=list)

    def load(self) -> dict[str, Any] | None:
        return None

    def keep(self, state: Callable[[], dict[str, Any]], at_once: bool = False) -> None:
        self.latents.append(state()["latents"].clone())


@dataclass(frozen=True)
class Call:
    """One pass of a transformer."""

    expert: str
    timestep: float
    #: mean of the prompt's embedding, which tells prompts apart
    prompt: float


class Plain:
    """No LoRAs."""

    def at_step(self, step: int) -> None:
        pass


class Tiny:
    """One tiny Wan model on disk and in memory."""

    def __init__(self, folder: Path, architecture: str) -> None:
        self.weights = TINY_WAN[architecture](folder / "weights")
        self.definition = tiny_definition(folder / "rows", architecture, self.weights)
        self.model = Wan(self.definition, Place(folder, "cpu"), lambda *_: None)
        self.parts = self.model._parts

    def request(self, **values: Any) -> GenerationRequest:
        request = parse_request(CLIP | values, self.definition, Wan.reads, Path("loras"))
        Wan.check(request)
        return request

    def latents(self, *, memory: Any = None, **values: Any) -> torch.Tensor:
        """The latents of the first window."""
        request = self.request(**values)
        steps, levels = plan_steps(request.sampling, tuple(self.parts.experts), self.parts.boundary_ratio)
        spans = spans_of(request)
        before = last_frames(source_frames(request), context_of(request, spans[0]), request)
        window = window_of(request, 0, spans[0], len(spans), before)
        conditions = conditions_class(request)(
            self.parts, request, window, self.prompts(prompt_of(request, 0), request.negative_prompt)
        )
        return denoise(
            conditions, steps, levels, request.seed, Plain(), memory or Steps(), lambda *_: None, Cancel(lambda: False)
        )

    def frames(self, *, cancel: Callable[[], bool] = lambda: False, **values: Any) -> np.ndarray:
        """All frames of a request, (F, H, W, 3) uint8, before they are encoded."""
        return np.stack(list(self.model.generate(self.request(**values), lambda *_: None, Cancel(cancel))))

    def each_step(self, **values: Any) -> list[torch.Tensor]:
        """The latents after every step."""
        kept = Steps()
        self.latents(memory=kept, **values)
        return kept.latents

    def prompts(self, positive: str, negative: str) -> Prompts:
        return Prompts(*encode_prompts(self.parts, [positive, negative]))

    @contextmanager
    def watched(self) -> Iterator[list[Call]]:
        """Every pass of its transformers while the block runs."""
        calls: list[Call] = []

        def watch(expert: str) -> Callable[..., None]:
            def note(module: Any, args: Any, named: dict[str, Any]) -> None:
                moment = float(named["timestep"].flatten()[-1])
                calls.append(Call(expert, moment, float(named["encoder_hidden_states"].mean())))

            return note

        hooks = [
            expert.register_forward_pre_hook(watch(name), with_kwargs=True)
            for name, expert in self.parts.experts.items()
        ]
        try:
            yield calls
        finally:
            for hook in hooks:
                hook.remove()


def tiny_definition(folder: Path, architecture: str, weights: Path) -> ModelDefinition:
    folder.mkdir(parents=True, exist_ok=True)
    row = {"model": {"name": "Tiny", "architecture": architecture, "source": str(weights.resolve())}}
    (folder / "tiny.json").write_text(json.dumps(row), encoding="utf-8")
    return load_definitions([folder])["tiny"]


def tiny_models(folders: pytest.TempPathFactory) -> Callable[[str], Tiny]:
    """The tiny model of an architecture, built once."""
    made: dict[str, Tiny] = {}

    def of(architecture: str) -> Tiny:
        if architecture not in made:
            made[architecture] = Tiny(folders.mktemp(architecture), architecture)
        return made[architecture]

    return of
