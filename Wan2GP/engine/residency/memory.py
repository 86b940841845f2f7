"""The memory of one engine: its budgets, the parts that models share, and what was computed before."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch

from Wan2GP.engine.residency.budgets import DEVICE_SHARE, HOST_SHARE, Budgets, free_host_bytes
from Wan2GP.engine.residency.cache import TensorCache, digest
from Wan2GP.engine.residency.placement import Placement
from Wan2GP.engine.residency.shared import SharedParts
from Wan2GP.memory_profiles import Profile

Value = TypeVar("Value")

#: a host that does not tell what is free is taken to have this
_UNTOLD_BYTES = 8 * 2**30


class Memory:
    """Shared by every model that one engine loads. Used by one thread."""

    def __init__(self, budgets: Budgets | None = None) -> None:
        self.budgets = budgets or Budgets()
        self.shared = SharedParts()
        self.cache = TensorCache(self.budgets.cache_bytes)
        self._host_bytes: int | None = None

    def budget(self, budgets: Budgets) -> None:
        """Other budgets from the next load on."""
        self.budgets = budgets
        self.cache.limit(budgets.cache_bytes)

    @property
    def host_limit(self) -> int:
        """Bytes of host memory that models may take."""
        if self.budgets.host_bytes is not None:
            return self.budgets.host_bytes
        if self._host_bytes is None:
            self._host_bytes = int(HOST_SHARE * (free_host_bytes() or _UNTOLD_BYTES))
        return self._host_bytes

    def device_limit(self, device: torch.device) -> int:
        """Bytes of an accelerator that weights may take: by default a share of what other programs leave."""
        if self.budgets.device_bytes is not None:
            return self.budgets.device_bytes
        free_bytes, _ = torch.cuda.mem_get_info(device)
        return int(DEVICE_SHARE * (free_bytes + torch.cuda.memory_reserved(device)))

    def placement(self, parts: Mapping[str, torch.nn.Module], device: torch.device, profile: Profile) -> Placement:
        """Where these parts of one model go."""
        limit = self.device_limit(device) if device.type != "cpu" else 0
        return Placement(parts, device, profile, limit)

    def remembered(
        self, kind: str, parts: Sequence[Any], content: Sequence[Any], compute: Callable[[], Value]
    ) -> Value:
        """What `compute` makes of `content` with these parts of a model: computed once for the same content and the
        same weights. Parts of unknown origin, and content that cannot be compared, are computed each time."""
        if not self.cache.limit_bytes:
            return compute()
        keys = [self.shared.key_of(part) for part in parts]
        told = digest(list(content)) if None not in keys else None
        return self.cache.of(kind, (tuple(keys), told) if told is not None else None, compute)
