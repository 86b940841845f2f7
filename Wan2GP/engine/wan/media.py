"""What each window of a request is given: its place in the video, its prompt, and its pictures. No torch here."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import replace

import numpy as np

from Wan2GP.engine.ahead import Ahead
from Wan2GP.engine.control.media import GREY, drawn_mask, guide_frames, initial_frames, positioned, references
from Wan2GP.engine.request import Frame, GenerationRequest
from Wan2GP.engine.wan.window import SVI_CONTEXT, Frames, Span, Window, plan_svi_windows, plan_windows
from Wan2GP.media import read_frame, read_frames, resize

#: a window that no video exceeds
_ALL = 10**9
#: what the frames of the video that is continued are kept under, when they are read ahead
_SOURCE = "video_source"


def spans_of(request: GenerationRequest) -> tuple[Span, ...]:
    """The windows of the video; a model without windows makes it in one."""
    windows, architecture = request.windows, request.definition.architecture
    if request.image_output:
        return (Span(0, request.num_frames, 0, request.num_frames),)
    rule, step = architecture.windows, architecture.frame_step
    size, least = _ALL, architecture.min_frames
    if rule is not None and windows.size < request.num_frames:
        size = max(windows.size // step * step + 1, least)
    given = request.kept_source_frames
    plan = plan_svi_windows if request.svi else plan_windows
    return plan(request.total_frames, size, windows.overlap, windows.discard, step, given, least)


def context_of(request: GenerationRequest, span: Span) -> int:
    """How many of the frames before those that it adds a window is given, at most."""
    return SVI_CONTEXT if request.svi else span.overlap


def prompt_of(request: GenerationRequest, window: int) -> str:
    """With multi_prompts_gen_type W (lines) or PW (paragraphs) each window has its own; the last one repeats."""
    kind = str(request.settings["multi_prompts_gen_type"])
    if kind not in ("W", "PW", "1"):
        return request.prompt
    units = [unit.strip() for unit in re.split(r"\n\s*\n" if kind == "PW" else r"\n", request.prompt)]
    prompts = [unit for unit in units if unit]
    return prompts[min(window, len(prompts) - 1)] if prompts else ""


def of_a_still(request: GenerationRequest) -> GenerationRequest:
    """The request as one run of a model that makes stills sees it."""
    return replace(request, num_frames=request.frames_of_a_still) if request.image_output else request


def read_ahead(request: GenerationRequest, ahead: Ahead) -> None:
    """Put the frames of the video that is continued, and what the first window is given, into `ahead`."""
    request = of_a_still(request)
    read_source_ahead(request, ahead)
    spans = spans_of(request)
    num_bytes, nothing = window_bytes(request, spans[0]), no_frames(request)
    ahead.keep(_key(0, spans[0]), num_bytes, lambda: window_of(request, 0, spans[0], len(spans), nothing))


def read_source_ahead(request: GenerationRequest, ahead: Ahead) -> None:
    """Put the frames of the video that is continued into `ahead`."""
    if request.video_source is not None:
        num_bytes = request.kept_source_frames * request.width * request.height * 3
        ahead.keep(_SOURCE, num_bytes, lambda: list(source_frames(request)))


def window_bytes(request: GenerationRequest, span: Span) -> int:
    """What a window's pictures take of memory, at most: a control picture has three bytes a pixel, and so has one that
    a run begins from; a mask has four."""
    videos = request.video_guide or request.video_mask or request.initial_video or request.positions
    return request.width * request.height * (span.frames * 10 if videos else 3 * (len(request.pictures) + 1))


def no_frames(request: GenerationRequest) -> Frames:
    """(0, H, W, 3): nothing was made before."""
    return np.zeros((0, request.height, request.width, 3), np.uint8)


def _key(index: int, span: Span) -> Hashable:
    return ("window", index, span)


def source_frames(request: GenerationRequest) -> Iterator[Frame]:
    """The kept frames of the video to continue, at the request's size, one by one."""
    if request.video_source is None:
        return
    if request.ahead is not None and (frames := request.ahead.take(_SOURCE)) is not None:
        yield from frames
        return
    for frame in read_frames(request.video_source, 0, request.kept_source_frames):
        yield resize(frame, request.size)


def last_frames(frames: Iterable[Frame], count: int, request: GenerationRequest) -> Frames:
    """(K, H, W, 3): the last `count` of the frames, or as many as there are."""
    latest = deque(frames, maxlen=count)
    return np.stack(latest) if latest else no_frames(request)


def window_of(request: GenerationRequest, index: int, span: Span, windows: int, prefix: Frames) -> Window:
    """What one window is given; `prefix` are the last `context_of` frames that were made before.

    Control videos and positions count from the first frame of the result; with letter T from the first new frame.
    """
    ahead: Window | None = request.ahead.take(_key(index, span)) if request.ahead is not None else None
    if ahead is not None:
        return replace(ahead, prefix=prefix)
    start = span.start - request.guide_start
    redrawn = request.video_guide if "G" in request.video_prompt_type else None
    begun = request.initial_video or redrawn
    initial = None if begun is None else initial_frames(begun, request, start, span.frames)
    guided = request.video_guide is not None and redrawn is None
    guide = guide_frames(request, start, span.frames) if guided else None
    masked = guided or request.video_mask is not None
    mask = drawn_mask(request, start, span.frames) if masked else None
    if guide is None and initial is not None and mask is not None:
        guide = np.where(mask[..., None] > 0.5, np.uint8(GREY), initial)
    for place, image in positioned(request).items():
        if 0 <= place - start < span.frames:
            guide, mask = _with_image(guide, mask, place - start, image, span.frames)
    return Window(
        index=index,
        width=request.width,
        height=request.height,
        frames=span.frames,
        prefix=prefix,
        image_start=resize(request.image_start, request.size)
        if index == 0 and request.image_start is not None
        else None,
        image_end=_end_of(request, index, windows),
        guide=guide,
        mask=mask,
        references=references(request),
        anchor=_anchor_of(request) if request.svi else None,
        start=start,
        initial=initial,
    )


def _end_of(request: GenerationRequest, index: int, windows: int) -> Frame | None:
    """One end image belongs to the last window; of several each window has its own."""
    ends, last = request.image_ends, index == windows - 1
    if not ends or (len(ends) == 1 and not last):
        return None
    return resize(ends[min(index, len(ends) - 1)], request.size)


def _anchor_of(request: GenerationRequest) -> Frame | None:
    """The reference; else the start image, or the last frame that is kept of the video which is continued."""
    image = request.references[0] if request.references else request.image_start
    if image is None and request.video_source is not None:
        image = read_frame(request.video_source, request.kept_source_frames - 1)
    return None if image is None else resize(image, request.size)


def _with_image(
    guide: Frames | None, mask: np.ndarray | None, index: int, image: Frame, frames: int
) -> tuple[Frames, np.ndarray]:
    """Control media in which one frame is an image that is kept."""
    height, width = image.shape[:2]
    shown = np.full((frames, height, width, 3), GREY, np.uint8) if guide is None else guide
    drawn = np.ones((frames, height, width), np.float32) if mask is None else mask
    shown[index], drawn[index] = image, 0
    return shown, drawn
