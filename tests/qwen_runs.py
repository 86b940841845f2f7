"""A tiny Qwen-Image model in tests: its requests, the latents of a run, and what its transformer was asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_qwen import TINY_QWEN

from Wan2GP.definitions import load_definitions
from Wan2GP.engine.families import Cancel, Place, family
from Wan2GP.engine.qwen.requests import plan_of
from Wan2GP.engine.qwen.run import Run
from Wan2GP.engine.request import GenerationRequest, parse_request
from Wan2GP.engine.stock.loras import lora_set
from Wan2GP.engine.stock.running import Stepping

STILL = {
    "prompt": "a red circle", "negative_prompt": "ring", "resolution": "64x64", "seed": 5, "num_inference_steps": 4,
    "guidance_scale": 3.0,
}  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """One pass of the transformer."""

    timestep: float
    #: tokens of the picture and those to go by
    tokens: int
    #: mean of the prompt's states, which tells prompts apart
    prompt: float
    #: a weight of the transformer, which tells LoRAs apart
    weight: torch.Tensor


class Tiny:
    """One tiny model on disk and in memory, under the architecture's own row of definitions."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        architecture = load_definitions()[name].architecture_name
        self.weights = TINY_QWEN[architecture](folder / "weights")
        self.rows = folder / "rows"
        self.rows.mkdir()
        row = {"model": {"source": str(self.weights.resolve()), "devices": []}}
        (self.rows / f"{name}.json").write_text(json.dumps(row), encoding="utf-8")
        self.definition = load_definitions([self.rows])[name]
        engine = self.definition.architecture.engine
        assert engine is not None
        self.family: Any = family(engine)
        self.load()

    def load(self) -> None:
        """Load what is on disk."""
        self.model: Any = self.family(self.definition, Place(self.folder, "cpu"), lambda *_: None)
        self.pipeline = self.model._pipeline

    def request(self, **values: Any) -> GenerationRequest:
        """A request as the call makes it, checked."""
        request = parse_request(STILL | values, self.definition, self.family.reads, self.folder)
        self.family.check(request)
        return request

    def latents(self, **values: Any) -> torch.Tensor:
        """Latents (1, C, h, w) of a run."""
        request = self.request(**values)
        plan = plan_of(request)
        with lora_set(self.pipeline, request, plan.multipliers(request)) as loras:
            stepping = Stepping(len(plan.phases), loras, lambda *_: None, Cancel(lambda: False))
            return Run(self.pipeline, request, plan, self.model.conditions(request), stepping).latents()

    def frames(self, **values: Any) -> list[Any]:
        """The stills of a run."""
        return list(self.model.generate(self.request(**values), lambda *_: None, Cancel(lambda: False)))

    @contextmanager
    def watched(self) -> Iterator[list[Asked]]:
        """What the transformer is asked inside of the block."""
        calls: list[Asked] = []
        layer = self.pipeline.transformer.transformer_blocks[0].attn.to_q

        def note(module: Any, args: Any, given: dict[str, Any]) -> None:
            mean = float(given["encoder_hidden_states"].mean())
            shape = given["hidden_states"].shape[1]
            calls.append(Asked(float(given["timestep"][0]), shape, mean, layer.weight.clone()))

        hook = self.pipeline.transformer.register_forward_pre_hook(note, with_kwargs=True)
        try:
            yield calls
        finally:
            hook.remove()


def tiny_models(folders: pytest.TempPathFactory) -> Callable[[str], Tiny]:
    """The tiny model of a definition, built once."""
    made: dict[str, Tiny] = {}

    def of(name: str) -> Tiny:
        if name not in made:
            made[name] = Tiny(folders.mktemp(name), name)
        return made[name]

    return of
