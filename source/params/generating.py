"""What every task type that generates accepts besides the engine's knobs: LoRAs by older names, and phase_config.

All of it ends in `options`, so that nothing further in needs to know these names.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from headless.options import GenerationOptions
from source.errors import InvalidInput
from source.params.base import Given, Part, TaskParams, parse_params
from source.params.lora import LoRAConfig, LoRAReference, Multiplier
from source.params.phase import PhaseConfig


class ScaledLoRA(Part):
    """A LoRA with its strength."""

    path: LoRAReference = Field(..., description="file name, path or URL")
    scale: Multiplier = Field(1.0, description='multiplier: a number, or phases as "1;0"')


class GeneratingParams(TaskParams):
    """Base of the task types that run a model.

    A phase_config beats the knobs that it decides where they are written at its own level or a weaker one; a stronger
    level's knob beats it. Its steps cannot be contradicted from its own level up.
    LoRAs add up: `activated_loras`, then `additional_loras`, `loras` and those of phase_config. Each of these names is
    replaced as a whole by a stronger level; of two that name one LoRA the later wins (`LoRAEntry.merged`).
    """

    phase_config: PhaseConfig | None = Field(None, description="guidance phases with steps, guidance and LoRAs of each")
    additional_loras: dict[LoRAReference, Multiplier] = Field({}, description="LoRA (file or URL) -> multiplier")
    loras: list[ScaledLoRA] = Field([], description="LoRAs as a list of path and scale")

    def resolved(self, given: Mapping[str, Given]) -> Self:
        """A copy whose options hold what phase_config and the LoRAs say. Raises InvalidInput."""
        options = self.options
        if self.phase_config:
            options = options.replace(**_phase_knobs(self.phase_config, options, given))
        options = self._loras(options, given)
        return self if options is self.options else self.model_copy(update={"options": options})

    def _loras(self, options: GenerationOptions, given: Mapping[str, Given]) -> GenerationOptions:
        if not (options.activated_loras or self.phase_config or self.additional_loras or self.loras):
            return options
        multipliers = options.loras_multipliers or ""
        if options.skip_model_loras:
            multipliers = multipliers.rpartition("|")[2]
        parts = [
            LoRAConfig.from_names(options.activated_loras or (), multipliers, _written(given)),
            LoRAConfig.from_pairs(self.additional_loras.items(), "additional_loras"),
            LoRAConfig.from_pairs(((each.path, each.scale) for each in self.loras), "loras"),
            self.phase_config.lora if self.phase_config else LoRAConfig(),
        ]
        merged = reduce(LoRAConfig.merge, parts)
        return merged.to_options(options) if merged.entries else options


class GenerateParams(GeneratingParams):
    """One video or image; everything else is an engine knob."""

    needed_knobs: ClassVar[tuple[str, ...]] = ("prompt",)

    @model_validator(mode="after")
    def _has_a_prompt(self) -> Self:
        if not (self.options.prompt or "").strip():
            raise ValueError("prompt is missing; say what to show")
        return self


def _written(given: Mapping[str, Given]) -> tuple[str, str]:
    """The names under which the row lists LoRAs and multipliers."""
    names = ("activated_loras", "loras_multipliers")
    first, second = (given[name].name if name in given else name for name in names)
    return first, second


def _phase_knobs(phases: PhaseConfig, options: GenerationOptions, given: Mapping[str, Given]) -> dict[str, Any]:
    """The knobs that a phase_config decides, less those that a stronger level gives."""
    level = given["phase_config"].level
    steps = options.num_inference_steps
    written = given.get("num_inference_steps")
    if written and written.level >= level and steps != phases.num_inference_steps:
        raise InvalidInput(
            f"adds up to {phases.num_inference_steps}, but {written.name} is {steps}; make them equal or leave it out",
            field="phase_config.steps_per_phase",
        )
    return {name: value for name, value in phases.knobs().items() if name not in given or given[name].level <= level}


def parse_generating(
    params: Mapping[str, Any], options_class: type[GenerationOptions] = GenerationOptions
) -> GeneratingParams:
    """What a row says about generating, whatever its task type. Raises InvalidInput that names the field."""
    return parse_params(GeneratingParams, params, options_class).params
