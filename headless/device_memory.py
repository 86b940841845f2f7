"""The memory of the accelerator, as the engine's torch sees it. Any thread may ask; torch is never imported here."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

MB = 2**20


@dataclass(frozen=True)
class DeviceMemory:
    """Of the whole device, other programs included. Megabytes (2**20 bytes)."""

    total_mb: int
    used_mb: int


def device_memory() -> DeviceMemory | None:
    """None where no engine has taken an accelerator yet, or where it is lost."""
    torch: Any = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    # asking earlier would begin to use the device on this thread
    if cuda is None or not cuda.is_initialized():
        return None
    try:
        free, total = cuda.mem_get_info()
    except RuntimeError:
        return None
    return DeviceMemory(total // MB, (total - free) // MB)
