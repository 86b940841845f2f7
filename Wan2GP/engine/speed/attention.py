"""Which of the installed attention kernels a transformer computes with.

`auto` measures those that are installed on the device, once for each device, version of torch and diffusers, number
type and shape, and takes the fastest of those whose result is that of torch's own kernel up to rounding. One that
rounds more (SageAttention computes in 8 bits) is used where it is asked for by name alone. On a CPU there is one kernel
worth using, torch's own, and nothing is measured.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import diffusers
import torch
from diffusers.models.attention_dispatch import attention_backend, dispatch_attention_fn

from Wan2GP.engine.speed.choices import Choices
from Wan2GP.engine.speed.timing import card, timed
from Wan2GP.errors import InvalidInput, ModelUnavailable

logger = logging.getLogger(__name__)

#: torch's own
NATIVE = "native"
#: what `auto` measures: diffusers' names of kernels that need no download
KERNELS = (NATIVE, "_native_cudnn", "_native_flash", "_native_efficient", "flash", "_flash_3", "sage", "xformers")
#: mode, as users know it -> kernels that it stands for, the best first
MODES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "sdpa": (NATIVE,),
        "flash": ("_flash_3", "flash"),
        "sage": ("sage",),
        "sage2": ("sage",),
        "xformers": ("xformers",),
    }
)
#: relative error (root of mean squares) up to which a kernel's result is another rounding of the same; that of bfloat16
#: is about 0.004
ROUNDING = 0.01
#: a kernel must be so much faster than torch's own to take its place
WORTH_IT = 0.97
#: tokens of 81 frames of 832x480, the common size
TOKENS = 32_760
#: what a kernel that cannot run here raises
_CANNOT = (RuntimeError, ImportError, ValueError, TypeError, NotImplementedError, AttributeError)


@dataclass(frozen=True)
class Measured:
    """One kernel on one shape."""

    kernel: str
    seconds: float
    #: relative to torch's own, root of mean squares
    error: float


def set_attention(transformers: Sequence[Any], mode: str, device: torch.device, folder: Path) -> str:
    """Make the transformers of a model compute attention by `mode` ("auto", or one of MODES); the kernel's name.

    `folder` is where measured choices are kept. Raises InvalidInput for a mode that is not there, ModelUnavailable for
    one that does not run here.
    """
    kernel = _chosen(transformers[0], mode, device, folder)
    if kernel != NATIVE:  # it is torch's own as long as nobody says otherwise
        for transformer in transformers:
            transformer.set_attention_backend(kernel)
    return kernel


def _chosen(transformer: Any, mode: str, device: torch.device, folder: Path) -> str:
    if mode == "auto":
        return NATIVE if device.type == "cpu" else _measured_choice(transformer, device, folder)
    if mode not in MODES:
        raise InvalidInput(f"there is no attention mode {mode!r}; choose auto, {', '.join(MODES)}", field="attention")
    found = next((kernel for kernel in MODES[mode] if works(kernel, device)), None)
    if found is None:
        raise ModelUnavailable(
            f"attention mode {mode!r} does not run on {device}: its package is not installed, or not made for this "
            "device; use auto"
        )
    return found


def _measured_choice(transformer: Any, device: torch.device, folder: Path) -> str:
    config = transformer.config
    shape = (1, TOKENS, int(config.num_attention_heads), int(config.attention_head_dim))
    dtype = transformer.dtype
    versions = f"torch {torch.__version__}, diffusers {diffusers.__version__}"
    key = f"attention on {card(device)}, {versions}, {dtype}, {'x'.join(map(str, shape))}"
    return Choices(folder / "measured_choices.json").of(
        key, lambda: fastest(measure_attention(shape, dtype, device, [each for each in KERNELS if works(each, device)]))
    )


def works(kernel: str, device: torch.device) -> bool:
    """Whether a kernel is installed and runs on the device."""
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    small = torch.zeros((1, 128, 2, 64), device=device, dtype=dtype)
    try:
        with torch.inference_mode():
            _attended(kernel, small, small, small)
    except _CANNOT:
        return False
    return True


@torch.inference_mode()
def measure_attention(
    shape: tuple[int, int, int, int], dtype: torch.dtype, device: torch.device, kernels: Sequence[str], repeats: int = 5
) -> list[Measured]:
    """Each kernel on random (batch, tokens, heads, channels); those that fail on the shape are left out."""
    generator = torch.Generator(device).manual_seed(0)
    query, key, value = (torch.randn(shape, generator=generator, device=device, dtype=dtype) for _ in range(3))
    expected = _attended(NATIVE, query, key, value).float()
    scale = expected.square().mean().sqrt()
    measured = []
    for kernel in kernels:
        try:
            found = _attended(kernel, query, key, value)
            seconds = timed(lambda kernel=kernel: _attended(kernel, query, key, value), device, repeats)  # type: ignore[misc]
        except _CANNOT as error:
            logger.info("attention kernel %s cannot be used for %s: %s", kernel, shape, error)
            continue
        error_ = float((found.float() - expected).square().mean().sqrt() / scale)
        measured.append(Measured(kernel, seconds, error_))
    return measured


def fastest(measured: Sequence[Measured]) -> str:
    """Torch's own, unless another is faster by more than noise and rounds no worse."""
    exact = [each for each in measured if each.error <= ROUNDING]
    own = next((each.seconds for each in exact if each.kernel == NATIVE), None)
    best = min(exact, key=lambda each: each.seconds, default=None)
    if best is None or (own is not None and best.seconds > own * WORTH_IT):
        return NATIVE
    return best.kernel


def _attended(kernel: str, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    with attention_backend(kernel):
        found: torch.Tensor = dispatch_attention_fn(query, key, value)
    return found
