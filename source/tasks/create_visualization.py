"""create_visualization: a video that shows how a travel came about.

The steps import the media libraries themselves: add_task only needs the declarations, and should start at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveInt, model_validator

from headless.options import ImageRef, VideoRef
from source.params.base import BOOKKEEPING, Part, TaskParams
from source.params.structure_guidance import StructureGuidanceConfig, StructureVideo
from source.planning.guidance import SourceVideo, plan_guidance
from source.planning.timeline import Layout, Timeline, timeline_for
from source.task_registry import Done, TaskContext, task
from source.trail import Category

if TYPE_CHECKING:
    from source.media.visualization import Panel


def _texts(value: Any) -> Any:
    return ["" if item is None else item for item in value] if isinstance(value, list) else value


class VisualizationParams(TaskParams):
    """What is shown. Everything may also stand one level deeper, in `params`; what stands outside wins."""

    output_video_path: VideoRef = Field("", description="the finished video (needed)")
    segment_frames: list[PositiveInt] = Field([], description="frames per segment, as they were asked for (needed)")
    frame_overlaps: NonNegativeInt | list[NonNegativeInt] = Field(
        [], description="frames shared by neighbouring segments; one number serves every join"
    )
    input_image_paths: list[ImageRef] = Field([], description="the input images, shown where the video passes them")
    segment_prompts: Annotated[list[str], BeforeValidator(_texts)] = Field([], description="prompt per segment")
    structure_video_path: VideoRef | None = Field(None, description="the video whose structure was followed")
    structure_video_treatment: Literal["adjust", "clip"] = Field(
        "adjust", description="adjust: stretched to the length of the output; clip: at its own speed, repeated"
    )
    guidance_video_path: VideoRef | None = Field(None, description="the guide video, frame by frame that of the output")
    mask_video_path: VideoRef | None = Field(None, description="the mask video, frame by frame that of the output")
    show_guidance: bool = Field(False, description="show the guide video beside the structure video as well")
    layout: Layout = Field(
        "triple", description="triple: all in a row; side_by_side: one and the output; grid; vertical"
    )
    fps: float | None = Field(
        None, gt=0, le=240, description="frames per second (default: the output's own); no frame is left out"
    )
    params: Part | None = Field(None, description="the same names, one level deeper")

    @model_validator(mode="before")
    @classmethod
    def _from_both_levels(cls, values: Any) -> Any:
        """Names inside `params` are taken out of it; those that mean nothing stay there, to be reported."""
        inner = values.get("params") if isinstance(values, Mapping) else None
        if not isinstance(inner, Mapping):
            return values
        known = {name: value for name, value in inner.items() if name in cls.model_fields and value is not None}
        left = {name: value for name, value in inner.items() if name not in known and name not in BOOKKEEPING}
        return known | {**values, "params": left}

    @model_validator(mode="after")
    def _is_enough(self) -> Self:
        if not self.output_video_path:
            raise ValueError("output_video_path is missing; name the video that is to be shown")
        if not self.segment_frames:
            raise ValueError("segment_frames is missing; give the number of frames of each segment")
        return self


@task("create_visualization", output="an MP4 video", uses_gpu=False)
def create_visualization(params: VisualizationParams, context: TaskContext) -> Done:
    """Show how a travel came about: guide, mask and output over a timeline with images and prompts."""
    from source.media.visualization import Visualization, visualize
    from Wan2GP.media import probe_video

    output = context.fetch(params.output_video_path, kind="video", field="output_video_path")
    made = probe_video(output)
    timeline = timeline_for(params.segment_frames, params.frame_overlaps, made.num_frames)
    context.trail.frames(Category.FRAME, "segments and overlaps", expected=timeline.planned, actual=made.num_frames)
    shown = Visualization(
        output,
        timeline,
        _beside(params, context, made.num_frames, made.fps),
        _images(params, context, timeline),
        tuple(params.segment_prompts),
        params.layout,
        params.fps,
    )
    report = context.report
    result = visualize(
        shown, context.scratch / "visualization.mp4", progress=lambda done, total: report("drawing", done, total)
    )
    context.trail.frames(Category.FRAME, "visualization", expected=made.num_frames, actual=result.num_frames)
    panels = [panel.title for panel in shown.panels]
    return Done(result.path, {"num_frames": result.num_frames, "panels": panels, "anchors": list(timeline.anchors)})


def _beside(params: VisualizationParams, context: TaskContext, num_frames: int, fps: Fraction) -> tuple[Panel, ...]:
    """The videos that stand beside the output. Guide and mask should be as long as it is."""
    from source.media.visualization import Panel
    from Wan2GP.media import probe_video

    panels = [_structure(params, context, num_frames, fps)] if params.structure_video_path else []
    aligned = {"mask": ("mask_video_path", params.mask_video_path)}
    if params.show_guidance or not panels:
        aligned = {"guide": ("guidance_video_path", params.guidance_video_path)} | aligned
    for title, (field, reference) in aligned.items():
        if reference:
            path = context.fetch(reference, kind="video", field=field)
            found = probe_video(path).num_frames
            context.trail.frames(Category.FRAME, f"{title} video", expected=num_frames, actual=found)
            panels.append(Panel(title, path))
    return tuple(panels)


def _structure(params: VisualizationParams, context: TaskContext, num_frames: int, fps: Fraction) -> Panel:
    """Beside each frame of the output stands the one of the structure video that guided it."""
    from source.media.visualization import Panel
    from Wan2GP.media import probe_video

    path = context.fetch(params.structure_video_path or "", kind="video", field="structure_video_path")
    info = probe_video(path)
    video = StructureVideo(path=str(path), treatment=params.structure_video_treatment)
    sources = {0: SourceVideo(info.num_frames, info.fps)}
    guidance = plan_guidance(StructureGuidanceConfig(videos=[video]), sources, num_frames, fps)
    places = [guidance.source_frame(position) for position in range(num_frames)]
    return Panel("structure", path, tuple(None if place is None else place[1] for place in places))


def _images(params: VisualizationParams, context: TaskContext, timeline: Timeline) -> tuple[Path, ...]:
    """The input images that the video passes. More of them than places is worth a word."""
    given, places = params.input_image_paths, len(timeline.anchors)
    if len(given) > places:
        context.trail.warn(Category.FRAME, "more input images than places", images=len(given), places=places)
    return tuple(
        context.fetch(image, kind="image", field=f"input_image_paths[{index}]")
        for index, image in enumerate(given[:places])
    )
