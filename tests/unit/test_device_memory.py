"""What heartbeats tell of the accelerator's memory. torch is a stand-in: there may be no accelerator here."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from headless.device_memory import DeviceMemory, device_memory


class _Cuda:
    def __init__(self, initialised: bool, free: int = 0, total: int = 0) -> None:
        self.is_initialized = lambda: initialised
        self._memory = (free, total)

    def mem_get_info(self) -> tuple[int, int]:
        if not self._memory[1]:
            raise RuntimeError("CUDA error: the device is lost")
        return self._memory


@pytest.mark.parametrize(
    ("torch", "memory"),
    [
        (None, None),
        (SimpleNamespace(cuda=_Cuda(False, 1, 2)), None),
        (SimpleNamespace(cuda=_Cuda(True)), None),
        (SimpleNamespace(cuda=_Cuda(True, 3 * 2**30, 80 * 2**30)), DeviceMemory(80 * 1024, 77 * 1024)),
    ],
    ids=["no torch", "not in use", "lost", "in use"],
)
def test_memory_is_told_once_the_engine_uses_the_device(
    torch: object, memory: DeviceMemory | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", torch)  # type: ignore[arg-type]
    assert device_memory() == memory
