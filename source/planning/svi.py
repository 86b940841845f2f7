"""Stable Video Infinity: segments that go on from the last frames of their predecessor. Pure.

What the Wan 2.2 image-to-video experts need for it is a table: LoRAs that taught them to, and the settings for which
those were made. Models that are not in the table are used as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from headless.options import GenerationOptions
from source.errors import Unsupported
from source.params.lora import LoRAConfig, multiplier_text

#: frames that a segment shares with its predecessor: one latent frame
OVERLAP = 4
#: frames of the predecessor that the engine is given: the first of a video is a latent frame of its own, then two of 4
SOURCE_FRAMES = 9

#: of a shorter video SVI goes on from nothing: one latent frame after the first
LEAST_FRAMES = 5

_HUB = "https://huggingface.co"
_SVI = f"{_HUB}/DeepBeepMeep/Wan2.2/resolve/main/SVI_Wan2.2-I2V-A14B_{{}}_noise_lora_v2.0_pro.safetensors"
_FAST = (
    f"{_HUB}/Comfy-Org/Wan_2.2_ComfyUI_Repackaged/resolve/main/split_files/loras/"
    "wan2.2_i2v_lightx2v_4steps_lora_v1_{}_noise.safetensors"
)


@dataclass(frozen=True)
class Recipe:
    """What a segment that continues another is generated with."""

    #: (URL, multipliers of the high-noise and the low-noise expert; one of them is 0)
    loras: tuple[tuple[str, tuple[float, float]], ...]
    knobs: Mapping[str, Any]


@dataclass(frozen=True)
class Strengths:
    """Factors on the recipe's LoRAs: those of one expert, else all. None is 1."""

    all: float | None = None
    high: float | None = None
    low: float | None = None

    def scaled(self, high: float, low: float) -> str:
        """The multiplier of a LoRA: (1, 0) -> "1;0"."""
        scaled = (high * self._factor(self.high), low * self._factor(self.low))
        return ";".join(multiplier_text(round(value, 6)) for value in scaled)

    def _factor(self, own: float | None) -> float:
        return next((factor for factor in (own, self.all) if factor is not None), 1.0)


_SETTINGS = {
    "guidance_phases": 2,
    "num_inference_steps": 6,
    "guidance_scale": 1.0,
    "guidance2_scale": 1.0,
    "flow_shift": 5.0,
    "switch_threshold": 883,
    "model_switch_phase": 1,
    "sample_solver": "euler",
}
_FAST_LORAS = ((_FAST.format("high"), (1.2, 0.0)), (_FAST.format("low"), (0.0, 1.0)))
_WAN_2_2 = Recipe(((_SVI.format("high"), (1.0, 0.0)), (_SVI.format("low"), (0.0, 1.0)), *_FAST_LORAS), _SETTINGS)

#: architecture -> recipe. The second has the SVI LoRAs in its model definition
RECIPES: Mapping[str, Recipe] = {"i2v_2_2": _WAN_2_2, "i2v_2_2_svi2pro": replace(_WAN_2_2, loras=_FAST_LORAS)}


def with_recipe(options: GenerationOptions, architecture: str, strengths: Strengths) -> GenerationOptions:
    """`options` with the recipe of an architecture. A LoRA that is there already stays as it is."""
    recipe = RECIPES.get(architecture)
    if recipe is None:
        return options
    given = LoRAConfig.from_options(options)
    loras = _WAN_2_2.loras if options.skip_model_loras else recipe.loras
    pairs = [(url, strengths.scaled(*multipliers)) for url, multipliers in loras]
    added = LoRAConfig.from_pairs(pairs, "svi_strength")
    present = {entry.key for entry in given.entries}
    missing = replace(added, entries=tuple(entry for entry in added.entries if entry.key not in present))
    return given.merge(missing).to_options(options).replace(**recipe.knobs)


def check_phases(options: GenerationOptions, architecture: str) -> None:
    """Raises Unsupported for LoRAs of more guidance phases than the recipe of an architecture runs."""
    if architecture not in RECIPES:
        return
    phases = int(RECIPES[architecture].knobs["guidance_phases"])
    for entry in LoRAConfig.from_options(options).entries:
        if multiplier_text(entry.multiplier).count(";") >= phases:
            raise Unsupported(
                f"{entry.filename} has multipliers for more than {phases} phases, but segments that SVI chains "
                f"are made in {phases} phases; give {phases}",
                field="loras_multipliers",
            )
