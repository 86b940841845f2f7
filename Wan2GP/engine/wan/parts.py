"""The modules of a resident Wan model, and which of them is on the device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from Wan2GP.engine.loading import fits, free_memory

#: tokens of a prompt that the real models were trained with; a tokenizer may declare fewer
TEXT_TOKENS = 512


@dataclass
class WanParts:
    """Everything that a Wan model consists of. Modules are in evaluation mode and never trained.

    With `offload`, modules rest on the host and visit the device one at a time: each stays until another is used.
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
    offload: bool = False
    _visitor: str = field(default="", init=False)

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

    def place(self, *, low_memory: bool = False) -> None:
        """Put the modules on the device; where they do not fit together, or with `low_memory`, keep them on the host
        until they are used."""
        parts = list(self.modules.values())
        self.offload = self.device.type != "cpu" and (low_memory or not fits(parts, str(self.device)))
        if not self.offload:
            for part in parts:
                part.to(self.device)

    @contextmanager
    def using(self, name: str) -> Iterator[Any]:
        """The module of that name, on the device while the block runs."""
        if self.offload and name != self._visitor:
            self._bring(name)
        yield self.modules[name]

    def _bring(self, name: str) -> None:
        """Let a module take the place of the one that is on the device."""
        modules = self.modules
        if self._visitor:
            modules[self._visitor].to("cpu")
            free_memory()
        # Before it moves: what moved in part, because memory ran out, must leave too.
        self._visitor = name
        modules[name].to(self.device)

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
