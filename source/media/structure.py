"""Drawing structure guidance: source frames become pictures of their motion, edges or depth, on one timeline.

Every frame is drawn from its own source frames alone, so a slice of the timeline equals those frames of the whole.
All arrays are RGB (H, W, 3) uint8. One source file is open at a time, and two of its frames are held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache

import cv2
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray
from PIL import Image

from source.errors import InvalidInput
from source.params.structure_guidance import StructureGuidanceConfig
from source.planning.guidance import GuidanceTimeline, Placement
from Wan2GP.media import Frame, VideoIndex
from Wan2GP.media.colour import to_rgb
from Wan2GP.media.reader import decode

#: frames of a guide where nothing guides: still for motion and depth, empty for edges and plain frames
NEUTRAL = {"flow": 128, "depth": 128, "canny": 0, "none": 0}
#: aspect ratios that differ by no more are stretched to one another; others are cropped
ASPECT_TOLERANCE = 0.01
#: a motion of this share of the picture's diagonal has the full colour; 30 pixels at 832x480
FULL_MOTION = 1 / 32
#: gradients of an edge: above the second one it begins, down to the first one it goes on
CANNY_THRESHOLDS = (100, 200)

#: colours of the wheel between red, yellow, green, cyan, blue, magenta and red again (Baker et al. 2007)
_ARCS = (15, 6, 4, 11, 13, 6)
_CORNERS = ((255, 0, 0), (255, 255, 0), (0, 255, 0), (0, 255, 255), (0, 0, 255), (255, 0, 255))
#: the wheel is read in this many steps around
_ANGLES = 2048

Flow = NDArray[np.float32]


def structure_frames(
    timeline: GuidanceTimeline,
    sources: Mapping[int, VideoIndex],
    config: StructureGuidanceConfig,
    size: tuple[int, int],
    *,
    offset: int = 0,
    num_frames: int | None = None,
    depth: Iterator[Frame] | None = None,
) -> Iterator[Frame]:
    """The guidance of the positions offset … offset + num_frames - 1 (to the end by default).

    size      (width, height) in pixels
    sources   index of a video in the configuration -> its file
    depth     for "depth": a depth map for each guided position of the slice, in order (grey, any size)

    Positions that nothing guides, and those beyond the timeline, are neutral: see NEUTRAL.
    """
    stop = timeline.total_frames if num_frames is None else offset + num_frames
    draw = _drawing(config, sources, size, depth)
    neutral = np.full((size[1], size[0], 3), NEUTRAL[config.preprocessing], np.uint8)
    for position in range(offset, stop):
        placement = timeline.at(position)
        yield neutral if placement is None else draw(placement, position)


def guided_frames(
    timeline: GuidanceTimeline, sources: Mapping[int, VideoIndex], size: tuple[int, int], offset: int, num_frames: int
) -> Iterator[Frame]:
    """The source frames of the guided positions of a slice alone, at `size`: what a depth model is to look at."""
    shown = SourceFrames(sources, size)
    for position in range(offset, offset + num_frames):
        if placement := timeline.at(position):
            yield shown.frame(placement.video, placement.source_frame(position))


def _drawing(
    config: StructureGuidanceConfig,
    sources: Mapping[int, VideoIndex],
    size: tuple[int, int],
    depth: Iterator[Frame] | None,
) -> Callable[[Placement, int], Frame]:
    """How a guided position is drawn."""
    shown = SourceFrames(sources, size)

    def plain(placement: Placement, position: int) -> Frame:
        return shown.frame(placement.video, placement.source_frame(position))

    def flow(placement: Placement, position: int) -> Frame:
        first, second = (shown.frame(placement.video, index) for index in placement.source_pair(position))
        return flow_picture(motion(first, second) * np.float32(config.strength))

    def edges(placement: Placement, position: int) -> Frame:
        return edge_picture(plain(placement, position), config.canny_intensity)

    def depths(placement: Placement, position: int) -> Frame:
        found = next(depth, None) if depth is not None else None
        if found is None:
            raise InvalidInput(f"there is no depth map for frame {position} of the guidance")
        return contrasted(fitted(found, size), config.depth_contrast)

    return {"none": plain, "flow": flow, "canny": edges, "depth": depths}[config.preprocessing]


class SourceFrames:
    """Frames of several videos by index, fitted to `size`: quickest in rising order, one video after the other."""

    def __init__(self, videos: Mapping[int, VideoIndex], size: tuple[int, int]) -> None:
        self._videos = videos
        self._size = size
        self._held: dict[tuple[int, int], Frame] = {}
        self._reader: Iterator[VideoFrame] = iter(())
        self._next = (-1, 0)

    def frame(self, video: int, index: int) -> Frame:
        """Frame `index` of the video. Raises InvalidMedia for one that cannot be decoded."""
        key = (video, index)
        if key not in self._held:
            self._held = {each: self._held[each] for each in list(self._held)[-1:]}
            self._held[key] = self._read(video, index)
        return self._held[key]

    def _read(self, video: int, index: int) -> Frame:
        source = self._videos[video]
        at_video, at = self._next
        nearer = source.seekable and source.entry_before(index) > at
        if at_video != video or index < at or nearer:
            at = index
            self._reader = decode(source, index, source.info.num_frames)
        for _ in range(index - at):
            next(self._reader)
        self._next = (video, index + 1)
        return fitted(to_rgb(next(self._reader), source.encoding.rotation), self._size)


def fitted(frame: Frame, size: tuple[int, int]) -> Frame:
    """`frame` at `size` = (width, height), by Lanczos; cropped around its centre where the aspect ratios differ."""
    height, width = frame.shape[:2]
    if (width, height) == size:
        return frame
    aspect = size[0] / size[1]
    crops = is_cropped((width, height), size)
    shown = (min(width, height * aspect), min(height, width / aspect)) if crops else (width, height)
    left, top = (width - shown[0]) / 2, (height - shown[1]) / 2
    box = (left, top, left + shown[0], top + shown[1])
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS, box=box), dtype=np.uint8)


def is_cropped(own: tuple[int, int], size: tuple[int, int]) -> bool:
    """Whether `fitted` cuts something off pictures of the size `own`; both (width, height)."""
    return abs(own[0] / own[1] - size[0] / size[1]) > ASPECT_TOLERANCE


def motion(first: Frame, second: Frame) -> Flow:
    """Where the pixels of `first` are in `second`: (H, W, 2) float32, pixels to the right and down (OpenCV's DIS)."""
    if first is second:
        return np.zeros((*first.shape[:2], 2), np.float32)
    before, after = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (first, second))
    # A new one for each pair: what one of them remembers would make a frame depend on those before it.
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    rest = np.zeros((*first.shape[:2], 2), np.float32)
    return np.asarray(search.calc(before, after, rest), dtype=np.float32)


