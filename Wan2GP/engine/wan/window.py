"""Sliding windows: how a long video is cut into runs, and what one run is given. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from Wan2GP.architecture import SVI_LEAST_CONTEXT, SVI_OVERLAP
from Wan2GP.errors import InvalidInput
from Wan2GP.media import Frame

Frames = npt.NDArray[np.uint8]

#: frames from which the last latent frame of a video is made: the first latent frame has one, two more have four each
SVI_CONTEXT = SVI_LEAST_CONTEXT + SVI_OVERLAP


@dataclass(frozen=True)
class Span:
    """One window of a plan. Frame numbers count from the first frame of the whole video."""

    #: first frame, which is the first of the overlap with the window before
    start: int
    #: frames that the model makes, a length it can do
    frames: int
    #: frames at the beginning that the window before has made already
    overlap: int
    #: frames that the window adds to the video, after the overlap
    new: int


def plan_windows(
    total: int, size: int, overlap: int, discard: int, frame_step: int, given: int = 0, least: int = 1
) -> tuple[Span, ...]:
    """Windows that together make `total` frames, of which the first `given` are there already.

    Each window after the first (after the given frames too) begins with `overlap` frames made before it, and all but
    the last leave out their last `discard` frames. The windows are `size` frames long, so that
    total = (n - 1) * (size - overlap - discard) + size. The last is as short as the rest needs: its overlap grows so
    that its length is frame_step * k + 1 and not below `least`, and where nothing is left to overlap its last frames
    are dropped.
    Raises InvalidInput when the windows would not advance.
    """
    if size - overlap - discard < 1:
        raise InvalidInput(
            f"{size} frames with an overlap of {overlap} and {discard} discarded add nothing; make the window longer",
            field="sliding_window_size",
        )
    spans: list[Span] = []
    made = given
    while made < total:
        shared = min(overlap, made)
        rest = total - made
        whole = shared + rest
        if whole <= size:
            frames = max(_lengthened(whole, frame_step), least)
            shared = min(shared + frames - whole, made) if made else 0
            spans.append(Span(made - shared, frames, shared, rest))
            break
        new = min(size - shared - discard, rest)
        spans.append(Span(made - shared, size, shared, new))
        made += new
    return tuple(spans)


def plan_svi_windows(
    total: int, size: int, overlap: int, discard: int, frame_step: int, given: int = 0, least: int = 1
) -> tuple[Span, ...]:
    """The same where each window goes on from the last latent frame of what was made before (SVI 2 Pro).

    A window that goes on makes one frame that is no part of the video (the anchor), the `overlap`, and as many latent
    frames more as hold what it adds; frames past that are left out at its end. The first window, where nothing is
    given, is a plain one.
    """
    plain = plan_windows(total, size, overlap, discard, frame_step, given, least)
    spans = [] if given else list(plain[:1])
    made = given or spans[0].new
    while made < total:
        last = overlap + total - made <= size
        drawn = total - made if last else size - overlap
        frames = 1 + overlap + _lengthened(drawn + 1, frame_step) - 1
        spans.append(Span(made - overlap, frames, overlap, drawn if last else drawn - discard))
        made += spans[-1].new
    return tuple(spans)


def _lengthened(frames: int, frame_step: int) -> int:
    """The shortest length frame_step * k + 1 of at least `frames`."""
    return -(-(frames - 1) // frame_step) * frame_step + 1


@dataclass(frozen=True)
class Window:
    """What one run of the loop is given. All pictures have the request's size."""

    index: int
    width: int
    height: int
    #: frames to make
    frames: int
    #: (P, H, W, 3) frames that the window must begin with; P may be 0. With SVI the last SVI_CONTEXT frames before it
    prefix: Frames
    image_start: Frame | None = None
    image_end: Frame | None = None
    #: (F, H, W, 3) control video, grey (128) where there is none
    guide: Frames | None = None
    #: (F, H, W) float32: 1 where the model draws, 0 where the guide is kept
    mask: npt.NDArray[np.float32] | None = None
    references: Sequence[Frame] = field(default_factory=tuple)
    #: what the window shall look like as a whole (SVI)
    anchor: Frame | None = None
    #: the video whose latents are the starting point of a video-to-video run (F, H, W, 3)
    initial: Frames | None = None
    #: the first frame's place in control videos and sound tracks; negative when they begin later
    start: int = 0

    @property
    def first_frames(self) -> Frames:
        """(P, H, W, 3): the frames that are known at the beginning: the prefix, else the start image."""
        if len(self.prefix) or self.image_start is None:
            return self.prefix
        return self.image_start[None]
