"""What the fake orchestrator of `headless.testing` draws: frames that follow from what a task gives."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from headless.options import GenerationOptions
from Wan2GP.architecture import SVI_LEAST_CONTEXT, SVI_OVERLAP
from Wan2GP.errors import InvalidInput
from Wan2GP.frame_numbers import keep_from_source
from Wan2GP.media import Frame, probe_video, read_frames, read_image, resize

DEFAULT_FRAMES = 17
#: a mask pixel below this keeps the guide's
MASK_MIDDLE = 128


def draw(options: GenerationOptions, size: tuple[int, int], num_frames: int) -> Iterator[Frame]:
    """`num_frames` RGB frames of `size` (width, height): the given ones exactly, a dissolve between them.

    What is kept of a video that is continued comes first; of the frames asked for, those that it shares with them are
    its own. Control videos count as the engine's do: from the first frame of the result, with letter T from the first
    new one. Before the first given frame and after the last one that frame is held. Holds two given frames in memory.
    """
    before: tuple[int, Frame] | None = None
    num_frames += _kept_of_source(options) - _shared(options)
    for index, frame in _given(options, size, num_frames):
        for position in range(0 if before is None else before[0] + 1, index):
            yield _blend(before[1], frame, (position - before[0]) / (index - before[0])) if before else frame
        yield frame
        before = (index, frame)
    if before is None:
        yield from invented(options, size, num_frames)
    else:
        yield from itertools.repeat(before[1], num_frames - 1 - before[0])


def _given(options: GenerationOptions, size: tuple[int, int], num_frames: int) -> Iterator[tuple[int, Frame]]:
    """(index, frame) of each frame that the task fixes, in order."""
    begun, end = _kept_of_source(options), options.image_end if num_frames > 1 else None
    if options.video_source:
        for index, shown in enumerate(read_frames(Path(options.video_source), 0, begun)):
            yield index, resize(shown, size)
    elif options.image_start:
        begun = 1
        yield 0, resize(read_image(Path(options.image_start)), size)
    first = begun if options.video_source and "T" in (options.video_prompt_type or "") else 0
    for index, frame in enumerate(itertools.islice(_kept(options), num_frames - first), start=first):
        if frame is not None and index >= begun and not (end and index == num_frames - 1):
            yield index, resize(frame, size)
    if end:
        yield num_frames - 1, resize(read_image(Path(end)), size)


def _kept_of_source(options: GenerationOptions) -> int:
    """Frames of the continued video that begin the result; 0 without one. Raises InvalidInput when none is kept."""
    if not options.video_source:
        return 0
    there = probe_video(options.video_source).num_frames
    return keep_from_source(options.keep_frames_video_source or "", there)


def _shared(options: GenerationOptions) -> int:
    """Frames of the continued video that count among the frames asked for."""
    asked = 1 if options.sliding_window_overlap is None else options.sliding_window_overlap
    return min(SVI_OVERLAP if options.svi2pro else asked, _kept_of_source(options))


def check_continued(options: GenerationOptions) -> None:
    """Raises what the engine raises for a video that cannot be gone on from, or that nothing would be added to."""
    kept = _kept_of_source(options)
    if kept and options.image_start:
        raise InvalidInput("video_source is where the video begins; give one of the two", field="image_start")
    if kept and (options.video_length or DEFAULT_FRAMES) <= _shared(options):
        raise InvalidInput("leaves nothing to add to video_source", field="sliding_window_overlap")
    if options.svi2pro and 0 < kept < SVI_LEAST_CONTEXT:
        raise InvalidInput(f"SVI goes on from {SVI_LEAST_CONTEXT} frames or more, not {kept}", field="video_source")


def _kept(options: GenerationOptions) -> Iterator[Frame | None]:
    """The control video, None where its mask asks for a new frame. Without a mask every frame is kept."""
    if not options.video_guide:
        return
    guide = read_frames(Path(options.video_guide))
    if not options.video_mask:
        yield from guide
        return
    inverted = "N" in (options.video_prompt_type or "")
    for frame, mask in zip(guide, read_frames(Path(options.video_mask)), strict=False):
        yield frame if (mask.mean() < MASK_MIDDLE) != inverted else None


def _blend(first: Frame, second: Frame, share: float) -> Frame:
    mixed = first.astype(np.float32) * (1 - share) + second.astype(np.float32) * share
    return np.rint(mixed).astype(np.uint8)


def invented(options: GenerationOptions, size: tuple[int, int], num_frames: int) -> Iterator[Frame]:
    """A plain colour from prompt and seed; a white bar an eighth as wide as the picture crosses it once."""
    width, height = size
    digest = hashlib.sha256(f"{options.prompt}|{seed_of(options)}".encode()).digest()
    bar = max(1, width // 8)
    for index in range(num_frames):
        frame = np.empty((height, width, 3), np.uint8)
        frame[:] = np.frombuffer(digest[:3], np.uint8) // 2 + 32
        left = (width - bar) * index // max(1, num_frames - 1)
        frame[:, left : left + bar] = 255
        yield frame


def seed_of(options: GenerationOptions) -> int:
    """The one asked for; 0 where it is to be drawn."""
    return options.seed if options.seed is not None and options.seed >= 0 else 0