def flow_picture(flow: Flow) -> Frame:
    """A motion field (H, W, 2) in pixels as colours: the direction on the wheel of Baker et al. 2007, white for rest.

    To the right is red, down yellow, to the left cyan to blue, up violet. The colour is full at FULL_MOTION of the
    diagonal, for every picture alike; beyond that it is darker by a quarter.
    """
    height, width = flow.shape[:2]
    magnitude, angle = cv2.cartToPolar(flow[..., 0], flow[..., 1])
    share = magnitude / np.float32(FULL_MOTION * np.hypot(height, width))
    hue = _wheel()[np.rint(angle * (_ANGLES / (2 * np.pi))).astype(np.int32) % _ANGLES]
    inside = 255 - np.minimum(share, 1)[..., None] * (255 - hue)
    picture = np.where((share > 1)[..., None], hue * np.float32(0.75), inside)
    return np.asarray(np.rint(picture), dtype=np.uint8)


@cache
def _wheel() -> NDArray[np.float32]:
    """(_ANGLES, 3) RGB by direction, clockwise on the screen from "to the right"."""
    stops = np.cumsum((0, *_ARCS))
    corners = np.array([*_CORNERS, _CORNERS[0]], np.float32)
    around = np.arange(_ANGLES) / _ANGLES * stops[-1]
    return np.stack([np.interp(around, stops, channel) for channel in corners.T], axis=1).astype(np.float32)


def edge_picture(frame: Frame, intensity: float = 1.0) -> Frame:
    """The edges of a frame, white times `intensity` on black (Canny, 1986).

    The predecessor drew them with a scribble network: fewer, softer lines. Above 1 the intensity changes nothing.
    """
    edges = cv2.Canny(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), *CANNY_THRESHOLDS)
    scaled = cv2.convertScaleAbs(edges, alpha=intensity)
    return np.asarray(cv2.cvtColor(scaled, cv2.COLOR_GRAY2RGB), dtype=np.uint8)


def contrasted(frame: Frame, contrast: float) -> Frame:
    """(x - 0.5) * contrast + 0.5 for x in 0 … 1, clipped."""
    if contrast == 1:
        return frame
    levels = (np.arange(256) / 255 - 0.5) * contrast + 0.5
    return np.asarray(np.rint(levels.clip(0, 1) * 255)[frame], dtype=np.uint8)
