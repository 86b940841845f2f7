"""Control media drawn from those that were given, by the models that the letters name. No torch here.

Frame k of the drawn video is drawn from frame k of the given one, at the size of the result. It is written without
loss, so that a run is the same as one that is given the drawn video by hand.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path

import cv2
import numpy as np

from Wan2GP.engine.beside import Beside
from Wan2GP.engine.control.letters import MODELS, NOTHING, RECOLOURED, Processing, processing_of
from Wan2GP.engine.control.media import GREY, Mask, drawn_area
from Wan2GP.engine.control.models import given_frames
from Wan2GP.engine.families import Cancel
from Wan2GP.engine.request import Frame, GenerationRequest
from Wan2GP.media import probe_video, read_frames, resize, write_video


@contextmanager
def with_drawn_control(
    request: GenerationRequest, beside: Beside, cancel: Cancel, folder: Path
) -> Iterator[GenerationRequest]:
    """The request with the control media that its letters ask for; files lie in `folder` for the time of the block.

    Raises ModelUnavailable, OutOfMemory or GenerationCancelled.
    """
    processing = processing_of(request)
    if processing is None:
        yield request
        return
    models = tuple(beside.definitions[MODELS[letter]].model for letter in processing.letters)
    ready = replace(request, drawn_from=replace(request.control_media, drawn_by=models))
    if processing.outside:  # what is outside the mask is control too, and all of it is drawn over
        ready = replace(ready, video_mask=None, image_mask=None)
    if request.image_guide is not None:
        [picture] = _drawn(_of_image(request), processing, beside, cancel)
        yield replace(ready, image_guide=picture)
        return
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".control_") as place:
        with closing(_drawn(_of_video(request), processing, beside, cancel)) as frames:
            video = write_video(Path(place) / "control.mkv", frames, fps=request.fps, codec="ffv1")
        yield replace(ready, video_guide=video.path)


def _of_image(request: GenerationRequest) -> GenerationRequest:
    return replace(request, image_output=True, batch_size=1, video_guide=None, num_frames=1)


def _of_video(request: GenerationRequest) -> GenerationRequest:
    """Asks for the control frames that the result may use: its own, and those that its last window makes and drops."""
    assert request.video_guide is not None
    architecture = request.definition.architecture
    spare = max(architecture.frame_step, architecture.min_frames) + request.windows.overlap
    needed = max(request.total_frames, request.frames_of_a_still) + spare - request.guide_start
    count = min(probe_video(request.video_guide).num_frames, needed)
    return replace(request, image_output=False, image_guide=None, num_frames=count)


def _drawn(control: GenerationRequest, processing: Processing, beside: Beside, cancel: Cancel) -> Iterator[Frame]:
    """Each of the control frames as the letters ask, at the size of the result."""
    with ExitStack() as stack:
        pictures = {
            letter: stack.enter_context(_pictures(letter, control, beside, cancel)) for letter in processing.letters
        }
        frames = zip(given_frames(control), _areas(control), strict=False)
        for number, (frame, area) in enumerate(frames, start=1):
            cancel.raise_if_requested()
            drawn = {letter: next(each) for letter, each in pictures.items()}
            yield _composed(resize(frame, control.size), area, processing, drawn)
            beside.report("encoding", number, control.num_frames)


@contextmanager
def _pictures(letter: str, control: GenerationRequest, beside: Beside, cancel: Cancel) -> Iterator[Iterator[Frame]]:
    """What the model of a letter draws of the control media, frame by frame."""
    name = MODELS[letter]
    with beside.model(name) as model:
        own = replace(control, definition=beside.definitions[name], video_prompt_type="V")
        made = model.generate(own, _silent, cancel)
        assert not isinstance(made, str), "it draws pictures"
        yield iter(made)


def _silent(phase: str, step: int, total: int) -> None:
    """The frames are counted where they are put together."""


def _areas(control: GenerationRequest) -> Iterator[Mask | None]:
    """For each frame where the model draws: 1; elsewhere 0. None where there is no mask."""
    if control.image_output:
        return iter([None if control.image_mask is None else drawn_area(control.image_mask, control)])
    if control.video_mask is None:
        return repeat(None)
    masks = read_frames(control.video_mask)
    # After the end of a mask everything is drawn.
    return chain((drawn_area(frame, control) for frame in masks), repeat(None))


def _composed(plain: Frame, area: Mask | None, processing: Processing, drawn: Mapping[str, Frame]) -> Frame:
    """One frame: what the letters show inside the mask and outside of it."""
    inside = _shown(processing.inside, plain, drawn)
    if area is None:
        return inside
    return np.where(area[..., None] > 0.5, inside, _shown(processing.outside, plain, drawn))


def _shown(letter: str | None, plain: Frame, drawn: Mapping[str, Frame]) -> Frame:
    if letter is None:
        return plain
    if letter == NOTHING:
        return np.full_like(plain, GREY)
    if letter == RECOLOURED:
        return np.asarray(cv2.cvtColor(cv2.cvtColor(plain, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB), np.uint8)
    return drawn[letter]
