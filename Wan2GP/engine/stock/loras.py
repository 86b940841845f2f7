"""LoRAs of the stock families: files in every naming that diffusers can read, merged per step as ours are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from Wan2GP.engine.lora.merging import LoraSet
from Wan2GP.engine.lora.multipliers import plan_multipliers
from Wan2GP.engine.request import GenerationRequest

_PREFIXES = ("transformer.", "diffusion_model.")
#: weights that diffusers' conversions leave out without a word
_LOST = ("dora_scale", "lora_magnitude_vector", ".diff", ".diff_b", "lokr_", "hada_")


def schedules(request: GenerationRequest, phases: Iterable[int], most: int = 1) -> list[tuple[float, ...]]:
    """The multiplier of each of the request's LoRAs at each step, whose phases (from 1) are given."""
    names = [file.name for file in request.loras.files]
    return plan_multipliers(names, " ".join(request.loras.multipliers), list(phases), most)


def lora_set(pipeline: Any, request: GenerationRequest, multipliers: list[tuple[float, ...]]) -> LoraSet:
    """The request's LoRAs on the pipeline's transformer. Use it as a context manager.

    Raises InvalidInput or Unsupported that names the file.
    """
    transformer = pipeline.transformer
    return LoraSet(
        {"transformer": transformer},
        request.loras.files,
        multipliers,
        renamed=_to_diffusers(pipeline, transformer),
    )


def _to_diffusers(pipeline: Any, transformer: nn.Module) -> Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]:
    """Renames the tensors of a file to the transformer's own layers, where they have other names."""
    layers = {name.rpartition(".")[0] for name, _ in transformer.named_parameters()}
    flat = {layer.replace(".", "_") for layer in layers}

    def rename(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        bare = {_bare(key): value for key, value in tensors.items()}
        if any(_begins(key, layers) or _begins(_flat(key), flat) for key in bare):
            return bare
        if lost := next((key for key in tensors if any(part in key for part in _LOST)), None):
            raise ValueError(f"{lost} is of a kind that cannot be renamed to this model's layers")
        converted: Mapping[str, Tensor] = pipeline.lora_state_dict(dict(tensors))
        return {_bare(key): value for key, value in converted.items()}

    return rename


def _bare(key: str) -> str:
    for prefix in _PREFIXES:
        if key.startswith(prefix):
            return key.removeprefix(prefix)
    return key


def _flat(key: str) -> str:
    """The name without a trainer's prefix, as files write it that have underscores for dots."""
    return key.removeprefix("lora_unet_").removeprefix("lora_transformer_")


def _begins(key: str, layers: set[str]) -> bool:
    """Whether a layer is the beginning of a dotted name."""
    parts = key.split(".")
    return any(".".join(parts[:length]) in layers for length in range(1, len(parts)))
