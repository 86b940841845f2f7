"""What a LoRA's layer adds to a weight: the arithmetic of each kind of LoRA.

Every kind is computed from its small factors when asked, in float32 on the weight's device, so that nothing of the size
of a model is ever kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from Wan2GP.engine.lora.files import FIELD, Layer
from Wan2GP.errors import InvalidInput

#: parts of a layer that are factors of a product, and the kind of LoRA that they make
_KINDS: Mapping[str, str] = {
    "down": "lora",
    "up": "lora",
    **{f"hada_w{which}_{side}": "loha" for which in (1, 2) for side in "ab"},
    **{f"lokr_w{which}{side}": "lokr" for which in (1, 2) for side in ("", "_a", "_b")},
}


class Delta(Protocol):
    """What is added to one weight at multiplier 1."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the weight that this was made for."""

    def of(self, weight: Tensor) -> Tensor:
        """The addition to `weight` (float32), of the same shape and on the same device."""


@dataclass(frozen=True)
class Direct:
    """The difference itself."""

    diff: Tensor
    scale: float = 1.0

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.diff.shape)

    def of(self, weight: Tensor) -> Tensor:
        return _like(self.diff, weight).reshape(weight.shape) * self.scale


@dataclass(frozen=True)
class LowRank:
    """up @ down, (out, rank) @ (rank, in …); convolutions keep their kernel in `down`. Hu et al. 2021, "LoRA"."""

    down: Tensor
    up: Tensor
    scale: float

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.up.shape[0], *self.down.shape[1:])

    def of(self, weight: Tensor) -> Tensor:
        product = _like(self.up, weight).flatten(1) @ _like(self.down, weight).flatten(1)
        return product.reshape(weight.shape) * self.scale


@dataclass(frozen=True)
class Hadamard:
    """(a1 @ b1) * (a2 @ b2), element by element. LoHa: Hyeon-Woo et al. 2021, "FedPara", proposition 1."""

    first: tuple[Tensor, ...]
    second: tuple[Tensor, ...]
    scale: float

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.first[0].shape[0], *self.first[1].shape[1:])

    def of(self, weight: Tensor) -> Tensor:
        product = _product(self.first, weight) * _product(self.second, weight)
        return product.reshape(weight.shape) * self.scale


@dataclass(frozen=True)
class Kronecker:
    """The Kronecker product of two factors, each whole or a product of two. LoKr: Yeh et al. 2023, "LyCORIS"."""

    first: tuple[Tensor, ...]
    second: tuple[Tensor, ...]
    scale: float

    @property
    def shape(self) -> tuple[int, ...]:
        (out1, in1), (out2, in2) = (_sides(factor) for factor in (self.first, self.second))
        return (out1 * out2, in1 * in2, *self.second[-1].shape[2:])

    def of(self, weight: Tensor) -> Tensor:
        first, second = _product(self.first, weight), _product(self.second, weight)
        first = first.reshape(*first.shape, *[1] * (second.ndim - first.ndim))
        return torch.kron(first, second).reshape(weight.shape) * self.scale


@dataclass(frozen=True)
class Decomposed:
    """A delta, then rows (or columns) of given lengths: m * (W + d) / |W + d| - W. DoRA: Liu et al. 2024, equation 5.

    A multiplier other than 1 goes that part of the way from W to the result.
    """

    inner: Delta
    magnitude: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return self.inner.shape

    def fits(self, weight: Tensor) -> bool:
        """Whether there is one length per row or one per column of `weight`."""
        if weight.ndim < 2 or self.magnitude.ndim < 1:
            return False
        return self.magnitude.numel() == weight.shape[0 if self._by_row(weight) else 1]

    def of(self, weight: Tensor) -> Tensor:
        changed = weight + self.inner.of(weight)
        axis = 0 if self._by_row(weight) else 1
        others = [dim for dim in range(weight.ndim) if dim != axis]
        lengths = torch.linalg.vector_norm(changed, dim=others, keepdim=True)
        wanted = _like(self.magnitude, weight).reshape(lengths.shape)
        return changed * (wanted / lengths.clamp_min(torch.finfo(weight.dtype).tiny)) - weight

    def _by_row(self, weight: Tensor) -> bool:
        shape = self.magnitude.shape
        if len(shape) == 1 or shape[0] == weight.shape[0]:
            return True
        return weight.ndim > 2 and self.magnitude.numel() == weight.shape[0]


def deltas_of(layer: Layer, name: str, file: str) -> Iterator[tuple[str, Delta]]:
    """What a layer of a file does: ("weight" or "bias", delta).

    Raises InvalidInput for parts that do not belong together.
    """
    parts = layer.parts
    product = _factored(layer, name, file)
    if product is not None:
        yield "weight", Decomposed(product, parts["magnitude"]) if "magnitude" in parts else product
    elif "magnitude" in parts:
        raise InvalidInput(f"{file}: {name} has a DoRA magnitude and nothing that it belongs to", field=FIELD)
    if "diff" in parts:
        yield "weight", Direct(parts["diff"])
    if "diff_b" in parts:
        yield "bias", Direct(parts["diff_b"])
    if "up_bias" in parts:
        yield "bias", Direct(parts["up_bias"], layer.scale)


def _factored(layer: Layer, name: str, file: str) -> Delta | None:
    parts, scale = layer.parts, layer.scale
    kinds = {_KINDS[part] for part in parts if part in _KINDS}
    if not kinds:
        return None
    try:
        if kinds == {"lora"}:
            _same_rank(parts["up"], parts["down"])
            return LowRank(parts["down"], parts["up"], scale)
        if kinds == {"loha"}:
            return Hadamard(_pair(parts, "hada_w1"), _pair(parts, "hada_w2"), scale)
        if kinds == {"lokr"}:
            return Kronecker(_whole_or_pair(parts, "lokr_w1"), _whole_or_pair(parts, "lokr_w2"), scale)
    except (KeyError, ValueError) as error:
        raise InvalidInput(
            f"{file}: the weights of {name} do not belong together ({', '.join(sorted(parts))}; {error})", field=FIELD
        ) from error
    raise InvalidInput(f"{file}: {name} mixes kinds of LoRA ({', '.join(sorted(parts))})", field=FIELD)


def _pair(parts: Mapping[str, Tensor], name: str) -> tuple[Tensor, ...]:
    pair = (parts[f"{name}_a"], parts[f"{name}_b"])
    _same_rank(*pair)
    return pair


def _whole_or_pair(parts: Mapping[str, Tensor], name: str) -> tuple[Tensor, ...]:
    if name not in parts:
        return _pair(parts, name)
    if parts[name].ndim < 2:
        raise ValueError(f"{name} of shape {tuple(parts[name].shape)}")
    return (parts[name],)


def _same_rank(up: Tensor, down: Tensor) -> None:
    if up.ndim < 2 or down.ndim < 2 or up.shape[1] != down.shape[0] or math.prod(up.shape[2:]) != 1:
        raise ValueError(f"shapes {tuple(up.shape)} and {tuple(down.shape)}")


def _product(factors: tuple[Tensor, ...], weight: Tensor) -> Tensor:
    if len(factors) == 1:
        return _like(factors[0], weight)
    up, down = (_like(factor, weight) for factor in factors)
    return (up.flatten(1) @ down.flatten(1)).reshape(up.shape[0], *down.shape[1:])


def _sides(factor: tuple[Tensor, ...]) -> tuple[int, int]:
    return factor[0].shape[0], factor[-1].shape[1]


def _like(tensor: Tensor, weight: Tensor) -> Tensor:
    return tensor.to(device=weight.device, dtype=weight.dtype)
