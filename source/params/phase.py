"""`phase_config`: a run in two or three guidance phases, with steps, guidance and LoRAs of each.

What it says becomes ordinary knobs of the engine; `GeneratingParams` decides which of them win.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from headless.options import parse_model
from source.errors import InvalidInput, Unsupported
from source.params.base import Part
from source.params.lora import LoRAConfig, LoRAEntry, Multiplier, multiplier_text

log = logging.getLogger(__name__)

MAX_STEPS = 200
Steps = Annotated[int, Field(ge=0, le=MAX_STEPS)]


class PhaseLoRA(Part):
    """A LoRA of one phase; without a URL it is ignored."""

    url: str = Field("", description="file name, path or URL")
    multiplier: Multiplier = Field(1.0, description="a number, or numbers with commas: one a step of the phase")


class Phase(Part):
    """One guidance phase."""

    phase: int | None = Field(None, ge=1, le=3, description="its number; by default its place in the list")
    guidance_scale: float | None = Field(None, ge=0, le=30, description="default 3 in phase 1, else 1")
    loras: list[PhaseLoRA] = Field([], description="LoRAs that are on in this phase")


class PhaseConfig(Part):
    """Guidance phases with their steps, guidance and LoRAs. Beats knobs of the same and of weaker levels."""

    num_phases: int = Field(3, description="2 or 3; the lists win where they disagree")
    steps_per_phase: list[Steps] = Field([2, 2, 2], max_length=8, description="denoising steps of each phase")
    flow_shift: float = Field(5.0, ge=0.1, le=25, description="shift of the schedule")
    sample_solver: str = Field("euler", max_length=40, description="sampler; it decides at which noise phases switch")
    model_switch_phase: int = Field(2, ge=1, le=2, description="boundary at which the low-noise expert takes over")
    phases: list[Phase] = Field([], max_length=8, description="one entry a phase")
    svi2pro: bool = Field(False, description="refused: segments are chained by use_svi of their travel")

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> PhaseConfig | None:
        """The strongest phase_config of a row, or None. Raises InvalidInput."""
        from source.params.generating import parse_generating

        return parse_generating(params).phase_config

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Raises InvalidInput that names the field."""
        return parse_model(cls, values)

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        if self.svi2pro:
            raise Unsupported("SVI is no matter of a phase; set use_svi of the travel", field="phase_config.svi2pro")
        if self.guidance_phases not in (2, 3) or len(self.phases) != self.guidance_phases:
            raise InvalidInput(
                f"{len(self.phases)} phases and {len(self.steps_per_phase)} entries of steps_per_phase; "
                "give two or three of each",
                field="phase_config.phases",
            )
        if not 1 <= self.num_inference_steps <= MAX_STEPS:
            raise InvalidInput(
                f"adds up to {self.num_inference_steps} steps; use 1 to {MAX_STEPS}",
                field="phase_config.steps_per_phase",
            )
        if sorted(self._numbers) != list(range(1, len(self.phases) + 1)):
            raise InvalidInput(f"the phases are numbered {self._numbers}; count from 1", field="phase_config.phases")
        _ = self.lora
        self._warn()
        return self

    def _warn(self) -> None:
        if "num_phases" in self.model_fields_set and self.num_phases != self.guidance_phases:
            log.warning("phase_config.num_phases is %d; %d are used", self.num_phases, self.guidance_phases)
        if self.sample_solver == "causvid":
            log.warning("phase_config: causvid runs at its own timesteps; the phases may switch elsewhere")

    @property
    def guidance_phases(self) -> int:
        """The number of phases: num_phases, else that of the steps, else that of the phases."""
        if self.num_phases == len(self.steps_per_phase) == len(self.phases):
            return self.num_phases
        return len(self.phases)

    @property
    def num_inference_steps(self) -> int:
        return sum(self.steps_per_phase)

    @cached_property
    def steps(self) -> tuple[int, ...]:
        """Steps of each phase: surplus entries belong to the last phase, missing ones are 0."""
        last = self.guidance_phases - 1
        padded = [*self.steps_per_phase, 0, 0, 0]
        return (*padded[:last], sum(padded[last:]))

    @property
    def _numbers(self) -> list[int]:
        return [place if phase.phase is None else phase.phase for place, phase in enumerate(self.phases, start=1)]

    @property
    def _ordered(self) -> list[Phase]:
        return [phase for _, phase in sorted(zip(self._numbers, self.phases, strict=True), key=lambda pair: pair[0])]

    @cached_property
    def thresholds(self) -> tuple[float | None, float | None]:
        """Noise levels (0-1000) where phases 2 and 3 begin; None where no step is left for the phase.

        Of the levels that the engine runs, so that each phase has its steps: causvid and lcm have their own.
        """
        from Wan2GP.schedules import model_sigmas, switch_thresholds

        sigmas = model_sigmas(self.sample_solver, self.num_inference_steps, self.flow_shift)
        first, second = (*switch_thresholds(sigmas, self.steps), None)[:2]
        return first, second

    @cached_property
    def lora(self) -> LoRAConfig:
        """Each LoRA once, in first-seen order, one multiplier a phase: "0" where it is absent. Raises InvalidInput."""
        first_seen: dict[str, LoRAEntry] = {}
        by_phase: dict[str, list[str]] = {}
        for index, phase in enumerate(self._ordered):
            for place, given in enumerate(phase.loras):
                if not given.url.strip():
                    continue
                field = f"phase_config.phases.{index}.loras.{place}"
                entry = _entry(given, self.steps[index], field)
                first_seen.setdefault(entry.key, entry)
                multipliers = by_phase.setdefault(entry.key, ["0"] * self.guidance_phases)
                multipliers[index] = multiplier_text(entry.multiplier)
        pairs = ((entry.reference, ";".join(by_phase[key])) for key, entry in first_seen.items())
        return LoRAConfig.from_pairs(pairs, "phase_config.phases")

    def knobs(self) -> dict[str, Any]:
        """Every knob that a phase_config decides, but the LoRAs; None clears it.

        The model's own LoRAs are left out, so that an accelerator is not applied twice.
        """
        scales = [phase.guidance_scale for phase in self._ordered]
        first, second, third = ([1.0 if scale is None else scale for scale in scales] + [1.0])[:3]
        return {
            "guidance_phases": self.guidance_phases,
            "num_inference_steps": self.num_inference_steps,
            "switch_threshold": self.thresholds[0],
            "switch_threshold2": self.thresholds[1],
            "guidance_scale": 3.0 if scales[0] is None else first,
            "guidance2_scale": second,
            "guidance3_scale": third,
            "flow_shift": self.flow_shift,
            "sample_solver": self.sample_solver,
            "model_switch_phase": self.model_switch_phase,
            "skip_model_loras": 1,
        }

    def to_wgp_format(self) -> dict[str, Any]:
        """The engine's parameters. LoRAs that are not downloaded yet are left out."""
        return {name: value for name, value in self.knobs().items() if value is not None} | self.lora.to_wgp_format()


def _entry(given: PhaseLoRA, steps: int, field: str) -> LoRAEntry:
    """Raises InvalidInput, also for a list of multipliers that is not one a step."""
    try:
        entry = LoRAEntry.of(given.url, given.multiplier)
    except ValueError as error:
        raise InvalidInput(str(error), field=f"{field}.url") from None
    if not isinstance(entry.multiplier, str):
        return entry
    if ";" in entry.multiplier:
        raise InvalidInput("belongs to one phase; leave out the ';'", field=f"{field}.multiplier")
    count = entry.multiplier.count(",") + 1
    if count != steps:
        raise InvalidInput(
            f"{count} multipliers for a phase of {steps} steps; give one a step", field=f"{field}.multiplier"
        )
    return entry
