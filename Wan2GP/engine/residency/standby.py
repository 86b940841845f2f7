"""The weights of one part, which are on the accelerator or stand by in host memory, page-locked where that pays.

Going to the host once makes a master copy there; coming back copies from it, and going again drops what is on the
device unless a weight was changed there meanwhile (LoRAs are merged in place, which counts a tensor's version up).
Layers may start to compute before the last weights have come: each block waits for its own.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

#: weights are packed into pieces of page-locked memory of this size, for the allocator rounds each up to a power of two
_PIECE_BYTES = 2**30
_ALIGNMENT_BYTES = 256


def tensors_of(module: nn.Module) -> list[Tensor]:
    """Its parameters and buffers, each once."""
    return list(dict.fromkeys([*module.parameters(), *module.buffers()]))


def num_bytes(tensors: Iterable[Tensor]) -> int:
    """What tensors hold."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def blocks_of(module: nn.Module) -> list[nn.Module]:
    """The layers that a transformer runs through one after the other."""
    lists = [child for child in module.children() if isinstance(child, nn.ModuleList)]
    found = [block for blocks in lists for block in blocks]
    # A compiled block has its hooks compiled in.
    return [] if any(getattr(block, "_compiled_call_impl", None) for block in found) else found


class Standby:
    """One part. `device` is where it computes. On a CPU nothing has to move, so `bring` and `park` do nothing there
    unless `apart` says that the two places are to be told apart all the same (as tests do)."""

    def __init__(self, module: nn.Module, device: torch.device, *, apart: bool | None = None) -> None:
        self._module = weakref.ref(module)
        self._tensors = tensors_of(module)
        self._apart = device.type != "cpu" if apart is None else apart
        self.device = device
        self.num_bytes = num_bytes(self._tensors)
        #: the weights in host memory, and the version of each on the device that equals them; empty: there are none
        self._masters: list[Tensor] = []
        self._versions: list[int] = []
        self._pending: dict[nn.Module, Callable[[], None]] = {}
        self._handles: list[Any] = []
        self.on_device = not self._apart
        #: it goes through the device layer by layer and never stays there
        self.streamed = False
        self.pinned = False

    @property
    def device_bytes(self) -> int:
        """What it holds on an accelerator."""
        return self.num_bytes if self._apart and self.on_device else 0

    @property
    def host_bytes(self) -> int:
        """What it holds in host memory."""
        return self.num_bytes if self._masters or not self.device_bytes else 0

    @torch.inference_mode(False)
    def bring(self, *, ahead: bool = False) -> None:
        """Copy the weights to the device. With `ahead` it returns at once: blocks of layers wait for their weights when
        they run, and `settle` waits for all. When the device has no room for all, none stays there: another model may
        share them."""
        if not self._apart or self.streamed or self.on_device:
            return
        module = self._module()
        blocks = blocks_of(module) if ahead and module is not None else []
        groups = _grouped(self._tensors, blocks)
        self.on_device = True
        if not self.pinned:
            self._masters = []
        at_rest = [tensor.data for tensor in self._tensors]
        try:
            self._start(groups)
        except BaseException:
            self._pending.clear()
            self._finish()
            for tensor, data in zip(self._tensors, at_rest, strict=True):
                tensor.data = data
            self.on_device = False
            raise
        if not self._pending:
            self._note_versions()

    def _start(self, groups: dict[Any, list[Tensor]]) -> None:
        mover = _Mover(self.device)
        for tensor in groups.pop(None):
            tensor.data = tensor.data.to(self.device, copy=True)
        for block, tensors in groups.items():
            self._pending[block] = mover.start(tensors)
            self._handles.append(block.register_forward_pre_hook(self._arrived))

    def rest(self) -> None:
        """It goes through the device no longer, and all of it lies in host memory as it is."""
        self.streamed = self.pinned = False
        self.on_device = not self._apart
        self._masters = []

    def settle(self) -> None:
        """Wait until all weights are on the device: before anything but a run of the layers looks at them."""
        if not self._pending:
            return
        for wait in self._pending.values():
            wait()
        self._finish()

    @torch.inference_mode(False)
    def park(self, *, pinned: bool = False) -> None:
        """Take the weights off the device. `pinned`: into page-locked memory, when this is the first time."""
        if not self._apart or self.streamed or not self.on_device:
            return
        self.settle()
        if not self._masters:
            self.pinned = pinned and torch.cuda.is_available()
            self._masters = packed(self._tensors) if self.pinned else [each.data.to("cpu") for each in self._tensors]
            self._versions = [-1] * len(self._tensors) if self.pinned else [each._version for each in self._tensors]
        for tensor, master, version in zip(self._tensors, self._masters, self._versions, strict=True):
            if tensor._version != version:
                master.copy_(tensor.data)
            tensor.data = master
        self.on_device = False

    def _arrived(self, block: nn.Module, _: Any) -> None:
        wait = self._pending.get(block)
        if wait is None:
            return
        wait()
        del self._pending[block]
        if not self._pending:
            self._finish()

    def _finish(self) -> None:
        self._pending.clear()
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._note_versions()

    def _note_versions(self) -> None:
        self._versions = [tensor._version for tensor in self._tensors]


