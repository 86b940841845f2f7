"""Where the parts of one model are: on the accelerator together, or in host memory until it is their turn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

import torch
from torch import nn

from Wan2GP.engine.residency.standby import num_bytes, standby_of, tensors_of
from Wan2GP.memory_profiles import Profile

#: what lies in host memory in the streamed form; the others are small
_LARGE = ("transformer", "text_encoder", "image_encoder")


class Form(Enum):
    """How a model uses an accelerator."""

    WHOLE = "all parts are there at once"
    VISITING = "each part is there while it works"
    STREAMED = "large parts go through it layer by layer"


class Placement:
    """The parts of one model, by name, and how they use `device`. Nothing moves before `bring`."""

    def __init__(
        self,
        parts: Mapping[str, nn.Module],
        device: torch.device,
        profile: Profile,
        device_bytes: int,
    ) -> None:
        self.parts = dict(parts)
        self.profile = profile
        self.form = form_of(self.parts, device, profile, device_bytes)
        self.device = device
        self.standbys = {name: standby_of(part, device) for name, part in self.parts.items()}
        self._take_form()

    @property
    def device_bytes(self) -> int:
        """What the model takes of the accelerator at once, as far as it is known before a run."""
        if self.form is Form.WHOLE:
            return num_bytes({tensor for part in self.parts.values() for tensor in tensors_of(part)})
        sizes = [standby.num_bytes for standby in self.standbys.values() if not standby.streamed]
        return sum(sizes) if self.form is Form.STREAMED else max(sizes, default=0)

    def streams(self, name: str) -> bool:
        """Whether the part of that name goes through the device layer by layer."""
        return self.standbys[name].streamed

    def bring(self) -> None:
        """Put on the device what stays there during a run."""
        self._take_form()
        if self.form is Form.VISITING:
            return
        for name, standby in self.standbys.items():
            standby.bring(ahead=standby.pinned and name.startswith("transformer"))

    def _take_form(self) -> None:
        """Large parts stream, or do so no longer: a model that shares them may have had them otherwise."""
        for name, part in self.parts.items():
            standby, wanted = self.standbys[name], self.form is Form.STREAMED and name.startswith(_LARGE)
            if wanted and not standby.streamed:
                standby.park()
                profile = self.profile
                stream_through(part, self.device, overlapped=profile.overlapped, pinned=profile.pins(name))
                standby.streamed = True
            elif standby.streamed and not wanted:
                stream_no_longer(part)
                standby.rest()

    def park(self, *, but: Iterable[nn.Module] = (), pin: bool = False) -> None:
        """Take everything off the device but those parts. `pin`: what the profile says rests in page-locked memory."""
        spared = set(but)
        for name, standby in self.standbys.items():
            if self.parts[name] not in spared:
                standby.park(pinned=pin and self.profile.pins(name))

    def visit(self, name: str) -> None:
        """Bring one part in place of the others, of a model whose parts visit."""
        if self.standbys[name].on_device:
            return
        self.park(pin=True)
        self.standbys[name].bring()


def form_of(parts: Mapping[str, nn.Module], device: torch.device, profile: Profile, device_bytes: int) -> Form:
    """How a model uses the device, whose weights may take so many bytes there."""
    if device.type == "cpu":
        return Form.WHOLE
    sizes = [num_bytes(tensors_of(part)) for part in parts.values()]
    if profile.streamed or max(sizes, default=0) > device_bytes:
        return Form.STREAMED
    return Form.WHOLE if sum(sizes) <= device_bytes else Form.VISITING


def stream_through(part: nn.Module, device: torch.device, *, overlapped: bool, pinned: bool) -> None:
    """Let the layers of a part come to the device one by one when they run, the next one while one computes."""
    from diffusers.hooks import apply_group_offloading

    streams = overlapped and device.type == "cuda"
    apply_group_offloading(
        part, device, torch.device("cpu"), "leaf_level",
        use_stream=streams, record_stream=streams, low_cpu_mem_usage=streams and not pinned,
    )  # fmt: skip


def stream_no_longer(part: nn.Module) -> None:
    """Undo `stream_through`: the layers rest in host memory, all of them."""
    from diffusers.hooks import HookRegistry
    from diffusers.hooks import group_offloading as hooks

    back_to_rest(part)
    registry = HookRegistry.check_if_exists_or_initialize(part)
    for name in (hooks._GROUP_OFFLOADING, hooks._LAYER_EXECUTION_TRACKER, hooks._LAZY_PREFETCH_GROUP_OFFLOADING):
        registry.remove_hook(name, recurse=True)


def back_to_rest(part: nn.Module) -> None:
    """Send layers back that were brought ahead and did not run, as those of a block that was left out: what is merged
    into a weight must be merged where it rests."""
    for module in part.modules():
        registry: Any = getattr(module, "_diffusers_hook", None)
        hook = registry.get_hook("group_offloading") if registry is not None else None
        if hook is None or hook.group.offload_leader is not module:
            continue
        group = hook.group
        if any(tensor.device != group.offload_device for each in group.modules for tensor in tensors_of(each)):
            group.offload_()
