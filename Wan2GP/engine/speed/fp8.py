"""Which linear layers of a transformer compute in 8 bits: those that are faster so on this device.

Only layers that see the video's tokens are looked at: of attention to the video, the question and the result of
attention to the prompt, and the feed-forward layers. They are 99 % of the work; what is left (the prompt, the moment,
the ends of the network) decides more and gains nothing.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from Wan2GP.engine.speed.attention import TOKENS, WORTH_IT
from Wan2GP.engine.speed.choices import Choices
from Wan2GP.engine.speed.timing import card, timed
from Wan2GP.errors import ModelUnavailable
from Wan2GP.weights.fp8 import SIDE, Fp8Linear, put_in_fp8, stored_in_fp8

logger = logging.getLogger(__name__)

#: the least compute capability of an NVIDIA GPU that multiplies float8
CAPABILITY = (8, 9)
IN_FP8, IN_16_BITS = "fp8", "16 bits"

_WORKING = re.compile(
    r"(vace_)?blocks\.\d+\.(attn1\.(to_q|to_k|to_v|to_out\.0)|attn2\.(to_q|to_out\.0)|ffn\.net\.(0\.proj|2))"
)
#: what a kernel that cannot run here raises
_CANNOT = (RuntimeError, NotImplementedError, ValueError)


@dataclass(frozen=True)
class Timed:
    """Seconds of one layer in each form."""

    plain: float
    fp8: float

    @property
    def better(self) -> str:
        """The form that is faster by more than noise; 16 bits in doubt."""
        return IN_FP8 if self.fp8 < self.plain * WORTH_IT else IN_16_BITS


def check_fp8(device: torch.device) -> None:
    """Raises ModelUnavailable for a device that does not multiply float8."""
    if device.type == "cuda" and torch.version.hip is None:
        if torch.cuda.get_device_capability(device) >= CAPABILITY:
            return
        what = card(device)
    else:
        what = str(device)
    raise ModelUnavailable(
        f"transformers cannot compute in fp8 on {what}: that takes an NVIDIA GPU of compute capability 8.9 or newer "
        "(Ada, Hopper, Blackwell); use --wgp-transformer-quantization bf16"
    )


def working_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers that may compute in 8 bits and do not yet, by name."""
    return {
        name: layer
        for name, layer in model.named_modules()
        if _WORKING.fullmatch(name)
        and isinstance(layer, nn.Linear)
        and not isinstance(layer, Fp8Linear)
        and layer.in_features % SIDE == layer.out_features % SIDE == 0
    }


@dataclass(frozen=True)
class Fp8Choice:
    """Which layers pay on a device, by measuring each size once for each device and version of torch."""

    device: torch.device
    #: where measured choices are kept
    folder: Path
    compiled: bool = False
    tokens: int = TOKENS

    def layers(self, model: nn.Module) -> list[str]:
        """Names of the layers of a transformer that compute in 8 bits here."""
        working = working_layers(model)
        sizes = {(layer.out_features, layer.in_features) for layer in working.values()}
        better = {size: self._form(size) for size in sorted(sizes)}
        found = [name for name, each in working.items() if better[each.out_features, each.in_features] == IN_FP8]
        told = ", ".join(f"{out}x{in_} in {form}" for (out, in_), form in better.items())
        logger.info("%d of %d layers compute in fp8 (%s)", len(found), len(working), told)
        return found

    def _form(self, size: tuple[int, int]) -> str:
        mode = "compiled" if self.compiled else "as they are"
        key = f"linear {size[0]}x{size[1]} on {card(self.device)}, torch {torch.__version__}, {mode}"
        return Choices(self.folder / "measured_choices.json").of(key, lambda: self._measured(size))

    def _measured(self, size: tuple[int, int]) -> str:
        try:
            dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
            return measure_linear(size, dtype, self.device, compiled=self.compiled, tokens=self.tokens).better
        except torch.OutOfMemoryError:  # which says nothing of the kernel, and must not be remembered as if it did
            raise
        except _CANNOT as error:
            logger.warning("a layer of %s does not run in fp8 here: %s", size, error)
            return IN_16_BITS


@torch.inference_mode()
def measure_linear(
    size: tuple[int, int],
    dtype: torch.dtype,
    device: torch.device,
    *,
    compiled: bool,
    tokens: int = TOKENS,
    repeats: int = 5,
) -> Timed:
    """A layer of (out, in) features on random (tokens, in), in each form."""
    out, in_ = size
    plain = nn.Linear(in_, out, device=device, dtype=dtype)
    rows = torch.randn((tokens, in_), device=device, dtype=dtype)
    forms = [_faster(each, compiled) for each in (plain, in_fp8(plain))]
    return Timed(*(timed(lambda form=form: form(rows), device, repeats) for form in forms))  # type: ignore[misc]


def in_fp8(plain: nn.Linear) -> Fp8Linear:
    """The same layer in 8 bits, where it is."""
    holder = nn.ModuleDict({"layer": plain})
    put_in_fp8(holder, ["layer"])
    layer, device = holder["layer"], plain.weight.device
    assert isinstance(layer, Fp8Linear)
    stored = stored_in_fp8("layer", plain.weight.data, None, device)
    bias = {} if plain.bias is None else {"layer.bias": plain.bias.data}
    holder.load_state_dict(stored | bias, assign=True)
    return layer.requires_grad_(False).to(device)


def _faster(layer: nn.Module, compiled: bool) -> Callable[[torch.Tensor], torch.Tensor]:
    return torch.compile(layer, dynamic=False) if compiled else layer
