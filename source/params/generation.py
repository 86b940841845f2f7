"""`GenerationConfig`: what to generate, for code that asks by that name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from headless.options import GenerationOptions


class GenerationConfig(GenerationOptions):
    """The engine's knobs as a row gives them: aliases renamed, levels merged, phase_config and LoRAs worked in."""

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> Self:
        """Raises InvalidInput that names the field."""
        from source.params.generating import parse_generating

        return cls.model_validate(parse_generating(params).options.to_engine())

    def to_wgp_format(self) -> dict[str, Any]:
        """The knobs that were asked for, by the engine's names."""
        return self.to_engine()

    def validate_for_model(self, step: int = 4) -> list[str]:
        """What is not wrong but may surprise. `step`: the model makes step * k + 1 frames."""
        warnings = []
        if not (self.prompt or "").strip():
            warnings.append("there is no prompt")
        if self.video_length and self.video_length % step != 1 % step:
            made = self.video_length // step * step + 1
            warnings.append(f"video_length {self.video_length} is not {step}k + 1; {made} frames are generated")
        return warnings
