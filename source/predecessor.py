"""What a segment goes on from: the segment before it, or a video that a travel continues.

The media libraries are imported by the steps: task types name this module, and add_task should start at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from source.errors import InvalidInput, InvalidMedia
from source.params.travel import SegmentParams, TravelMode
from source.planning.frames import quantise
from source.planning.guidance import GUIDANCE_TYPE
from source.planning.prompts import TASK_TYPE as PROMPTS_TYPE
from source.planning.svi import LEAST_FRAMES, SOURCE_FRAMES
from source.task_registry import Dependency, TaskContext

if TYPE_CHECKING:
    from source.media.clips import Clip
    from Wan2GP.media import Frame

#: dependencies that prepare something for a segment and are no part of the travel
PREPARING = frozenset({GUIDANCE_TYPE, PROMPTS_TYPE})
#: in the result_data of a segment: rows of pixels above its pictures
BANNER_HEIGHT = "banner_height"


@dataclass(frozen=True)
class Predecessor:
    """A video, seen at the travel's frame rate."""

    clip: Clip
    #: rows of pixels above its pictures that belong to a banner of input images
    banner_height: int = 0

    @property
    def num_frames(self) -> int:
        return self.clip.num_frames

    def tail(self, count: int, size: tuple[int, int]) -> list[Frame]:
        """Exactly its last `count` frames, RGB, without a banner, stretched to `size` (width, height).

        Raises InvalidMedia when it has fewer.
        """
        from Wan2GP.media import resize

        if self.num_frames < count:
            raise InvalidMedia(
                f"{self.clip.path.name} has {self.num_frames} frames, but {count} are needed to continue it"
            )
        frames = self.clip.frames(self.num_frames - count, self.num_frames)
        return [resize(frame[self.banner_height :], size) for frame in frames]

    def source_frames(self) -> int:
        """How many of its last frames SVI is given: 9, or of a shorter video the 4k + 1 that it has."""
        if self.num_frames < LEAST_FRAMES:
            raise InvalidMedia(
                f"{self.clip.path.name} has {self.num_frames} frames, but SVI continues at least {LEAST_FRAMES}"
            )
        return min(SOURCE_FRAMES, quantise(self.num_frames - 1))


def predecessor_of(params: SegmentParams, context: TaskContext) -> Predecessor | None:
    """None for a segment that begins with a picture of its own. Raises InvalidInput when what it continues is missing.

    A segment of a travel continues what it depends on; one on its own rather the video that it names.
    """
    if not (params.continues or params.continued_video):
        return None
    named = params.svi_predecessor_video_url if params.mode == "svi" else None
    before = [each for each in context.dependencies() if each.task.task_type not in PREPARING]
    if before and not (params.standalone and named):
        return _finished(before[-1], params)
    if video := params.continued_video:
        return _named(video, "continue_from_video_resolved_path", params, context)
    if named:
        return _named(named, "svi_predecessor_video_url", params, context)
    raise InvalidInput("the segment continues another one but depends on none", field="dependant_on")


def _finished(before: Dependency, params: SegmentParams) -> Predecessor:
    from source.media.clips import Clip

    rows = (before.task.result_data or {}).get(BANNER_HEIGHT, 0)
    return Predecessor(Clip.open(before.output, fps=params.fps_helpers), int(rows))


def _named(video: str, field: str, params: SegmentParams, context: TaskContext) -> Predecessor:
    return Predecessor(continued_clip(context.fetch(video, kind="video", field=field), params.fps_helpers))


def continued_clip(path: Path, fps: int, size: tuple[int, int] | None = None) -> Clip:
    """A video that a travel continues, as the travel sees it: at its rate, stretched to its `size` (width, height)."""
    from source.media.clips import Clip

    return Clip.open(path, fps=fps, size=size)


def continued_frames(params: TravelMode, context: TaskContext) -> int:
    """Frames of the video that a travel continues, at the travel's rate; 0 without one. Raises InvalidMedia."""
    video = params.continue_from_video_resolved_path
    if video is None:
        return 0
    path = context.fetch(video, kind="video", field="continue_from_video_resolved_path")
    return continued_clip(path, params.fps_helpers).num_frames
