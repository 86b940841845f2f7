"""How long something takes on a device, and what the device is called."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch


def card(device: torch.device) -> str:
    """The name of an accelerator, for what was measured on it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def timed(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """The median of several runs in seconds; one run before them is not counted."""
    seconds = []
    for _ in range(repeats + 1):
        _finish(device)
        began = time.perf_counter()
        work()
        _finish(device)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
