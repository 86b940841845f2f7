"""Linear layers in 8 bits: float8_e4m3 weights with a scale for each row, and inputs scaled row by row as they come.

Both factors of the product are float8_e4m3 (3 bits of mantissa, so a number is off by 1/16 of itself at most), their
scales are the largest magnitude of each row over 448, and the product is added up and scaled in higher precision
(Micikevicius et al. 2022, "FP8 formats for deep learning", arXiv 2209.05433).
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn import functional

E4M3 = torch.float8_e4m3fn
#: the largest number of the type
MOST = torch.finfo(E4M3).max
#: the kernels take sides that are multiples of this
SIDE = 16
#: keeps a row of zeros from dividing by zero
_LEAST = 1e-12


def quantised(rows: Tensor) -> tuple[Tensor, Tensor]:
    """(N, K) -> float8_e4m3 (N, K) and the scale of each row, float32 (N, 1): rows are about their product.

    The scale is a number of the rows' own type, so that it can be divided by in that type.
    """
    largest = torch.linalg.vector_norm(rows, float("inf"), dim=-1, keepdim=True)
    scale = largest.float().clamp_min(_LEAST).div(MOST).to(rows.dtype)
    return (rows / scale).to(E4M3), scale.float()


class Fp8Linear(nn.Linear):
    """A linear layer that computes in float8_e4m3. It stands where an `nn.Linear` stood, under the same names.

    `weight` is float8_e4m3 (out, in), `scale` float32 (1, out); both are read, never trained. A LoRA is not merged into
    so few bits, most of it would be rounded away: its factors stand `beside` the weight, in 16 bits.
    """

    scale: Tensor

    def __init__(self, plain: nn.Linear) -> None:
        """The empty form of a layer; its weights are loaded afterwards."""
        super().__init__(plain.in_features, plain.out_features, plain.bias is not None, "meta", plain.weight.dtype)
        self.weight = nn.Parameter(torch.empty_like(self.weight, dtype=E4M3), requires_grad=False)
        self.register_buffer("scale", torch.empty((1, self.out_features), device="meta"))
        self.beside: tuple[Tensor, Tensor] | None = None

    def forward(self, input: Tensor) -> Tensor:
        """(..., in) -> (..., out) in the input's type."""
        rows = input.reshape(-1, self.in_features)
        found = self._product(rows)
        if self.beside is not None:
            if self.beside[0].device != rows.device:  # the layer rests elsewhere than where it computes
                self.put_beside(*self.beside, like=rows)
            down, up = self.beside
            found = found + functional.linear(functional.linear(rows, down), up)
        return found.view(*input.shape[:-1], self.out_features)

    def put_beside(self, down: Tensor, up: Tensor, like: Tensor | None = None) -> None:
        """Add `up` (out, R) @ `down` (R, in) to what the weight does; in the bias's type and where the weight is, or as
        `like` is."""
        place, kind = (self.weight.device, self.numbers) if like is None else (like.device, like.dtype)
        self.beside = down.to(place, kind), up.to(place, kind)

    @property
    def numbers(self) -> torch.dtype:
        """The type of the numbers that go in and come out."""
        return torch.bfloat16 if self.bias is None else self.bias.dtype

    def _product(self, rows: Tensor) -> Tensor:
        data, scale = quantised(rows)
        # The kernel of an accelerator that scales by rows writes bfloat16 alone.
        kind = torch.bfloat16 if rows.is_cuda else rows.dtype
        bias = None if self.bias is None else self.bias.to(kind)
        found = torch._scaled_mm(
            data, self.weight.t(), scale_a=scale, scale_b=self.scale, bias=bias, out_dtype=kind, use_fast_accum=True
        )
        return found.to(rows.dtype)


def put_in_fp8(model: nn.Module, names: Collection[str]) -> None:
    """Put the empty 8-bit form in the place of each linear layer of these names."""
    for name in names:
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, Fp8Linear(_linear(model, name)))


def _linear(model: nn.Module, name: str) -> nn.Linear:
    layer = model.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    return layer


def stored_in_fp8(layer: str, weight: Tensor, scale: Tensor | None, device: torch.device) -> dict[str, Tensor]:
    """The two tensors of a layer in 8 bits, by name: those of the file where it holds them, `scale` being its own
    (one number, or one a row); else made of `weight` on `device`, in float32."""
    if weight.dtype == E4M3:
        whole = torch.ones(()) if scale is None else scale.float()
        data, rows = weight, whole.reshape(1, -1).expand(1, weight.shape[0])
    else:
        data, column = quantised(weight.to(device, torch.float32))
        data, rows = data.cpu(), column.reshape(1, -1).cpu()
    return {f"{layer}.weight": data, f"{layer}.scale": rows.contiguous()}
