"""Upscaling as a task of its own: its row, and its arithmetic. Pure: no files, no database."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headless.options import GenerationOptions
from source.errors import InvalidInput, Unsupported
from source.store.types import NewTask, Task
from Wan2GP.post_processing import PostProcessing

#: of a row that says nothing of its own
DEFAULT_PROMPT = "cinematic footage, high detail, sharp focus, clean picture"
#: pixels; the longest side of an enlarged video
MAX_SIDE = 8192


def upscale_task(
    row: Task,
    shared: Mapping[str, Any],
    *,
    after: str,
    factor: float,
    model: str,
    size: tuple[int, int],
    seed: int,
    frames: int | None = None,
    prompt: str | None = None,
) -> NewTask:
    """The row that enlarges the output of the task `after`; a child of `row`.

    shared      what every child of `row` carries
    size        (width, height) in pixels of the video before
    frames      its number of frames, when it is known: another one is reported

    `video_source_path` stays empty: the video is the output of `after`. Raises InvalidInput for a result too large.
    """
    width, height = enlarged(size, factor)
    payload = {
        **shared,
        "video_source_path": None,
        "upscale_factor": factor,
        "upscale_model_name": model,
        "model_name": model,
        "resolution": f"{width}x{height}",
        "frames": frames,
        "prompt": prompt or DEFAULT_PROMPT,
        "seed": seed,
    }
    return NewTask.child(row, "upscale:0", "upscale_video", payload, (after,))


def enlarged(size: tuple[int, int], factor: float) -> tuple[int, int]:
    """(width, height) times `factor`, floored to whole and even pixels. Raises InvalidInput above 8192 a side."""
    width, height = (int(side * factor) // 2 * 2 for side in size)
    if max(width, height) > MAX_SIDE:
        raise InvalidInput(
            f"would make {width}x{height} of {size[0]}x{size[1]}, over {MAX_SIDE} pixels a side; use a smaller one",
            field="upscale_factor",
        )
    return width, height


def refuse_post_processing(options: GenerationOptions) -> None:
    """Raises Unsupported for knobs that change what a model made: pieces of a video keep their sizes and lengths, and
    a piece that is shown to the next one must not be grained twice."""
    asked = PostProcessing.of(options.to_engine())
    if asked.changes_nothing:
        return
    temporal, spatial = asked.times > 1, asked.factor is not None
    raise Unsupported(
        "is not done to the pieces of a video; leave it out, and run postprocess_video on the finished one",
        field="temporal_upsampling" if temporal else "spatial_upsampling" if spatial else "film_grain_intensity",
    )


def padded_length(num_frames: int, *, step: int, least: int) -> int:
    """The shortest length step * k + 1 of at least `num_frames` and `least` frames."""
    wanted = max(num_frames, least)
    return -(-(wanted - 1) // step) * step + 1


def covering(size: tuple[int, int], block: int) -> tuple[int, int]:
    """The smallest (width, height) in multiples of `block` that is at least `size`."""
    width, height = (-(-side // block) * block for side in size)
    return width, height
