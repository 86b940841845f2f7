"""`VACEConfig`: the control video of a run and its mask; and the reference images that go with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from pydantic import Field

from headless.options import GenerationOptions, ImageRef
from source.params.base import Part

#: field -> the knob that it stands for
KNOBS = {
    "guide_path": "video_guide",
    "mask_path": "video_mask",
    "prompt_type": "video_prompt_type",
    "control_weight": "control_net_weight",
    "control_weight2": "control_net_weight2",
}


@dataclass(frozen=True)
class VACEConfig:
    """The control knobs of a row by shorter names. None was not asked for."""

    #: control video: path or URL
    guide_path: str | None = None
    #: mask video: black keeps, white generates
    mask_path: str | None = None
    #: letters that say what the control media are
    prompt_type: str | None = None
    control_weight: float | None = None
    control_weight2: float | None = None

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> Self:
        """Raises InvalidInput that names the field."""
        from source.params.generating import parse_generating

        return cls.from_options(parse_generating(params).options)

    @classmethod
    def from_options(cls, options: GenerationOptions) -> Self:
        return cls(**{name: getattr(options, knob) for name, knob in KNOBS.items()})

    def to_wgp_format(self) -> dict[str, Any]:
        """The knobs that were asked for, by the engine's names."""
        values = {KNOBS[field.name]: getattr(self, field.name) for field in fields(self)}
        return {knob: value for knob, value in values.items() if value is not None}


class ReferenceImage(Part):
    """A picture that one segment is shown as a reference beside its guide."""

    original_path: ImageRef = Field(..., description="path or URL")
    strength_to_apply: float = Field(1.0, ge=0, le=10, description="its brightness is multiplied by this")
    type: str = Field("", description="for the front end")
    segment_idx_for_naming: int = Field(0, ge=0, description="the segment that it belongs to")
