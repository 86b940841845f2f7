"""travel_guidance: the structure guidance of a whole travel as one video that every segment reads.

It needs no GPU of its own: depth maps are made through the queue like any generation, everything else is drawn on the
CPU, beside the generations of other tasks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import Field

from source.errors import InvalidInput
from source.params.base import SETTINGS_OF_UNSUPPORTED, UNSUPPORTED, TaskParams
from source.params.structure_guidance import OLDER_NAMES, StructureGuidanceConfig
from source.planning.guidance import place
from source.structure import Slice, draw_structure
from source.task_registry import Done, TaskContext, task

_FLAGS = ("debug", "debug_mode_enabled", "skip_cleanup_enabled", "current_run_base_output_dir")


class TravelGuidanceParams(TaskParams):
    """The timeline of a travel and what guides it."""

    #: what the travel asks of its other children, and what the worker reads itself
    carried: ClassVar[frozenset[str]] = OLDER_NAMES | SETTINGS_OF_UNSUPPORTED | {*UNSUPPORTED, *_FLAGS}
    #: in a travel `steps` is the front end's timeline value, never denoising steps
    not_knobs: ClassVar[frozenset[str]] = frozenset({"steps"})
    needed_knobs: ClassVar[tuple[str, ...]] = ("resolution",)

    structure_guidance: StructureGuidanceConfig = Field(
        default_factory=StructureGuidanceConfig, description="the videos that guide the travel, and how"
    )
    total_frames: int = Field(..., ge=1, le=20_000, description="frames of the whole result")
    fps_helpers: float = Field(16, gt=0, le=120, description="frames per second of the result")

    def of_row(self, raw: Mapping[str, Any]) -> Self:
        """Older names of the guidance count too."""
        config = StructureGuidanceConfig.from_params(raw)
        config.check()
        return self.model_copy(update={"structure_guidance": config})


@task("travel_guidance", output="an MP4 video: the guidance, frame by frame", uses_gpu=False)
def travel_guidance(params: TravelGuidanceParams, context: TaskContext) -> Done:
    """Draw the structure guidance of a travel, created by travel_orchestrator."""
    config, size = params.structure_guidance, params.options.size
    if size is None:
        raise InvalidInput('is missing; give the size as "WIDTHxHEIGHT"', field="parsed_resolution_wh")
    spans = place(config, params.total_frames).spans
    if not spans:
        raise InvalidInput("names no video that lies within the result", field=config.name_of("videos"))
    whole = Slice(0, params.total_frames, params.total_frames, size, params.fps_helpers)
    made = draw_structure(config, context, context.scratch / "structure_guidance.mp4", whole)
    return Done(
        made.path,
        {
            "num_frames": made.num_frames,
            "preprocessing": config.preprocessing,
            "guided": [[span.start, span.stop] for span in spans],
        },
    )
