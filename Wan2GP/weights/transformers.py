"""Transformers out of weights files, strictly: every name, every shape, and values that a network can have.

diffusers' own loader fills what a file lacks with placeholders, and loads scaled fp8 weights without their scales. Here
a file that does not fit exactly is refused, by the names of what does not fit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import init_empty_weights

from Wan2GP.errors import ModelUnavailable
from Wan2GP.weights.fp8 import put_in_fp8, stored_in_fp8
from Wan2GP.weights.reader import Stored, converted, stored_tensors

Module = TypeVar("Module", bound=torch.nn.Module)

#: a matrix of larger root mean square is no trained weight (0.02 is usual; fp8 without its scale has about 100)
_MOST_RMS = 10.0
_SHOWN = 3
_ALIGNMENT_BYTES = 64


def transformer_from_files(
    files: Sequence[Path],
    *,
    config: Mapping[str, Any],
    cls: type[Module],
    dtype: torch.dtype,
    in_fp8: Callable[[Module], Collection[str]] | None = None,
    device: torch.device | None = None,
) -> Module:
    """A transformer of class `cls` on the CPU with the weights of all files together, later ones over earlier ones.

    A file is a single file, a shard index or a folder in diffusers' format. What the class keeps in float32 stays so.
    The linear layers that `in_fp8` names compute in 8 bits (`Wan2GP.weights.fp8`); those that are stored so are taken
    as they are, others are converted on `device` (None: the CPU).
    Raises ModelUnavailable that names the file and what is missing, left over, of a wrong shape or not a number.
    """
    model = _empty(cls, config)
    stored = _fitting(files, model)
    exact = tuple(getattr(cls, "_keep_in_fp32_modules", None) or ())
    eight_bits = {f"{layer}.weight" for layer in in_fp8(model)} if in_fp8 is not None else set()
    put_in_fp8(model, [name.removesuffix(".weight") for name in eight_bits])
    weights = {}
    for name, each in stored.items():
        tensor = each.load()
        _check_values(name, tensor, files)
        if name in eight_bits:
            weights |= _in_eight_bits(name, each, tensor, device or torch.device("cpu"))
            continue
        weights[name] = _aligned(converted(tensor, torch.float32 if set(exact) & set(name.split(".")) else dtype))
    model.load_state_dict(weights, strict=True, assign=True)
    return model.eval().requires_grad_(False)


def _in_eight_bits(name: str, stored: Stored, plain: torch.Tensor, device: torch.device) -> dict[str, torch.Tensor]:
    weight, scale = stored.eight_bits() if stored.eight_bits is not None else (plain, None)
    made = stored_in_fp8(name.removesuffix(".weight"), weight, scale, device)
    return {each: _aligned(tensor) for each, tensor in made.items()}


def check_fit(files: Sequence[Path], *, config: Mapping[str, Any], cls: type[torch.nn.Module]) -> int:
    """Compare names and shapes without reading the weights; how many there are. Raises ModelUnavailable."""
    return len(_fitting(files, _empty(cls, config)))


def _empty(cls: type[Module], config: Mapping[str, Any]) -> Module:
    """The module without memory for its weights; its buffers are real, since no file holds them."""
    with init_empty_weights(include_buffers=False):
        return cls.from_config({name: value for name, value in config.items() if not name.startswith("_")})


def _fitting(files: Sequence[Path], model: torch.nn.Module) -> dict[str, Stored]:
    found: dict[str, Stored] = {}
    for file in files:
        found |= stored_tensors(file)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    ignored = getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()
    found = {
        name: each
        for name, each in found.items()
        if name in expected or not any(re.search(pattern, name) for pattern in ignored)
    }
    problems = [
        *_named("lacks", sorted(set(expected) - set(found))),
        *_named("holds what the model has no place for:", sorted(set(found) - set(expected))),
        *_named("has other shapes:", _other_shapes(found, expected)),
    ]
    if problems:
        raise ModelUnavailable(f"{_names(files)} does not fit {type(model).__name__}: it {'; it '.join(problems)}")
    return found


def _other_shapes(found: Mapping[str, Stored], expected: Mapping[str, tuple[int, ...]]) -> list[str]:
    return [
        f"{name} {found[name].shape} for {shape}"
        for name, shape in expected.items()
        if name in found and found[name].shape != shape
    ]


def _named(what: str, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return [f"{what} {', '.join(names[:_SHOWN])}{more}"]


def _aligned(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor where fast kernels want it: at an odd address in a mapped file, sums round differently."""
    tensor = tensor.contiguous()
    return tensor.clone() if tensor.data_ptr() % _ALIGNMENT_BYTES else tensor


def _check_values(name: str, tensor: torch.Tensor, files: Sequence[Path]) -> None:
    if not tensor.is_floating_point():
        return
    exact = tensor.float()
    if not torch.isfinite(exact).all():
        raise ModelUnavailable(
            f"{_names(files)}: {name} holds values that are not numbers; delete the file and fetch again"
        )
    if exact.dim() > 1 and exact.square().mean().sqrt() > _MOST_RMS:
        raise ModelUnavailable(
            f"{_names(files)}: the values of {name} are too large for weights; were the scales of quantised ones lost?"
        )


def _names(files: Sequence[Path]) -> str:
    return " with ".join(map(str, files))
