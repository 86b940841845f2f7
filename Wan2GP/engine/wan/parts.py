"""The modules of a resident Wan model, and which of them is on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

from Wan2GP.engine.residency.memory import Memory
from Wan2GP.engine.residency.placement import Form, Placement, back_to_rest
from Wan2GP.memory_profiles import Profile

Value = TypeVar("Value")

#: tokens of a prompt that the real models were trained with; a tokenizer may declare fewer
TEXT_TOKENS = 512


@dataclass
class WanParts:
    """Everything that a Wan model consists of. Modules are in evaluation mode and never trained.

    Of a placement of the form VISITING, modules rest on the host, and each stays on the device until another is used.
    """

    tokenizer: Any
    text_encoder: Any
    vae: Any
    transformer: Any
    #: the low-noise expert of Wan 2.2
    transformer_2: Any = None
    image_encoder: Any = None
    image_processor: Any = None
    #: further modules of an architecture, by name (audio encoder, projector)
    extra: Mapping[str, Any] = field(default_factory=dict)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    #: 0-1: the noise level at which the model's own configuration hands over to the second expert
    boundary_ratio: float | None = None
    #: Wan 2.2 5B: the start image replaces the first latent frame, whose timestep is 0
    expand_timesteps: bool = False
    memory: Memory = field(default_factory=Memory)
    #: None until they are placed
    placement: Placement | None = None

    @property
    def modules(self) -> dict[str, torch.nn.Module]:
        """Every module by name."""
        named = {name: getattr(self, name) for name in _MODULES} | dict(self.extra)
        return {name: part for name, part in named.items() if isinstance(part, torch.nn.Module)}

    @property
    def experts(self) -> dict[str, Any]:
        """The transformers by name, the high-noise one first."""
        both = {"transformer": self.transformer, "transformer_2": self.transformer_2}
        return {name: expert for name, expert in both.items() if expert is not None}

    @property
    def latent_channels(self) -> int:
        return int(self.vae.config.z_dim)

    @property
    def temporal(self) -> int:
        """Frames in one latent frame."""
        return int(self.vae.config.scale_factor_temporal)

    @property
    def spatial(self) -> int:
        """Pixels a side in one latent pixel."""
        return int(self.vae.config.scale_factor_spatial)

    @property
    def text_tokens(self) -> int:
        return min(TEXT_TOKENS, int(self.tokenizer.model_max_length))

    @property
    def dtype(self) -> torch.dtype:
        """What the transformers compute in."""
        found: torch.dtype = self.transformer.dtype
        return found

    @property
    def offload(self) -> bool:
        """Whether some modules are on the device only while they work."""
        return self.placement is not None and self.placement.form is not Form.WHOLE

    def streams(self, name: str) -> bool:
        """Whether the module of that name goes through the device layer by layer."""
        return self.placement is not None and self.placement.streams(name)

    def place(self, profile: Profile) -> None:
        """Put the modules on the device, as far as the profile and the room there allow."""
        self.placement = self.memory.placement(self.modules, self.device, profile)
        self.placement.bring()

    def remembered(self, kind: str, name: str, content: Sequence[Any], compute: Callable[[], Value]) -> Value:
        """What `compute` makes of `content` with the module of that name, computed once for the same content."""
        return self.memory.remembered(kind, [self.modules[name]], [*content, str(self.device)], compute)

    @contextmanager
    def using(self, name: str) -> Iterator[Any]:
        """The module of that name, on the device while the block runs."""
        placement, module = self.placement, self.modules[name]
        if placement is not None and placement.form is Form.VISITING:
            placement.visit(name)
        yield module
        if self.streams(name):
            back_to_rest(module)

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int, int]:
        """(1, C, F', H', W') of `frames` frames of `width` x `height` pixels."""
        return (
            1,
            self.latent_channels,
            (frames - 1) // self.temporal + 1,
            height // self.spatial,
            width // self.spatial,
        )


_MODULES = ("text_encoder", "vae", "transformer", "transformer_2", "image_encoder")
