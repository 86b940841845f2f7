"""Structure guidance of a task: found ready where there is some, drawn where there is none.

The steps import the media libraries themselves: task types name this module, and add_task should start at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from headless.options import GenerationOptions
from source.errors import EngineError
from source.params.structure_guidance import StructureGuidanceConfig
from source.planning.guidance import (
    GUIDANCE_TYPE,
    GuidanceTimeline,
    SourceVideo,
    StructureClip,
    place,
    plan_guidance,
)
from source.task_registry import TaskContext
from source.trail import Category

if TYPE_CHECKING:
    from Wan2GP.media import Frame, VideoIndex, VideoInfo
    from Wan2GP.media.writer import VideoCodec

__all__ = ["DEPTH_MODEL", "Slice", "StructureClip", "draw_structure", "structure_for"]

#: draws depth maps of a video, near things bright, by one rule for all frames
DEPTH_MODEL = "depth_anything_v2_vitl"
#: quality of a published guidance video
CRF = 12


@dataclass(frozen=True)
class Slice:
    """Which part of a timeline is drawn, and how large."""

    offset: int
    num_frames: int
    #: frames of the whole timeline
    total_frames: int
    size: tuple[int, int]
    fps: Fraction | float

    @property
    def stop(self) -> int:
        return min(self.offset + self.num_frames, self.total_frames)


def structure_for(
    config: StructureGuidanceConfig,
    context: TaskContext,
    *,
    offset: int,
    num_frames: int,
    total_frames: int,
    size: tuple[int, int],
    fps: Fraction | float,
) -> StructureClip | None:
    """The guidance of a generation whose first frame stands at `offset` of a result of `total_frames`.

    From the travel's guidance task when this task depends on it, else the guidance video that the row names (from its
    `frame_offset` on), else drawn here. None when nothing guides these frames.
    Raises Unsupported for guidance that could not act, InvalidInput and InvalidMedia for videos that cannot be used.
    """
    config.check()
    if not config.enabled:
        return None
    part = Slice(offset, num_frames, total_frames, size, fps)
    ready = next((each for each in context.dependencies() if each.task.task_type == GUIDANCE_TYPE), None)
    if ready is None and config.guidance_video_url:
        field = config.name_of("guidance_video_url")
        video = context.fetch(config.guidance_video_url, kind="video", field=field)
        return _checked(StructureClip(video, config.frame_offset), part, context)
    spans = place(config, total_frames)
    if not spans.meet(offset, part.stop):
        _note(() if spans.spans else spans.notes, context)
        return None
    if ready is not None:
        return _checked(StructureClip(ready.output, offset), part, context)
    drawn = draw_structure(config, context, context.scratch / "structure.mkv", part)
    return StructureClip(drawn.path, 0)


def draw_structure(config: StructureGuidanceConfig, context: TaskContext, output: Path, part: Slice) -> VideoInfo:
    """Draw a slice of the timeline into `output`: lossless for .mkv, H.264 that every worker can read for .mp4.

    Videos are fetched first. Raises InvalidInput and InvalidMedia for those that cannot be used.
    """
    from source.media.structure import structure_frames
    from Wan2GP.media import write_video

    sources = _sources(config, context, part)
    known = {index: SourceVideo(video.info.num_frames, video.info.fps) for index, video in sources.items()}
    timeline = plan_guidance(config, known, part.total_frames, part.fps)
    _note(timeline.notes, context)
    depth = _depth_maps(timeline, sources, context, part) if config.preprocessing == "depth" else None
    frames = structure_frames(
        timeline, sources, config, part.size, offset=part.offset, num_frames=part.num_frames, depth=depth
    )
    codec: VideoCodec = "ffv1" if output.suffix == ".mkv" else "libx264"
    made = write_video(output, _reported(frames, part, context), fps=part.fps, crf=CRF, codec=codec)
    context.trail.frames(
        Category.FRAME, "structure guidance", expected=part.num_frames, actual=made.num_frames, offset=part.offset
    )
    return made


def _sources(config: StructureGuidanceConfig, context: TaskContext, part: Slice) -> dict[int, VideoIndex]:
    """Index of a video -> its file, for the videos that guide the slice."""
    from Wan2GP.media import index_video

    found: dict[int, VideoIndex] = {}
    for span in place(config, part.total_frames).spans:
        if span.start < part.stop and part.offset < span.stop:
            path, field = config.videos[span.video].path, config.name_of_video(span.video)
            found[span.video] = index_video(context.fetch(path, kind="video", field=field))
    return found


def _depth_maps(
    timeline: GuidanceTimeline, sources: Mapping[int, VideoIndex], context: TaskContext, part: Slice
) -> Iterator[Frame]:
    """A depth map for each guided frame of the slice, in order, by the depth model through the queue."""
    from source.media.structure import guided_frames
    from Wan2GP.media import probe_video, read_frames, read_image, write_video

    model = context.model(DEPTH_MODEL)
    frames = guided_frames(timeline, sources, part.size, part.offset, part.num_frames)
    shown = write_video(context.scratch / "depth_source.mkv", frames, fps=part.fps, codec="ffv1")
    options = GenerationOptions.parse(
        {
            "video_guide": str(shown.path),
            "video_prompt_type": "V",
            "video_length": shown.num_frames,
            "resolution": f"{part.size[0]}x{part.size[1]}",
            "force_fps": f"{float(part.fps):g}",
        }
    )
    made = context.generate(model.name, options, lossless=True).output
    if made.suffix == ".png":  # a video of one frame comes as a picture
        return iter([read_image(made)])
    found = probe_video(made).num_frames
    if not context.trail.frames(Category.WGP, "depth maps", expected=shown.num_frames, actual=found):
        raise EngineError(f"{model.name} returned {found} depth maps for {shown.num_frames} frames")
    return read_frames(made)


def _reported(frames: Iterable[Frame], part: Slice, context: TaskContext) -> Iterator[Frame]:
    for done, frame in enumerate(frames, start=1):
        context.report("drawing structure", done, part.num_frames)
        yield frame


def _checked(clip: StructureClip, part: Slice, context: TaskContext) -> StructureClip:
    """What a guidance video does that nobody may expect is said: it guides no frame after its end, is used frame by
    frame whatever its rate, and is cropped to the result's shape."""
    from source.media.clips import FPS_TOLERANCE
    from source.media.structure import is_cropped
    from Wan2GP.media import probe_video

    info, needed = probe_video(clip.path), clip.offset + part.stop - part.offset
    if info.num_frames < needed:
        context.trail.warn(Category.FRAME, "the guidance video is too short", expected=needed, actual=info.num_frames)
    wanted, own = float(part.fps), float(info.fps)
    if abs(own - wanted) > FPS_TOLERANCE:
        said = "the guidance video is used frame by frame at another rate"
        context.trail.warn(Category.FRAME, said, expected=f"{wanted:g}", actual=f"{own:g}")
    (width, height), size = part.size, (info.width, info.height)
    if is_cropped(size, part.size):
        said = "the guidance video is cropped to another shape"
        context.trail.warn(Category.FRAME, said, expected=f"{width}x{height}", actual=f"{size[0]}x{size[1]}")
    return clip


def _note(notes: Iterable[str], context: TaskContext) -> None:
    for note in notes:
        context.trail.warn(Category.FRAME, f"structure guidance: {note}")
