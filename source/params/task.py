"""`TaskConfig`: one row as typed groups, for logs, front ends and code that asks by these names.

Nothing is parsed here: the groups are views of what the task type's own parameters say.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from source.params.base import TaskParams, flatten_params
from source.params.generating import GeneratingParams
from source.params.generation import GenerationConfig
from source.params.lora import LoRAConfig
from source.params.phase import PhaseConfig
from source.params.structure_guidance import StructureGuidanceConfig
from source.params.vace import VACEConfig
from source.store.types import Task

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TaskConfig:
    """A task's id, type and model, what it generates, and the names that nothing knows."""

    task_id: str
    task_type: str
    model: str | None
    generation: GenerationConfig
    vace: VACEConfig
    lora: LoRAConfig
    phase: PhaseConfig | None
    structure_guidance: StructureGuidanceConfig
    extra_params: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_db_task(cls, task: Task) -> Self:
        """From a row of the database. Raises InvalidInput that names the field."""
        return cls.from_params(task.params, task_type=task.task_type, task_id=task.id)

    @classmethod
    def from_segment_params(
        cls,
        segment: Mapping[str, Any],
        orchestrator: Mapping[str, Any] | None = None,
        individual: Mapping[str, Any] | None = None,
        *,
        task_id: str = "",
        task_type: str = "individual_travel_segment",
    ) -> Self:
        """From a segment's levels: orchestrator < segment < individual. Raises InvalidInput."""
        levels = {"orchestrator_details": orchestrator, "individual_segment_params": individual}
        row = {**segment, **{level: values for level, values in levels.items() if values is not None}}
        return cls.from_params(row, task_type=task_type, task_id=task_id)

    @classmethod
    def from_params(cls, params: Mapping[str, Any], *, task_type: str, task_id: str = "") -> Self:
        """From a row's parameters. Raises InvalidInput that names the field."""
        from source.task_registry import registry

        parsed = registry().get(task_type).parse(params, GenerationConfig)
        generation = parsed.params.options
        assert isinstance(generation, GenerationConfig)
        flat = flatten_params(params, TaskParams)
        return cls(
            task_id,
            task_type,
            parsed.params.model,
            generation,
            VACEConfig.from_options(generation),
            LoRAConfig.from_options(generation),
            parsed.params.phase_config if isinstance(parsed.params, GeneratingParams) else None,
            StructureGuidanceConfig.from_params(params),
            {name: flat[name] for name in parsed.unknown if name in flat},
        )

    def to_wgp_format(self) -> dict[str, Any]:
        """The engine's parameters. LoRAs that are not downloaded yet are left out; unknown names come last and win."""
        loras = self.lora.to_wgp_format() if self.lora.entries else {}
        return self.generation.to_wgp_format() | self.vace.to_wgp_format() | loras | dict(self.extra_params)

    def validate(self) -> list[str]:
        """What is not wrong but may surprise; what is wrong was refused when the row was read."""
        pending = self.lora.get_pending_downloads()
        waiting = [f"{len(pending)} LoRA(s) are not downloaded yet"] if pending else []
        return self.generation.validate_for_model() + waiting

    def log_summary(self) -> None:
        """One line at INFO."""
        knobs = self.generation.to_engine()
        shown = {name: knobs[name] for name in _SHOWN if name in knobs}
        text = ", ".join(f"{name} {value}" for name, value in shown.items())
        log.info("%s with %s: %s, %d LoRA(s)", self.task_type, self.model or "no model", text, len(self.lora.entries))


_SHOWN = ("resolution", "video_length", "num_inference_steps", "guidance_phases", "guidance_scale", "seed")
