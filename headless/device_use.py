"""How busy the accelerator is, by `nvidia-smi` in a process of its own: a driver that hangs takes that along."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from statistics import fmean
from typing import Any

#: seconds between two readings; each is about the second before it
EVERY_S = 5
#: readings kept while nobody asks
MAX_READINGS = 720


def device_uuid() -> str | None:
    """The accelerator that the engine's torch has taken, as the driver names it. None before it has taken one."""
    torch: Any = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    if cuda is None or not cuda.is_initialized():
        return None
    try:
        return f"GPU-{cuda.get_device_properties(cuda.current_device()).uuid}"
    except (RuntimeError, AttributeError):
        return None


def nvidia_smi(uuid: str) -> list[str] | None:
    """The command that prints the utilisation of a device again and again; None where there is no such program."""
    program = shutil.which("nvidia-smi")
    wanted = ("--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", f"--loop={EVERY_S}", f"--id={uuid}")
    return None if program is None else [program, *wanted]


class DeviceUse:
    """Readings of one device, from a program that prints a number a line. Any thread may call any method."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readings: deque[float] = deque(maxlen=MAX_READINGS)
        self._process: subprocess.Popen[str] | None = None
        self.latest: float | None = None

    def start(self, command: Sequence[str]) -> None:
        """Begin to listen. What the program says of its own troubles is not heard. A second start does nothing."""
        with self._lock:
            if self._process is not None:
                return
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                env={"PATH": os.defpath, "LC_ALL": "C"},
            )  # fmt: skip
        threading.Thread(target=self._listen, args=(self._process,), name="device use", daemon=True).start()

    @property
    def started(self) -> bool:
        return self._process is not None

    def mean(self) -> float | None:
        """Percent of the time since the last call that something ran on the device. None while nothing was read."""
        with self._lock:
            mean = fmean(self._readings) if self._readings else None
            self._readings.clear()
        return mean

    def close(self) -> None:
        """End the program; one that hangs in the driver is not waited for."""
        if self._process is not None:
            self._process.kill()

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                if line.strip().isdigit():  # else it is [N/A]
                    self._read(float(line))
        process.wait()
        self.latest = None

    def _read(self, percent: float) -> None:
        with self._lock:
            self._readings.append(percent)
            self.latest = percent
