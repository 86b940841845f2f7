"""Control videos, masks and reference images as arrays of the request's size. No torch here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from Wan2GP.engine.request import GenerationRequest
from Wan2GP.errors import InvalidInput
from Wan2GP.media import Frame, probe_video, read_frames, resize

Frames = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.float32]

#: what a control frame shows where nothing is asked for
GREY = 128

#: letters of `video_prompt_type` that ask for something to be drawn from the control media first
PROCESSING = {
    "P": "pose",
    "O": "aligned pose",
    "D": "depth",
    "S": "scribble",
    "E": "edges",
    "L": "optical flow",
    "C": "recolouring",
    "X": "inpainting outside the mask",
    "Y": "depth outside the mask",
    "W": "scribble outside the mask",
    "Z": "optical flow outside the mask",
}


def check_control(request: GenerationRequest) -> None:
    """Raises InvalidInput for control media that do not go together."""
    if request.video_mask is None:
        return
    if request.video_guide is None and request.initial_video is None:
        raise InvalidInput("a mask needs the video it belongs to; give video_guide too", field="video_mask")
    masked = request.initial_video or request.video_guide
    assert masked is not None
    guide = min(probe_video(masked).num_frames, request.total_frames - request.guide_start)
    frames = probe_video(request.video_mask).num_frames
    if frames < guide:
        raise InvalidInput(f"has {frames} frames; the video has {guide} that it must cover", field="video_mask")


def guide_frames(request: GenerationRequest, start: int, count: int) -> Frames:
    """Control frames `start` to `start + count` (F, H, W, 3); grey where the video has none or they are left out."""
    assert request.video_guide is not None
    found = np.full((count, request.height, request.width, 3), GREY, np.uint8)
    for index, frame in _read(request.video_guide, start, count):
        if request.guide_frames is None or start + index in request.guide_frames:
            found[index] = resize(frame, request.size)
    return found


def drawn_mask(request: GenerationRequest, start: int, count: int) -> Mask:
    """(F, H, W) of the same frames: 1 where the model draws, 0 where the control video is kept.

    Without a mask video the control steers everywhere. Frames that the control video lacks are drawn.
    """
    mask = np.ones((count, request.height, request.width), np.float32)
    if request.video_mask is None:
        return mask
    for index, frame in _read(request.video_mask, start, count):
        if request.guide_frames is None or start + index in request.guide_frames:
            mask[index] = drawn_area(frame, request)
    guide = request.initial_video or request.video_guide
    assert guide is not None
    mask[max(probe_video(guide).num_frames - start, 0) :] = 1
    mask[: max(-start, 0)] = 1
    return mask


def drawn_area(frame: Frame, request: GenerationRequest) -> Mask:
    """(H, W) at the request's size: 1 where one frame of a mask lets the model draw, 0 where it keeps."""
    white = resize(frame, request.size).mean(axis=2) >= GREY
    return expanded(white != ("N" in request.video_prompt_type), request.mask_expand)


def initial_frames(path: Path, request: GenerationRequest, start: int, count: int) -> Frames:
    """Frames `start` to `start + count` of the video that a run begins from; before its first frame and after its last
    one these are held."""
    last = probe_video(path).num_frames - 1
    wanted = [min(max(number, 0), last) for number in range(start, start + count)]
    frames = read_frames(path, wanted[0], wanted[-1] + 1)
    found = dict(enumerate((resize(frame, request.size) for frame in frames), start=wanted[0]))
    return np.stack([found[number] for number in wanted])


def references(request: GenerationRequest) -> tuple[Frame, ...]:
    """The reference images that stand beside the video (not those with a position in it), each as a whole picture.

    With K the first one fills the picture; the others stand on white, `reference_size` percent of its size.
    """
    beside = request.references[len(request.positions) :]
    pictures = []
    for number, image in enumerate(beside):
        if number == 0 and "K" in request.video_prompt_type:
            pictures.append(resize(image, request.size))
        else:
            pictures.append(_on_white(image, request.size, request.reference_size / 100))
    return tuple(pictures)


def positioned(request: GenerationRequest) -> dict[int, Frame]:
    """0-based frame of the video -> the image that stands there."""
    if len(request.references) < len(request.positions):
        raise InvalidInput(
            f"names {len(request.positions)} frames, image_refs holds {len(request.references)} images",
            field="frames_positions",
        )
    pairs = zip(request.positions, request.references, strict=False)
    return {place - 1: resize(image, request.size) for place, image in pairs}


def _read(path: Path, start: int, count: int) -> Iterator[tuple[int, Frame]]:
    """(index, frame) of those of the frames `start` to `start + count` that the video has; `start` may be negative."""
    first, stop = max(start, 0), min(start + count, probe_video(path).num_frames)
    return enumerate(read_frames(path, first, stop), start=first - start) if first < stop else enumerate(())


def expanded(mask: npt.NDArray[np.bool_], pixels: int) -> Mask:
    """A mask grown by some pixels, or shrunk by a negative number of them."""
    if not pixels:
        return mask.astype(np.float32)
    size = 2 * abs(pixels) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    change = cv2.dilate if pixels > 0 else cv2.erode
    return change(mask.astype(np.uint8), kernel).astype(np.float32)


def _on_white(image: Frame, size: tuple[int, int], share: float) -> Frame:
    """The image, whole and centred on white, as large as fits into `share` of the picture's sides."""
    width, height = size
    scale = share * min(width / image.shape[1], height / image.shape[0])
    inner = max(1, int(image.shape[1] * scale)), max(1, int(image.shape[0] * scale))
    small = cv2.resize(image, inner, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    canvas = np.full((height, width, 3), 255, np.uint8)
    top, left = (height - inner[1]) // 2, (width - inner[0]) // 2
    canvas[top : top + inner[1], left : left + inner[0]] = small
    return canvas
