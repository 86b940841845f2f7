"""What the accelerator of this machine can compute, by its driver's word: importing torch takes seconds."""

from __future__ import annotations

import ctypes
import importlib.util
import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from Wan2GP.errors import InvalidInput

#: the least compute capability of an NVIDIA GPU that multiplies float8 (Ada, Hopper, Blackwell)
OF_FP8 = (8, 9)
#: of cuDeviceGetAttribute, as the CUDA driver API numbers them
_MAJOR, _MINOR = 75, 76
#: mode of attention -> packages, of which one must be installed for it; others need none
_PACKAGES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "flash": ("flash_attn", "flash_attn_interface"),
        "sage": ("sageattention",),
        "sage2": ("sageattention",),
        "xformers": ("xformers",),
    }
)


def check_attention(mode: str, device: str) -> None:
    """Raises InvalidInput for a kernel that cannot run here: no task of a Wan model could end well. Whether one that is
    installed was made for this GPU is found out when a model is loaded."""
    packages = _PACKAGES.get(mode, ())
    if not packages:
        return
    why = "runs on a GPU alone" if device == "cpu" else f"needs {' or '.join(packages)}, not installed here"
    if device == "cpu" or not any(importlib.util.find_spec(name) for name in packages):
        raise InvalidInput(f"{mode!r} {why}; use auto", field="wgp_attention_mode")


def check_quantization(quantization: str, device: str) -> None:
    """Raises InvalidInput for "fp8" on a device that has no such numbers: no task of a Wan model could end well."""
    if quantization != "fp8":
        return
    found = (0, 0) if device == "cpu" else compute_capability(int(device.partition(":")[2] or 0))
    if found < OF_FP8:
        has = f"compute capability {found[0]}.{found[1]}" if found != (0, 0) else "none"
        raise InvalidInput(
            f"fp8 needs an NVIDIA GPU of compute capability {OF_FP8[0]}.{OF_FP8[1]} or newer, and {device} has {has}; "
            "use bf16",
            field="wgp_transformer_quantization",
        )


def compute_capability(index: int) -> tuple[int, int]:
    """(major, minor) of an NVIDIA GPU; (0, 0) where the driver tells none."""
    driver, device = _driver(), ctypes.c_int()
    if driver is None or driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), index):
        return 0, 0
    numbers = ctypes.c_int(), ctypes.c_int()
    for number, attribute in zip(numbers, (_MAJOR, _MINOR), strict=True):
        if driver.cuDeviceGetAttribute(ctypes.byref(number), attribute, device):
            return 0, 0
    return numbers[0].value, numbers[1].value


def _driver() -> Any:
    try:
        return ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return None
