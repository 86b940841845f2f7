"""travel_stitch: join the segments of a travel to one video.

The steps import the media libraries themselves: add_task only needs the declarations, and should start at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from source.errors import InvalidInput, InvalidMedia
from source.params.travel import StitchParams
from source.planning.frames import FramePlan
from source.planning.travel import stitch_plan
from source.predecessor import BANNER_HEIGHT, continued_clip
from source.task_registry import Dependency, Done, TaskContext, task
from source.trail import Category

if TYPE_CHECKING:
    from source.media.assemble import Part
    from source.media.clips import Clip
    from source.media.crossfade import Crossfade
    from source.media.soundtrack import SoundPiece


@task("travel_stitch", output="an MP4 video", uses_gpu=False)
def travel_stitch(params: StitchParams, context: TaskContext) -> Done:
    """Join the segments of a travel, created by travel_orchestrator."""
    from source.media.analysis import debug_video_analysis
    from source.media.assemble import assemble
    from source.media.poster import poster

    segments = ordered_segments(context.dependencies(), params.num_total_segments_generated)
    canvas = Canvas.of(segments, params)
    continued = _continued(params, canvas, context)
    plan = stitch_plan(params, continued.num_frames if continued else params.continued_frames)
    clips = [canvas.clip(segment, context.scratch) for segment in segments]
    check_lengths(clips, plan, context)
    shown = [canvas.below_nothing(continued, context.scratch), *clips] if continued else clips
    overlaps = plan.overlaps if continued or not plan.continued else plan.overlaps[1:]
    context.trail.note(Category.STITCH, "joins", clips=len(shown), overlaps=overlaps, total_frames=plan.total_frames)
    output = context.scratch / "travel_final.mp4"
    report = assemble(
        parts_of(shown, overlaps, regenerate_anchors=params.regenerate_anchors),
        output,
        size=canvas.size,
        fps=canvas.fps,
        crossfade=_crossfade(params),
        sound=_sound(params, continued, plan, canvas, context),
        progress=lambda done, total: context.report("stitching", done, total),
    )
    made = debug_video_analysis(output).num_frames
    if not context.trail.frames(
        Category.STITCH_FINAL_ANALYSIS, "the stitched video", expected=plan.total_frames, actual=made,
        copied=report.copied_frames, encoded=report.encoded_frames, method=report.method,
    ):  # fmt: skip
        raise InvalidMedia(f"the stitched video has {made} frames instead of {plan.total_frames}")
    anchors = plan.anchors[: len(params.input_image_paths_resolved) or None]
    data = {"num_frames": made, "anchors": list(anchors), "method": report.method}
    picture = poster(output, context.scratch / "travel_final.jpg")
    return Done(output, data | {"copied_frames": report.copied_frames}, picture)


def ordered_segments(segments: Sequence[Dependency], expected: int) -> list[Dependency]:
    """One segment for each index 0 … expected-1; of several for one index the newest. Raises InvalidInput for gaps."""
    newest: dict[int, Dependency] = {}
    for segment in sorted(segments, key=lambda each: each.task.created_at):
        newest[_index_of(segment)] = segment
    missing = sorted(set(range(expected)) - set(newest))
    if missing or len(newest) != expected:
        raise InvalidInput(
            f"{expected} segments are to be joined, but the indices found are {sorted(newest)}"
            + (f" (missing: {', '.join(map(str, missing))})" if missing else ""),
            field="num_total_segments_generated",
        )
    return [newest[index] for index in range(expected)]


def _index_of(segment: Dependency) -> int:
    index = segment.task.params.get("segment_index", -1)
    try:
        return int(index)
    except (TypeError, ValueError):
        raise InvalidInput(f"{index!r:.40} of task {segment.task.id} is no number", field="segment_index") from None


def check_lengths(clips: Sequence[Clip], plan: FramePlan, context: TaskContext) -> None:
    """Raises InvalidMedia when a segment is not as long as the plan says."""
    if len(clips) != len(plan.segments):
        raise InvalidInput(
            f"{len(clips)} segments are to be joined, but the plan has {len(plan.segments)}",
            field="num_total_segments_generated",
        )
    for segment, clip in zip(plan.segments, clips, strict=True):
        expected, found = segment.output, clip.num_frames
        if not context.trail.frames(
            Category.STITCH_FINAL_ANALYSIS, f"segment {segment.index}", expected=expected, actual=found
        ):
            context.trail.warn(Category.CRITICAL, "a stitch with it would lose or repeat frames", segment=segment.index)
            raise InvalidMedia(f"segment {segment.index} ({clip.path.name}) has {found} frames instead of {expected}")


def parts_of(clips: Sequence[Clip], overlaps: Sequence[int], *, regenerate_anchors: bool) -> list[Part]:
    """The clips with their cross-fades. The shared frames of two clips lie on each other, index by index.

    With `regenerate_anchors` the last shared position shows the later clip's own frame: the earlier clip ends one frame
    sooner, and one frame less is mixed.
    """
    from source.media.assemble import Part

    own = [1 if regenerate_anchors and overlap > 1 else 0 for overlap in overlaps]
    parts = []
    for index, clip in enumerate(clips):
        fade = overlaps[index - 1] - own[index - 1] if index else 0
        cut = own[index] if index < len(own) else 0
        parts.append(Part(clip, 0, clip.num_frames - cut, fade))
    return parts


def _crossfade(params: StitchParams) -> Crossfade:
    from source.media.crossfade import Crossfade

    mode = params.crossfade_mode or ("linear_sharp" if params.crossfade_sharp_amt else "ease")
    amount = 0.3 if params.crossfade_sharp_amt is None else params.crossfade_sharp_amt
    return Crossfade("ease" if mode == "equal_power" else mode, amount)


def _continued(params: StitchParams, canvas: Canvas, context: TaskContext) -> Clip | None:
    """The video that the travel continues, of as many frames as were planned with. Raises InvalidMedia."""
    if params.initial_continued_video_path is None:
        return None
    path = context.fetch(params.initial_continued_video_path, kind="video", field="initial_continued_video_path")
    clip = continued_clip(path, params.fps_helpers, canvas.picture)
    expected = params.continued_frames or clip.num_frames
    if not context.trail.frames(Category.STITCH, "the continued video", expected=expected, actual=clip.num_frames):
        raise InvalidMedia(
            f"has {clip.num_frames} frames at {params.fps_helpers} fps, but the travel was planned with {expected}",
            field="initial_continued_video_path",
        )
    return clip


def _sound(
    params: StitchParams, continued: Clip | None, plan: FramePlan, canvas: Canvas, context: TaskContext
) -> list[SoundPiece]:
    """The sound that was asked for; else that of the continued video, fading out into the first segment."""
    from source.media.soundtrack import SoundPiece

    if params.audio_url:
        path = context.fetch(params.audio_url, kind="audio", field="audio_url")
        return [SoundPiece(path, 0.0, plan.total_frames / float(canvas.fps), 0.0)]
    piece = continued and continued.sound(
        0, continued.num_frames, 0, fade_out_s=plan.segments[0].overlap_previous / float(canvas.fps)
    )
    return [piece] if piece else []


@dataclass(frozen=True)
class Canvas:
    """The picture of the result: that of the segments, below a banner as tall as the tallest of theirs.

    picture   (width, height) in pixels without the banner
    """

    picture: tuple[int, int]
    banner_height: int
    fps: Fraction

    @classmethod
    def of(cls, segments: Sequence[Dependency], params: StitchParams) -> Canvas:
        """Size and rate of the first segment. A row that names a rate decides it."""
        from source.media.clips import Clip

        banners = [_banner_height(segment) for segment in segments]
        first = Clip.open(segments[0].output)
        picture = (first.size[0], first.size[1] - banners[0])
        fps = Fraction(params.fps_helpers) if "fps_helpers" in params.model_fields_set else first.fps
        return cls(picture, max(banners), fps)

    @property
    def size(self) -> tuple[int, int]:
        return self.picture[0], self.picture[1] + self.banner_height

    def clip(self, segment: Dependency, folder: Path) -> Clip:
        """A segment on the canvas, its frames one for one."""
        from source.media.clips import Clip

        height = _banner_height(segment)
        shown = (self.picture[0], self.picture[1] + height)
        return self._lowered(
            Clip.open(segment.output, fps=self.fps, size=shown, fps_tolerance=float("inf")),
            self.banner_height - height, folder / f"canvas{segment.task.params.get('segment_index')}.mp4",
        )  # fmt: skip

    def below_nothing(self, clip: Clip, folder: Path) -> Clip:
        """A clip without a banner of its own."""
        return self._lowered(clip, self.banner_height, folder / "canvas_continued.mp4")

    def _lowered(self, clip: Clip, rows: int, output: Path) -> Clip:
        """The clip below `rows` rows of black, so that its pictures lie where those of all others do."""
        import numpy as np

        from source.media.banner import stacked
        from source.media.clips import Clip
        from Wan2GP.media import VideoWriter

        if not rows:
            return clip
        width = clip.size[0]
        black = np.full((rows * 3 // 2, width), 128, np.uint8)
        black[:rows] = 16
        with VideoWriter(output, fps=self.fps, size=self.size) as writer:
            for planes in clip.planes(0, clip.num_frames):
                writer.write_planes(stacked(black, planes))
        return Clip.open(output, fps=self.fps)


def _banner_height(segment: Dependency) -> int:
    return int((segment.task.result_data or {}).get(BANNER_HEIGHT, 0))
