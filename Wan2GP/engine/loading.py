"""Devices, memory, and what their failures mean. The only module that asks torch about the machine."""

from __future__ import annotations

import ctypes
import gc
import re
import sys

import torch

from Wan2GP.definitions import ModelDefinition
from Wan2GP.engine.families import Model, Place, Report, family, importing
from Wan2GP.engine.residency.budgets import DEVICE_SHARE
from Wan2GP.errors import DeviceLost, EngineError, OutOfMemory, WanError

#: what the allocators of an accelerator and of the host say
_NO_MEMORY = re.compile(r"out of memory|(not enough|can't allocate|cannot allocate) memory", re.IGNORECASE)


def default_device() -> str:
    """ "cuda" where there is one, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def weights_dtype(device: str) -> torch.dtype:
    """bfloat16 on an accelerator, float32 on the CPU."""
    return torch.float32 if device == "cpu" else torch.bfloat16


def load(definition: ModelDefinition, place: Place, report: Report) -> Model:
    """The model in memory. Raises ModelUnavailable or OutOfMemory; nothing of a half-loaded one is left."""
    assert definition.architecture.engine is not None, "an available model has an engine"
    try:
        with importing:
            return family(definition.architecture.engine)(definition, place, report)
    except (RuntimeError, MemoryError, OutOfMemory) as error:
        failure = typed_failure(error)
    # Outside the handler: the traceback holds the memory of the half-loaded model.
    failure.__traceback__ = failure.__context__ = failure.__cause__ = None
    free_memory()
    raise failure


def has_room(weights_bytes: int, device: str) -> bool:
    """Whether an accelerator has the memory for so many bytes of weights, and for activations."""
    free_bytes, _ = torch.cuda.mem_get_info(device)
    return weights_bytes < free_bytes * DEVICE_SHARE


def free_memory() -> None:
    """Hand freed memory back: pipelines hold reference cycles, and the allocators keep what is freed."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.ipc_collect()
        torch.accelerator.empty_host_cache()  # page-locked memory
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def typed_failure(error: BaseException) -> WanError:
    """What a failure below us means, as one of our errors."""
    if isinstance(error, WanError):
        return error
    text = str(error) or type(error).__name__
    first_line = text.splitlines()[0]
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or _NO_MEMORY.search(text):
        return OutOfMemory(f"out of memory: {first_line}. Ask for fewer frames or a smaller resolution")
    if isinstance(error, torch.AcceleratorError) or "CUDA error" in text:
        return DeviceLost(f"the accelerator failed: {first_line}")
    return EngineError(f"{type(error).__name__}: {first_line}")
