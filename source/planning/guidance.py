"""Which source frame guides which frame of a travel: one timeline, that of the stitched video.

Position 0 is the first frame of the result, a continued video included. Every reader of the timeline (the guide of a
segment, the guidance of a whole travel, a picture of both) asks it by position, so that frame k of a guide always comes
from source frame f(k). Where no video lies nothing guides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Literal

from source.errors import InvalidInput
from source.params.structure_guidance import StructureGuidanceConfig, StructureVideo
from source.planning.frames import FramePlan
from source.store.types import NewTask, Task

#: task type of the child that draws a travel's guidance, and its key
GUIDANCE_TYPE = "travel_guidance"
GUIDANCE_KEY = f"{GUIDANCE_TYPE}:0"
#: 23.976 stands for 24000/1001, which is a millionth more: paces so near to each other are one
_FINEST_PACE = 10_000


@dataclass(frozen=True)
class StructureClip:
    """Guidance on disk: frame k of a guide shows frame `offset + k` of the video, as far as it has one."""

    path: Path
    offset: int


@dataclass(frozen=True)
class Span:
    """Where a video lies: it guides the positions start … stop-1."""

    #: its index in the list of videos
    video: int
    start: int
    stop: int


@dataclass(frozen=True)
class Spans:
    """Where all videos lie, in their order on the timeline, and what was left out of it."""

    spans: tuple[Span, ...]
    notes: tuple[str, ...] = ()

    def meet(self, start: int, stop: int) -> bool:
        """Whether any of the positions start … stop-1 is guided."""
        return any(span.start < stop and start < span.stop for span in self.spans)


@dataclass(frozen=True)
class SourceVideo:
    """What the timeline has to know of a video file."""

    num_frames: int
    fps: Fraction


@dataclass(frozen=True)
class Placement(Span):
    """A video on the timeline, with the frames of it that are used: `available` of them, from `first` on."""

    treatment: Literal["adjust", "clip"]
    first: int
    available: int
    #: source frames a frame of the timeline
    pace: Fraction

    @property
    def needed(self) -> int:
        return self.stop - self.start

    def source_frame(self, position: int) -> int:
        """f(k) for `position` = start + k, also for the frame after the last one.

        adjust   first + floor(k * (available - 1) / needed): the whole range of the source, evenly
        clip     first + ceil(k * pace), the source frame at or after the time of frame k; from `first` again as soon as
                 the source has none so late
        """
        k = position - self.start
        if self.treatment == "adjust":
            return self.first + k * (self.available - 1) // self.needed
        return self.first + _ceil(k % self._round * self.pace)

    def source_pair(self, position: int) -> tuple[int, int]:
        """f(k) and f(k + 1), between which the motion of frame k lies.

        From the last frame of a round to the first of the next one nothing moves: there the motion before goes on.
        """
        if self.treatment == "clip" and (position - self.start + 1) % self._round == 0:
            position = max(position - 1, self.start)
        return self.source_frame(position), self.source_frame(position + 1)

    @property
    def _round(self) -> int:
        """Frames of the timeline that the source lasts, played at its own speed."""
        return int((self.available - 1) / self.pace) + 1


@dataclass(frozen=True)
class GuidanceTimeline:
    """What guides each frame of the result. Placements are in order and never overlap."""

    total_frames: int
    placements: tuple[Placement, ...]
    notes: tuple[str, ...] = ()

    def at(self, position: int) -> Placement | None:
        """The placement that guides a position; None where nothing does."""
        return next((each for each in self.placements if each.start <= position < each.stop), None)

    def source_frame(self, position: int) -> tuple[int, int] | None:
        """(index of the video, its frame) shown at a position; None where nothing guides."""
        placement = self.at(position)
        return None if placement is None else (placement.video, placement.source_frame(position))


def place(config: StructureGuidanceConfig, total_frames: int) -> Spans:
    """Where the videos lie on a timeline of `total_frames`.

    Sorted by their starts. One that would start after the end is left out, one that reaches beyond it is cut there:
    both are noted. Raises InvalidInput when two overlap.
    """
    spans: list[Span] = []
    notes: list[str] = []
    for index, video in enumerate(config.videos):
        name = config.name_of_video(index)
        stop = total_frames if video.end_frame is None else video.end_frame
        if video.start_frame >= total_frames:
            notes.append(f"{name} would begin at frame {video.start_frame} of {total_frames}: left out")
            continue
        if stop > total_frames:
            notes.append(f"{name} would end at frame {stop} of {total_frames}: cut there")
        spans.append(Span(index, video.start_frame, min(stop, total_frames)))
    spans.sort(key=lambda span: span.start)
    for before, after in pairwise(spans):
        if after.start < before.stop:
            raise InvalidInput(
                f"videos {before.video} and {after.video} both guide frame {after.start}; a frame has one guide: "
                f"end the first one at start_frame {after.start} or earlier",
                field=config.name_of("videos"),
            )
    return Spans(tuple(spans), tuple(notes))


def plan_guidance(
    config: StructureGuidanceConfig, sources: Mapping[int, SourceVideo], total_frames: int, fps: Fraction | float
) -> GuidanceTimeline:
    """The timeline of a result of `total_frames` at `fps`. `sources`: index of a video -> its file.

    Videos without an entry in `sources` are left out: a slice of the timeline does not need them all.
    Raises InvalidInput when two videos overlap, or for a source range that lies outside its file.
    """
    spans = place(config, total_frames)
    notes = list(spans.notes)
    placements: list[Placement] = []
    for span in spans.spans:
        if span.video not in sources:
            continue
        video, source, name = config.videos[span.video], sources[span.video], config.name_of_video(span.video)
        first, available = _source_range(video, source, name)
        if (video.source_end_frame or 0) > source.num_frames:
            notes.append(f"{name} has {source.num_frames} frames, not {video.source_end_frame}: used to its end")
        pace = (source.fps / Fraction(fps)).limit_denominator(_FINEST_PACE)
        placements.append(Placement(span.video, span.start, span.stop, video.treatment, first, available, pace))
    return GuidanceTimeline(total_frames, tuple(placements), tuple(notes))


def _source_range(video: StructureVideo, source: SourceVideo, name: str) -> tuple[int, int]:
    """(first frame, number of frames) that are used of a file."""
    stop = source.num_frames if video.source_end_frame is None else min(video.source_end_frame, source.num_frames)
    if video.source_start_frame >= stop:
        raise InvalidInput(
            f"has {source.num_frames} frames, none of them from source_start_frame {video.source_start_frame} on",
            field=name,
        )
    return video.source_start_frame, stop - video.source_start_frame


def _ceil(number: Fraction) -> int:
    return -(-number.numerator // number.denominator)


def guidance_task(
    row: Task,
    shared: Mapping[str, object],
    config: StructureGuidanceConfig,
    frames: FramePlan,
    size: tuple[int, int],
    fps: Fraction | float,
) -> NewTask | None:
    """The child that draws the guidance of a whole travel once, for all its segments; they depend on it.

    size   (width, height) in pixels that the model generates

    None when nothing is to be drawn: no video, none that lies within the result, or a guidance video that was made
    before. Raises Unsupported for guidance that could not act, InvalidInput for videos that overlap.
    """
    config.check()
    if config.guidance_video_url or not place(config, frames.total_frames).spans:
        return None
    params = {
        **shared,
        "structure_guidance": config.to_row(),
        "total_frames": frames.total_frames,
        "parsed_resolution_wh": f"{size[0]}x{size[1]}",
        "fps_helpers": float(fps) if Fraction(fps).denominator > 1 else int(fps),
    }
    return NewTask.child(row, GUIDANCE_KEY, GUIDANCE_TYPE, params)