_standbys: weakref.WeakKeyDictionary[nn.Module, Standby] = weakref.WeakKeyDictionary()


def standby_of(part: nn.Module, device: torch.device) -> Standby:
    """The part's own, whichever models share it; made at first."""
    if part not in _standbys:
        _standbys[part] = Standby(part, device)
    return _standbys[part]


def settle(part: nn.Module) -> None:
    """Wait for weights that are still on their way to the device: before they are looked at or changed."""
    if part in _standbys:
        _standbys[part].settle()


class _Mover:
    """Copies weights to a device beside what computes there, on a stream of its own; without streams, when waited for.

    The copies get their memory from the stream that computes, so that it is used again in that stream's order.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: Any = torch.cuda.Stream(device) if device.type == "cuda" else None
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(device))

    def start(self, tensors: Sequence[Tensor]) -> Callable[[], None]:
        """Begin; what is returned makes the stream that computes wait for the end."""
        if self._stream is None:
            return lambda: _copy_now(tensors, self._device)
        sources = [tensor.data for tensor in tensors]
        for tensor, source in zip(tensors, sources, strict=True):
            tensor.data = torch.empty_like(source, device=self._device)
        with torch.cuda.stream(self._stream):
            for tensor, source in zip(tensors, sources, strict=True):
                tensor.data.copy_(source, non_blocking=True)
            event = torch.cuda.Event()
            event.record(self._stream)

        def wait(kept: Sequence[Tensor] = sources) -> None:
            """The sources stay until the copies are there."""
            torch.cuda.current_stream(self._device).wait_event(event)

        return wait


@torch.inference_mode(False)
def _copy_now(tensors: Sequence[Tensor], device: torch.device) -> None:
    for tensor in tensors:
        tensor.data = tensor.data.to(device, copy=True)


def _grouped(tensors: Sequence[Tensor], blocks: Sequence[nn.Module]) -> dict[Any, list[Tensor]]:
    """The tensors of each block, and under None those of none; what blocks share is with None, for the first to run may
    be any."""
    owners: dict[Tensor, list[nn.Module]] = {}
    for block in blocks:
        for tensor in tensors_of(block):
            owners.setdefault(tensor, []).append(block)
    groups: dict[Any, list[Tensor]] = {None: []}
    for tensor in tensors:
        mine = owners.get(tensor, [])
        groups.setdefault(mine[0] if len(mine) == 1 else None, []).append(tensor)
    return groups


def packed(tensors: Sequence[Tensor], *, pin: bool = True, piece_bytes: int = _PIECE_BYTES) -> list[Tensor]:
    """Uninitialised host tensors of the same shapes and orders of numbers (channels last stay last), as views of few
    pieces of (page-locked) memory. One that is larger than a piece stays pageable."""
    pieces: list[list[tuple[int, int]]] = []
    room = 0
    for index, tensor in enumerate(tensors):
        size = _aligned(num_bytes([tensor]))
        if size > piece_bytes:
            continue
        if size > room:
            pieces.append([])
            room = piece_bytes
        pieces[-1].append((index, piece_bytes - room))
        room -= size
    found = {index: view for piece in pieces for index, view in _views(piece, tensors, pin)}
    return [found[i] if i in found else torch.empty_like(t, device="cpu") for i, t in enumerate(tensors)]


def _views(piece: list[tuple[int, int]], tensors: Sequence[Tensor], pin: bool) -> Iterator[tuple[int, Tensor]]:
    last, start = piece[-1]
    memory = torch.empty(start + _aligned(num_bytes([tensors[last]])), dtype=torch.uint8, pin_memory=pin)
    for index, offset in piece:
        tensor = tensors[index]
        flat = memory[offset : offset + num_bytes([tensor])]
        # A weight has no gaps, in whichever order its numbers are; `empty_like` of any other is contiguous.
        yield index, flat.view(tensor.dtype).as_strided(tensor.shape, torch.empty_like(tensor, device="meta").stride())


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
