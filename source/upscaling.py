"""Enlarging a video: by Lanczos on the CPU, or by a model that redraws it at the larger size."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from headless.generation import ModelInfo
from headless.options import GenerationOptions
from source.errors import EngineError, UnknownModel, Unsupported
from source.planning.upscale import DEFAULT_PROMPT, covering, enlarged, padded_length, refuse_post_processing
from source.task_registry import TaskContext
from source.trail import Category

if TYPE_CHECKING:
    from Wan2GP.media import Frame, VideoInfo

#: needs no model
LANCZOS = "lanczos"
#: share of the schedule that a model runs on the enlarged video: enough for detail, too little for another picture
DENOISING_STRENGTH = 0.3
#: redraw (G) a control video (V) as it is (U)
REDRAW = "GUV"


@dataclass(frozen=True)
class Enlarging:
    """What is asked: the video, the factor, and by which means. `options` are the knobs of a model."""

    video: Path
    factor: float
    method: str = LANCZOS
    options: GenerationOptions = field(default_factory=GenerationOptions)


def check_upscale(context: TaskContext, name: str) -> None:
    """Raises Unsupported unless `name` can enlarge videos, ModelUnavailable when it cannot run on this machine."""
    if name == LANCZOS:
        return
    try:
        model = context.model(name)
    except UnknownModel as error:
        raise Unsupported(f"{error} {_what_works()}", field="upscale_model_name") from error
    if not redraws(model):
        raise Unsupported(f"{name} cannot redraw a given video. {_what_works()}", field="upscale_model_name")


def redraws(model: ModelInfo) -> bool:
    """Whether a model makes a video from a control video and a text alone, and knows how to redraw it."""
    from Wan2GP.architectures import ARCHITECTURES

    architecture = ARCHITECTURES.get(model.architecture)
    letters = architecture.control if architecture else ""
    makes_videos = not (model.image_output or model.text_output)
    gives = {"text", "control_video"}
    return makes_videos and model.takes("control_video") and model.required <= gives and set(REDRAW) <= set(letters)


def _what_works() -> str:
    return f'Use "{LANCZOS}", or a model that redraws videos (t2v, t2v_2_2, or a VACE model).'


def upscale(asked: Enlarging, context: TaskContext) -> Path:
    """The enlarged video, an mp4 in `context.scratch`: int(width * factor) x int(height * factor) floored to even, with
    the video's frames, frame rate and sound. Raises typed errors.
    """
    from source.media.clips import Clip
    from source.media.finishing import Finishing, finish
    from source.media.soundtrack import lay_sound

    clip = Clip.open(asked.video)
    info = clip.index.info
    size = enlarged((info.width, info.height), asked.factor)
    drawn = asked.video if asked.method == LANCZOS else redrawn(asked, info, size, context)
    made = finish(
        drawn,
        context.scratch / "upscaled.mp4",
        Finishing(stop=info.num_frames, size=size),
        fps=info.fps,
        progress=lambda done, total: context.report("upscaling", done, total),
    )
    sound = clip.sound(0, info.num_frames, 0)
    return lay_sound(made.path, [sound], context.scratch / "upscaled_with_sound.mp4") if sound else made.path


def redrawn(asked: Enlarging, info: VideoInfo, size: tuple[int, int], context: TaskContext) -> Path:
    """The video as a model draws it anew, lossless: at least `size`, at least as long. Windows are the engine's."""
    check_upscale(context, asked.method)
    refuse_post_processing(asked.options)
    model = context.model(asked.method)
    drawn_size = covering(size, model.pixel_block)
    num_frames = padded_length(info.num_frames, step=model.frame_step, least=model.min_frames)
    guide = _enlarged_guide(asked.video, context.scratch / "upscale_guide.mkv", drawn_size, num_frames, info.fps)
    given = asked.options
    options = given.replace(
        prompt=given.prompt or DEFAULT_PROMPT,
        denoising_strength=DENOISING_STRENGTH if given.denoising_strength is None else given.denoising_strength,
        video_guide=str(guide),
        video_prompt_type=REDRAW,
        resolution=f"{drawn_size[0]}x{drawn_size[1]}",
        video_length=num_frames,
        force_fps=f"{float(info.fps):g}",
    )
    result = context.generate(model.name, options, lossless=True)
    _check_length(result.output, num_frames, context)
    return result.output


def _enlarged_guide(video: Path, guide: Path, size: tuple[int, int], num_frames: int, fps: Fraction) -> Path:
    """The video at `size`, lossless; its last frame is shown again until it has `num_frames`."""
    from Wan2GP.media import read_frames, resize, write_video

    frames = (resize(frame, size) for frame in _held(read_frames(video)))
    return write_video(guide, itertools.islice(frames, num_frames), fps=fps, codec="ffv1").path


def _held(frames: Iterator[Frame]) -> Iterator[Frame]:
    """All frames, then the last one without end."""
    last = next(frames)
    yield last
    for last in frames:
        yield last
    yield from itertools.repeat(last)


def _check_length(result: Path, expected: int, context: TaskContext) -> None:
    from Wan2GP.media import probe_video

    made = probe_video(result).num_frames
    if not context.trail.frames(Category.WGP, "frames of the redrawn video", expected=expected, actual=made):
        raise EngineError(f"the engine returned {made} frames instead of {expected}")
