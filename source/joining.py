"""Footage, transitions between it, and the splice of both: what joins, edits and inpainting have in common.

Clips are never cut to files. Each task views the originals that its row names, harmonised: at one rate, of one shape
and size. Transitions are generated between views and encoded once; the result is spliced from the originals.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

from headless.inputs import generation_size
from headless.options import GenerationOptions
from source.errors import EngineError, InvalidInput, InvalidMedia, Unsupported
from source.media.assemble import Part, assemble
from source.media.clips import Clip
from source.media.download import naming
from source.media.guides import GuidePlan, write_guide, write_mask
from source.media.soundtrack import SoundPiece
from source.media.splice import SpliceReport, signalling_beside
from source.params.joins import DEFAULT_FPS, SAME_FPS, ClipRange, Harmonised, JoinParams, JoinPlan, as_fraction
from source.planning.joins import kept, sound_spans, total_frames
from source.planning.upscale import refuse_post_processing
from source.task_registry import TaskContext
from source.trail import Category
from Wan2GP.media import Frame, Signalling, check_sound, exact_fps, probe_video, read_frames, resize, write_video

#: seconds in which a clip's sound comes and goes where it meets a transition
FADE_S = 0.03
#: frames of context on each side of the gap that `regenerate_anchors` has generated anew
ANCHORS = 3


@dataclass(frozen=True)
class Harmony:
    """What all frames of a project have in common; an odd side that was asked for loses a pixel."""

    size: tuple[int, int]
    fps: Fraction
    aspect: Fraction
    fps_tolerance: float

    @classmethod
    def of(cls, params: Harmonised, first: Path) -> Harmony:
        """As the parameters say; what they leave open is the first clip's. Raises InvalidMedia, InvalidInput."""
        own = probe_video(first)
        aspect = as_fraction(params.aspect_ratio) if params.aspect_ratio else Fraction(own.width, own.height)
        asked = None if params.use_input_video_resolution else params.options.size
        size = (asked[0] // 2 * 2, asked[1] // 2 * 2) if asked else Clip.open(first, aspect=aspect).size
        return cls(size, _rate(params, exact_fps(own.fps)), aspect, params.fps_tolerance)

    def view(self, path: Path) -> Clip:
        return Clip.open(path, fps=self.fps, size=self.size, aspect=self.aspect, fps_tolerance=self.fps_tolerance)

    def signalling_beside(self, *clips: Clip) -> Signalling:
        """What a new video of the project says of its colours, to be copied together with these clips."""
        return signalling_beside(clips, self.size, self.fps)

    @property
    def as_params(self) -> dict[str, Any]:
        """The parameters from which `of` makes the same, whichever clip is first."""
        return {
            "resolution": list(self.size),
            "fps": float(self.fps),
            "exact_fps": f"{self.fps.numerator}/{self.fps.denominator}",
            "aspect_ratio": f"{self.aspect.numerator}:{self.aspect.denominator}",
            "fps_tolerance": self.fps_tolerance,
            "use_input_video_resolution": False,
            "use_input_video_fps": False,
        }


def _rate(params: Harmonised, own: Fraction) -> Fraction:
    """The rate of all frames; the first clip's `own` where it is the one asked for, written as a rounded number."""
    if params.exact_fps:
        return Fraction(params.exact_fps)
    asked = exact_fps(params.fps or DEFAULT_FPS)
    return own if params.use_input_video_fps or abs(own - asked) < SAME_FPS else asked


@dataclass(frozen=True)
class Footage:
    """The frames of a view that belong to a clip of the project."""

    clip: Clip
    range: ClipRange

    @classmethod
    def open(cls, wanted: ClipRange, harmony: Harmony, context: TaskContext, *, field: str) -> Footage:
        """Raises InvalidMedia for a video that is missing, damaged, or no longer the one that was planned with."""
        clip = harmony.view(located(wanted, context, field=field))
        if clip.num_frames != wanted.num_frames:
            raise InvalidMedia(
                f"{clip.path.name} has {clip.num_frames} frames at {float(clip.fps):g} fps; {wanted.num_frames} were "
                "planned with. It was exchanged since; add the task again",
                field=field,
            )
        return cls(clip, wanted)

    @classmethod
    def whole(cls, clip: Clip, path: str) -> Footage:
        return cls(clip, ClipRange(path=path, stop=clip.num_frames, num_frames=clip.num_frames))


def located(wanted: ClipRange, context: TaskContext, *, field: str) -> Path:
    """The file of a clip: fetched by its path or URL, or the output of a task that this one depends on."""
    if wanted.path is not None:
        return context.fetch(wanted.path, kind="video", field=field)
    for dependency in context.dependencies():
        if dependency.task.id == wanted.task_id:
            return dependency.output
    raise InvalidInput(f"task {wanted.task_id}, whose output it is, is no dependency of this one", field=field)


@dataclass(frozen=True)
class Transition:
    """One generation between two clips. The resolution in `options` is that of the generation."""

    model: str
    options: GenerationOptions
    plan: JoinPlan
    before: Footage
    after: Footage
    harmony: Harmony
    bridging: bool = False
    regenerate_anchors: bool = False
    #: share of noise with which it begins from the frames it replaces; None begins from noise alone
    init_strength: float | None = None

    @classmethod
    def of(
        cls, params: JoinParams, plan: JoinPlan, before: Footage, after: Footage, harmony: Harmony, prompt: str | None
    ) -> Transition:
        return cls(
            params.model or "",
            params.options.replace(prompt=prompt or params.options.prompt, resolution=list(harmony.size)),
            plan,
            before,
            after,
            harmony,
            params.keep_bridging_images,
            params.regenerate_anchors,
            params.init_strength,
        )

    @property
    def _inner(self) -> tuple[int, int]:
        """(stop of the context before, start of the context after), in frames of their views."""
        return (
            self.before.range.stop - self.plan.replaced_before,
            self.after.range.start + self.plan.replaced_after,
        )

    def kept_frames(self, size: tuple[int, int]) -> dict[int, Frame]:
        """Frame of the generation -> the picture that it shows, at `size`."""
        plan, (stop, start) = self.plan, self._inner
        before = [resize(frame, size) for frame in self.before.clip.frames(stop - plan.context_before, stop)]
        after = [resize(frame, size) for frame in self.after.clip.frames(start, start + plan.context_after)]
        anew = (min(ANCHORS, len(before) - 1), min(ANCHORS, len(after) - 1)) if self.regenerate_anchors else (0, 0)
        gap_end = plan.context_before + plan.gap
        shown = dict(enumerate(before[: len(before) - anew[0]]))
        shown |= {gap_end + index: frame for index, frame in enumerate(after) if index >= anew[1]}
        if self.bridging and plan.gap >= 3:
            shown[plan.context_before + plan.gap // 3] = before[-1]
            shown[plan.context_before + 2 * plan.gap // 3] = after[0]
        return shown

    def _replaced_video(self, size: tuple[int, int], path: Path) -> Path:
        """The contexts and, between them, the frames that the gap replaces."""
        plan, (stop, start) = self.plan, self._inner
        before = self.before.clip.frames(stop - plan.context_before, self.before.range.stop)
        after = self.after.clip.frames(self.after.range.start, start + plan.context_after)
        frames = (resize(frame, size) for frame in chain(before, after))
        return write_video(path, frames, fps=self.harmony.fps, codec="ffv1").path

    def engine_options(self, size: tuple[int, int], scratch: Path) -> GenerationOptions:
        """The knobs of the row, and the media that hold the contexts in place."""
        guide = GuidePlan(self.plan.length, size, self.harmony.fps, self.kept_frames(size))
        init = self.init_strength
        return self.options.replace(
            prompt=self.options.prompt or " ",
            negative_prompt=self.options.negative_prompt or " ",
            seed=-1 if self.options.seed is None else self.options.seed,
            resolution=f"{size[0]}x{size[1]}",
            video_length=self.plan.length,
            force_fps=float(self.harmony.fps),
            video_guide=str(write_guide(guide, scratch / "guide.mkv")),
            video_mask=str(write_mask(guide, scratch / "mask.mkv")),
            video_prompt_type="VM",
            vid2vid_init_strength=init,
            vid2vid_init_video=None if init is None else str(self._replaced_video(size, scratch / "replaced.mkv")),
        )

    def make(self, context: TaskContext) -> tuple[Path, dict[str, Any]]:
        """Generate and encode it, once, at the project's size; also what there is to say about the run.

        Raises EngineError when the engine returned another number of frames than was asked for.
        """
        context.report("preparing")
        context.trail.note(Category.CHAIN, "transition", length=self.plan.length, **self.plan.model_dump())
        size = self._generation_size(context)
        result = context.generate(self.model, self.engine_options(size, context.scratch), lossless=True)
        made = probe_video(result.output).num_frames
        if not context.trail.frames(Category.WGP, "frames of the engine", expected=self.plan.length, actual=made):
            raise EngineError(f"the engine returned {made} frames instead of {self.plan.length}")
        output = context.scratch / "transition.mp4"
        context.report("encoding")
        write_video(
            output,
            self._sized(result.output),
            fps=self.harmony.fps,
            # The contexts are cross-faded later. Between these the transition stands alone and can be copied, together
            # with the originals: the last frame of a fade is wholly the transition's.
            keyframes={self.plan.context_before - 1, self.plan.context_before + self.plan.gap},
            signalling=self.harmony.signalling_beside(self.before.clip, self.after.clip),
        )
        return output, {"num_frames": made, "model": result.model, "notes": list(result.notes)}

    def _sized(self, path: Path) -> Iterator[Frame]:
        return (resize(frame, self.harmony.size) for frame in read_frames(path))

    def _generation_size(self, context: TaskContext) -> tuple[int, int]:
        size = generation_size(self.options, context.model(self.model))
        assert size is not None
        return size


def check_joining_model(context: TaskContext, name: str | None, options: GenerationOptions) -> tuple[int, int]:
    """(frame step, fewest frames) of a model. Raises Unsupported when it cannot fill a gap between given frames, or
    for knobs that a transition cannot have."""
    refuse_post_processing(options)
    model = context.model(name or "")
    if model.image_output or model.text_output or not model.takes("control_video", "mask"):
        raise Unsupported(
            f"{model.name} cannot make transitions: it takes {', '.join(sorted(model.inputs))}, but control_video and "
            "mask are needed",
            field="model",
        )
    return model.frame_step, model.min_frames


def checked_sound(clips: Mapping[str, Clip], audio_url: str | None, context: TaskContext) -> Path | None:
    """The song that is heard instead of the clips, where one is named; otherwise their own sound is checked.

    `clips` go by their fields. What the splice could not lay is refused here, before anything is generated.
    Raises InvalidMedia.
    """
    if audio_url:
        return context.fetch(audio_url, kind="audio", field="audio_url")
    for field, clip in clips.items():
        with naming(field):
            if clip.has_audio:
                check_sound(clip.path)
    return None


def splice_project(
    footage: Sequence[Footage],
    transitions: Sequence[Path],
    joins: Sequence[JoinPlan],
    harmony: Harmony,
    context: TaskContext,
    *,
    output: Path,
    song: Path | None = None,
) -> tuple[Path, dict[str, Any]]:
    """The clips with their transitions between them, from the originals; also what there is to say about it.

    song   is heard instead of the clips

    Raises InvalidMedia when a transition, or the result, is not as long as planned.
    """
    ranges = [each.range for each in footage]
    planned = total_frames(ranges, joins)
    clips = [_transition_clip(path, join, harmony, context) for path, join in zip(transitions, joins, strict=True)]
    pieces = [SoundPiece(song, 0, float(planned / harmony.fps), 0)] if song else _sound(footage, joins, harmony.fps)
    report = assemble(
        _parts(footage, clips, joins),
        output,
        size=harmony.size,
        fps=harmony.fps,
        sound=pieces,
        progress=lambda done, total: context.report("splicing", done, total),
    )
    made = probe_video(output).num_frames
    if not context.trail.frames(Category.STITCH_FINAL_ANALYSIS, "joined video", expected=planned, actual=made):
        raise InvalidMedia(f"the joined video has {made} frames instead of {planned}")
    return output, _described(report, harmony, joins, sound=bool(pieces))


def _transition_clip(path: Path, join: JoinPlan, harmony: Harmony, context: TaskContext) -> Clip:
    clip = Clip.open(path, fps=harmony.fps, size=harmony.size)
    if not context.trail.frames(Category.STITCH, path.name, expected=join.length, actual=clip.num_frames):
        raise InvalidMedia(f"the transition {path.name} has {clip.num_frames} frames instead of {join.length}")
    return clip


def _parts(footage: Sequence[Footage], transitions: Sequence[Clip], joins: Sequence[JoinPlan]) -> list[Part]:
    """Each clip without what is replaced of it, each transition laid over the frames that it was shown."""
    parts: list[Part] = []
    for index, (start, stop) in enumerate(kept([each.range for each in footage], joins)):
        fade = joins[index - 1].context_after if index else 0
        parts.append(Part(footage[index].clip, start, stop, fade))
        if index < len(joins):
            join = joins[index]
            parts.append(Part(transitions[index], 0, join.length, join.context_before, generated=True))
    return parts


def _sound(footage: Sequence[Footage], joins: Sequence[JoinPlan], fps: Fraction) -> list[SoundPiece]:
    """What is heard of each clip. Sounds that meet are cross-faded where both files go on, else each fades alone."""
    ranges = [each.range for each in footage]
    end, spans = total_frames(ranges, joins), sound_spans(ranges, joins)
    clips = [footage[span.clip].clip for span in spans]
    room = Fraction(FADE_S / 2) * fps
    over = [
        FADE_S / 2 if first.end == second.at and min(clip.num_frames - first.stop, second.start) >= room else 0.0
        for clip, (first, second) in zip(clips, pairwise(spans), strict=False)
    ]
    pieces: list[SoundPiece] = []
    for span, clip, before_s, after_s in zip(spans, clips, [0.0, *over], [*over, 0.0], strict=True):
        fades = {"fade_in_s": FADE_S if span.at else 0, "fade_out_s": FADE_S if span.end < end else 0}
        piece = clip.sound(span.start, span.stop, span.at / fps, **fades)
        if piece is not None:
            pieces.append(piece.reaching(before_s, after_s))
    return pieces


def _described(report: SpliceReport, harmony: Harmony, joins: Sequence[JoinPlan], *, sound: bool) -> dict[str, Any]:
    return {
        "num_frames": report.num_frames,
        "fps": float(harmony.fps),
        "resolution": list(harmony.size),
        "joins": [join.model_dump() for join in joins],
        "method": report.method,
        "copied_frames": report.copied_frames,
        "encoded_frames": report.encoded_frames,
        "sound": sound,
    }
