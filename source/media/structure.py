"""Drawing structure guidance: source frames become pictures of their motion, edges or depth, on one timeline.

Every frame is drawn from its own source frames alone, so a slice of the timeline equals those frames of the whole.
All arrays are RGB (H, W, 3) uint8. One source file is open at a time, and two of its frames are held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from av.video.frame import VideoFrame
from PIL import Image

from source.errors import InvalidInput
from source.params.structure_guidance import StructureGuidanceConfig
from source.planning.guidance import GuidanceTimeline, Placement
from Wan2GP.drawing.edges import edge_picture
from Wan2GP.drawing.motion import flow_picture, motion
from Wan2GP.media import Frame, VideoIndex
from Wan2GP.media.colour import to_rgb
from Wan2GP.media.reader import decode

#: frames of a guide where nothing guides: still for motion and depth, empty for edges and plain frames
NEUTRAL = {"flow": 128, "depth": 128, "canny": 0, "none": 0}
#: aspect ratios that differ by no more are stretched to one another; others are cropped
ASPECT_TOLERANCE = 0.01


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


def contrasted(frame: Frame, contrast: float) -> Frame:
    """(x - 0.5) * contrast + 0.5 for x in 0 … 1, clipped."""
    if contrast == 1:
        return frame
    levels = (np.arange(256) / 255 - 0.5) * contrast + 0.5
    return np.asarray(np.rint(levels.clip(0, 1) * 255)[frame], dtype=np.uint8)
