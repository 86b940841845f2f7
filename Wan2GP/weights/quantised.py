"""Undoing the quantisations that single files use: scaled fp8 and quanto's int8.

A scaled fp8 file holds `L.weight` in float8 and `L.scale_weight` (or `L.weight_scale`), and an empty `scaled_fp8`;
quanto holds `L.weight._data` and `L.weight._scale`. The weight is their product, the scale being one number or one a
row. Scales of inputs and outputs concern kernels that compute in 8 bits and are left out. A file that says it is
quantised and lacks a scale would load without an error and draw noise, so it is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from Wan2GP.errors import ModelUnavailable

if TYPE_CHECKING:
    from Wan2GP.weights.reader import Stored

#: what marks a file of scaled fp8 weights
_MARKER = "scaled_fp8"
_SCALES = ("scale_weight", "weight_scale")
_ACTIVATIONS = ("scale_input", "input_scale", "scale_output", "output_scale")
_DATA, _SCALE = "._data", "._scale"


def dequantised(stored: Mapping[str, Stored], path: Path) -> dict[str, Stored]:
    """The same tensors with scales applied on reading (float32). Raises ModelUnavailable where one is missing."""
    kept = {name: each for name, each in stored.items() if name.rpartition(".")[2] not in (*_ACTIVATIONS, _MARKER)}
    pairs = _pairs(kept)
    scales = {scale for _, scale in pairs.values()}
    found: dict[str, Stored] = {}
    for name, each in kept.items():
        if name in scales:
            continue
        weight = name.removesuffix(_DATA)
        if weight in pairs:
            data, scale = pairs[weight]
            found[weight] = _scaled(kept, data, scale, path)
        else:
            found[name] = each
    _check_all_scaled(found, stored, {data for data, _ in pairs.values()}, path)
    return found


def _pairs(stored: Mapping[str, Stored]) -> dict[str, tuple[str, str]]:
    """Weight -> (its data, its scale), by name."""
    found = {}
    for name in stored:
        layer, _, last = name.rpartition(".")
        if last in _SCALES:
            found[f"{layer}.weight"] = (f"{layer}.weight", name)
        elif name.endswith(_SCALE):
            weight = name.removesuffix(_SCALE)
            found[weight] = (weight + _DATA, name)
    return found


def _scaled(stored: Mapping[str, Stored], data: str, scale: str, path: Path) -> Stored:
    if data not in stored:
        raise ModelUnavailable(f"{path}: there is a scale {scale} but no {data}; the file is damaged")
    quantised, factor = stored[data], stored[scale]
    if quantised.dtype not in (torch.int8, torch.float8_e4m3fn, torch.float8_e5m2):
        raise ModelUnavailable(f"{path}: {data} is quantised in a way that this version cannot read: {quantised.dtype}")
    eight_bits = (lambda: (quantised.load(), factor.load())) if quantised.dtype == torch.float8_e4m3fn else None
    return replace(quantised, dtype=torch.float32, load=_product(quantised.load, factor.load), eight_bits=eight_bits)


def _product(data: Callable[[], torch.Tensor], scale: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
    def load() -> torch.Tensor:
        values, factor = data().float(), scale().float()
        per_row = factor.numel() == values.shape[0] and factor.numel() > 1
        return values * (factor.reshape(-1, *[1] * (values.dim() - 1)) if per_row else factor)

    return load


def _check_all_scaled(found: Mapping[str, Stored], stored: Mapping[str, Stored], scaled: set[str], path: Path) -> None:
    marked = any(name.rpartition(".")[2] == _MARKER for name in stored)
    for name, each in found.items():
        integers = not each.dtype.is_floating_point and len(each.shape) > 1
        unscaled = marked and each.dtype.itemsize == 1 and name not in scaled
        if integers or unscaled or name.endswith(_DATA):
            raise ModelUnavailable(f"{path}: {name} is quantised and the file lacks its scale; get another file")
