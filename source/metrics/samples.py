"""What a worker's process uses, and what it is at: for a sample with each heartbeat, and for metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import psutil

from headless.device_memory import MB, device_memory
from headless.device_use import DeviceUse, device_uuid, nvidia_smi
from headless.generation import QueueStatistics
from source.run_context import Stage

#: names of the lanes that a task passes through
LANES = {Stage.BEFORE: "prepare", Stage.GENERATING: "gpu", Stage.AFTER: "finish"}


class Staged(Protocol):
    """A run, as far as it is looked at here."""

    @property
    def stage(self) -> Stage: ...


class Measurements:
    """Measures this process. Nothing here waits for a device or for another program."""

    def __init__(self, statistics: Callable[[], QueueStatistics], runs: Callable[[], Sequence[Staged]]) -> None:
        self._statistics = statistics
        self._runs = runs
        self._process = psutil.Process()
        self._process.cpu_percent()  # the first call begins to count
        self.device_use = DeviceUse()

    def sample(self) -> dict[str, Any]:
        """As `store.samples` hands it out; null is what nobody knows.

        gpu_utilization: percent of the time since the last sample, 0 to 100. gpu_memory_used, gpu_memory_total: bytes
        of the whole device, other programs included. rss: bytes. cpu_percent: of one core, since the last sample.
        gpu_seconds: by activity, since the worker started. model_loads: since then. tasks_running: claimed. lanes: how
        many of them are being prepared, on the GPU, being finished.
        """
        memory = device_memory()
        totals = self._statistics()
        lanes = self.lanes()
        return {
            "gpu_utilization": self._utilization(),
            "gpu_memory_used": memory and memory.used_mb * MB,
            "gpu_memory_total": memory and memory.total_mb * MB,
            "rss": self._process.memory_info().rss,
            "cpu_percent": self._process.cpu_percent(),
            "gpu_seconds": {activity: round(spent, 3) for activity, spent in totals.seconds.items()},
            "model_loads": totals.model_loads,
            "tasks_running": sum(lanes.values()),
            "lanes": lanes,
        }

    def lanes(self) -> dict[str, int]:
        """Claimed tasks by lane; every lane is a key."""
        counted = Counter(LANES[run.stage] for run in self._runs())
        return {name: counted[name] for name in LANES.values()}

    def close(self) -> None:
        """Nothing is measured any longer."""
        self.device_use.close()

    def _utilization(self) -> float | None:
        """It is asked for once the engine has taken a device."""
        if not self.device_use.started and (uuid := device_uuid()) and (command := nvidia_smi(uuid)):
            self.device_use.start(command)
        mean = self.device_use.mean()
        return None if mean is None else round(mean, 1)
