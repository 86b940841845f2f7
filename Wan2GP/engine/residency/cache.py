"""Tensors that were computed before, found again by what they were computed from."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import torch

Value = TypeVar("Value")


class TensorCache:
    """Bounded in bytes; the least recently used go first. What is kept lies in host memory, and each caller gets a copy
    of its own on the device that the first one had it on, so nothing that a run does reaches another."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.num_bytes = 0
        #: "KIND found", "KIND computed" and "KIND dropped" -> how often
        self.counts: Counter[str] = Counter()
        self._kept: OrderedDict[tuple[str, Hashable], tuple[Any, Any, int]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, kind: str, key: Hashable, compute: Callable[[], Value]) -> Value:
        """What `compute` returns: a tensor, or lists, tuples and dicts of tensors and None. A key of None is not kept.

        `kind` tells one sort of content from another in the key and in `counts`.
        """
        if key is None or not self.limit_bytes:
            return compute()
        with self._lock:
            found = self._kept.get((kind, key))
            if found is not None:
                self._kept.move_to_end((kind, key))
                self.counts[f"{kind} found"] += 1
        if found is not None:
            content, devices, _ = found
            back: Value = _copied(content, devices)
            return back
        value = compute()
        self._keep(kind, key, value)
        return value

    def clear(self) -> None:
        """Let everything go; the counts stay."""
        with self._lock:
            self._kept.clear()
            self.num_bytes = 0

    def limit(self, limit_bytes: int) -> None:
        """Another limit from now on."""
        with self._lock:
            self.limit_bytes = limit_bytes
            self._shrink(0)

    def _keep(self, kind: str, key: Hashable, value: Any) -> None:
        size = _num_bytes(value)
        with self._lock:
            self.counts[f"{kind} computed"] += 1
            if size > self.limit_bytes:
                return
            self._shrink(size)
            self._kept[kind, key] = (_copied(value, None), _devices(value), size)
            self.num_bytes += size

    def _shrink(self, coming: int) -> None:
        while self._kept and self.num_bytes + coming > self.limit_bytes:
            (kind, _), (_, _, size) = self._kept.popitem(last=False)
            self.num_bytes -= size
            self.counts[f"{kind} dropped"] += 1


def digest(value: Any) -> str | None:
    """SHA-256 of the content of tensors, arrays, pictures and plain values, nested in lists, tuples and dicts; None for
    what has no content that can be told."""
    told = hashlib.sha256()
    return told.hexdigest() if _tell(told, value) else None


def _tell(told: Any, value: Any) -> bool:
    if value is None or isinstance(value, (str, int, float, bool, torch.dtype, torch.device)):
        told.update(f"{type(value).__name__} {value!r};".encode())
        return True
    if isinstance(value, (list, tuple)):
        told.update(f"{type(value).__name__} {len(value)};".encode())
        return all([_tell(told, each) for each in value])
    if isinstance(value, dict):
        return _tell(told, [each for item in sorted(value.items()) for each in item])
    if isinstance(value, torch.Tensor):
        plain = value.detach().cpu().contiguous()
        told.update(f"{plain.dtype} {tuple(plain.shape)};".encode())
        told.update(memoryview(plain.reshape(-1).view(torch.uint8).numpy()))
        return True
    if hasattr(value, "tobytes"):
        told.update(f"{type(value).__name__} {getattr(value, 'shape', getattr(value, 'size', ''))};".encode())
        told.update(f"{getattr(value, 'dtype', getattr(value, 'mode', ''))};".encode())
        told.update(value.tobytes())
        return True
    return False


def _mapped(value: Any, change: Callable[[torch.Tensor], Any]) -> Any:
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, dict):
        return {name: _mapped(each, change) for name, each in value.items()}
    return type(value)(_mapped(each, change) for each in value) if isinstance(value, (list, tuple)) else value


def _copied(value: Any, devices: Any) -> Any:
    """A copy in host memory, or on the devices that are given in the same order as the tensors."""
    order = iter(devices) if devices is not None else None
    return _mapped(value, lambda each: each.to(next(order) if order else "cpu", copy=True))


def _devices(value: Any) -> list[torch.device]:
    found: list[torch.device] = []
    _mapped(value, lambda each: found.append(each.device))
    return found


def _num_bytes(value: Any) -> int:
    sizes: list[int] = []
    _mapped(value, lambda each: sizes.append(each.numel() * each.element_size()))
    return sum(sizes)
