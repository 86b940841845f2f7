"""Settings of the engine: its memory, and the `--wgp-*` flags that workers for Wan2GP know.

A flag that this engine has no counterpart for is accepted where it asks for what happens anyway, and refused where it
asks for something else: nobody shall believe that it acts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings

#: settings of which only some values can be met, and why not the others
_MET: dict[str, tuple[tuple[Any, ...], str]] = {
    "wgp_attention_mode": (("auto", "sdpa", "flash", "sage", "sage2", "xformers"), "there is no such kernel"),
    "wgp_compile": (("", "transformer"), "only transformers are compiled"),
    "wgp_vae_config": ((0, 1), "each model's VAE is tiled as it was published, or not at all"),
    "wgp_boost": ((2,), "there is no boost to switch on (1); 2 is off"),
    "wgp_preload": ((0,), "a model that goes through the GPU layer by layer keeps nothing there"),
    "wgp_transformer_quantization": (("bf16", "fp8"), "other quantised weights are widened to 16 bits"),
    "wgp_transformer_dtype_policy": (("", "bf16"), "transformers compute in bfloat16"),
    "wgp_text_encoder_quantization": (("bf16",), "weights are widened to 16 bits when they are read"),
    "wgp_vae_precision": ((16, 32), "a VAE computes in bfloat16 or in float32"),
    "wgp_mixed_precision": ((0,), "parts of a model that need 32 bits have them anyway"),
}


#: what a checkout calls a setting, where it is another name; and what it keeps as a text
_OF_CHECKOUT = {"wgp_preload": "preload_in_VRAM"}
_AS_TEXT = ("vae_precision", "mixed_precision")


class EngineSettings(BaseSettings):
    """How the engine uses the machine."""

    wan_dir: Path | None = Field(
        None, description="an upstream Wan2GP checkout, which then is the engine (docs/upstream.md)"
    )
    wgp_profile: int | None = Field(
        None,
        ge=1,
        le=5,
        description="memory profile, 1 (much RAM and GPU memory) to 5 (little of both), see docs/memory.md; default: "
        "chosen by what fits",
    )
    gpu_budget_gb: float | None = Field(
        None, gt=0, description="GPU memory for weights, of all models together; default: 70 % of what is free"
    )
    ram_budget_gb: float | None = Field(
        None, ge=0, description="RAM for weights, of all models together; default: half of what is free"
    )
    engine_cache_mb: int = Field(
        512, ge=0, description="RAM for prompts and guides that were encoded before; 0 keeps none"
    )
    wgp_preload_policy: str = Field(
        "",
        description="letters with commas: P loads PRELOAD_MODEL at start, S loads a model when it is asked for (both "
        "happen anyway), U frees the memory of all models when no task waits",
    )
    wgp_attention_mode: str | None = Field(
        None,
        description="`auto` (the fastest that is installed, measured once on each GPU), `sdpa`, `flash`, `sage`, "
        "`sage2` or `xformers`, for Wan models (docs/speed.md)",
    )
    wgp_compile: str | None = Field(
        None, description="`transformer` compiles the blocks of Wan's transformers (docs/speed.md); empty does not"
    )
    wgp_vae_config: int | None = Field(None, description="0 or 1; others are refused")
    wgp_boost: int | None = Field(None, description="2 (off); others are refused")
    wgp_preload: int | None = Field(None, description="0; others are refused")
    wgp_transformer_quantization: str | None = Field(
        None,
        description="`bf16`, or `fp8`: Wan's transformers compute in 8 bits where that is faster, measured once on "
        "each GPU (docs/speed.md); others are refused",
    )
    wgp_transformer_dtype_policy: str | None = Field(None, description="empty or `bf16`; others are refused")
    wgp_text_encoder_quantization: str | None = Field(None, description="`bf16`; others are refused")
    wgp_vae_precision: int | None = Field(
        None, description="32, or 16: Wan's VAE computes in bfloat16 (docs/speed.md); others are refused"
    )
    vae_channels_last: bool = Field(
        False, description="convolutions of Wan's VAE keep channels last, which gives the same pictures (docs/speed.md)"
    )
    wgp_mixed_precision: int | None = Field(None, description="0; others are refused")

    #: the letters of a policy
    _LETTERS: ClassVar[tuple[Literal["P", "S", "U"], ...]] = ("P", "S", "U")

    @model_validator(mode="after")
    def _can_be_met(self) -> Self:
        # A checkout of Wan2GP is told them as they are.
        for name, (values, why) in {} if self.wan_dir else _MET.items():
            value = getattr(self, name)
            if value is not None and value not in values:
                known = " or ".join(repr(each) for each in values)
                raise ValueError(f"{name} {value!r} cannot be met: {why}; leave it out, or give {known}")
        unknown = sorted(set(self.preload_policy) - set(self._LETTERS))
        if unknown:
            raise ValueError(f"wgp_preload_policy has the letters P, S and U, not {', '.join(unknown)}")
        return self

    @property
    def for_checkout(self) -> dict[str, Any]:
        """The `wgp_*` settings that were given, by the names that a checkout of Wan2GP has for them."""
        given = {name: getattr(self, name) for name in ("wgp_profile", *_MET)}
        found = {_OF_CHECKOUT.get(name, name.removeprefix("wgp_")): value for name, value in given.items()}
        told = {name: str(value) if name in _AS_TEXT else value for name, value in found.items() if value is not None}
        return told | ({"preload_model_policy": sorted(self.preload_policy)} if self.wgp_preload_policy else {})

    @property
    def preload_policy(self) -> frozenset[str]:
        """The letters of `wgp_preload_policy`."""
        return frozenset(part.strip().upper() for part in self.wgp_preload_policy.split(",") if part.strip())
