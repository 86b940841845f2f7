"""How much memory models and caches may take, of the host and of the accelerator. Bytes. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

#: share of the free memory of an accelerator that weights may take; the rest is for activations
DEVICE_SHARE = 0.7
#: share of the free memory of the host that models may take
HOST_SHARE = 0.5
#: what embeddings and latents take of the host's memory
CACHE_BYTES = 512 * 2**20

_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Budgets:
    """None leaves it to the machine: a share of what other programs leave."""

    #: weights on the accelerator, of all models together
    device_bytes: int | None = None
    #: weights in host memory, of all models together
    host_bytes: int | None = None
    #: embeddings and latents that are kept; 0 keeps none
    cache_bytes: int = CACHE_BYTES


def free_host_bytes(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = _CGROUP) -> int:
    """Memory of the host that programs can still get; of a container, that of its limit. 0 where it is not told."""
    try:
        [line] = [line for line in meminfo.read_text().splitlines() if line.startswith("MemAvailable:")]
    except (OSError, ValueError):
        return 0
    free = int(line.split()[1]) * 1024
    left = _left_in_group(cgroup)
    return free if left is None else min(free, left)


def _left_in_group(cgroup: Path) -> int | None:
    """What a container's limit leaves; files that it read count as free. None: there is no limit."""
    try:
        limit = (cgroup / "memory.max").read_text().strip()
        if limit == "max":
            return None
        used = int((cgroup / "memory.current").read_text())
        told = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        return max(int(limit) - used + int(told.get("inactive_file", 0)), 0)
    except (OSError, ValueError):
        return None
