"""A video that shows how a video came about: guide, mask and result side by side over a timeline with a cursor.

Frame k of the result stands beside frame k of every other video. One pass: each video is decoded once, one picture of
each is held at a time, and everything that stands still is drawn once. It is composed in yuv420p, so that no frame is
converted to RGB and back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from source.errors import InvalidInput
from source.media.images import contained
from source.media.lettering import font, shortened
from source.media.timeline_strip import ACCENT, BACKGROUND, FAINT, HEADER, MARGIN, TEXT, Strip, draw_strip
from source.planning.timeline import Layout, Timeline
from Wan2GP.media import Frame, Planes, VideoIndex, VideoInfo, VideoWriter, index_video, read_image, read_planes
from Wan2GP.media.colour import from_rgb

_EMPTY = (12, 13, 15)
_GAP, _CAPTION, _TEXT_SIZE = 12, 26, 14
#: pixels; a wider panel is less high instead: H.264 ends at 16384, for all of a row
_MAX_PANEL = 2000
#: a narrower timeline cannot be read
_MIN_WIDTH = 640
_CURSOR_WIDTH = 4
#: fast, and good enough for looking at
_PRESET, _CRF = "ultrafast", 23

#: the Y, U and V planes of a picture, or None where a video has ended
Picture: TypeAlias = tuple[NDArray[np.uint8], ...]


@dataclass(frozen=True)
class Panel:
    """A video in the picture.

    frames   the frame of the file that is shown beside each frame of the output, None for no picture;
             without them frame k stands beside frame k
    """

    title: str
    path: Path
    frames: Sequence[int | None] | None = None


@dataclass(frozen=True)
class Visualization:
    """What is shown.

    output    the video whose making is shown: it decides length and rate, and stands last
    beside    the videos that it came from
    images    an input image for each anchor of the timeline
    prompts   one for each segment
    fps       None is the output's own; every frame is shown, so another rate plays it faster or slower
    """

    output: Path
    timeline: Timeline
    beside: tuple[Panel, ...] = ()
    images: tuple[Path, ...] = ()
    prompts: tuple[str, ...] = ()
    layout: Layout = "triple"
    fps: Fraction | float | None = None

    @property
    def panels(self) -> tuple[Panel, ...]:
        """As they stand in the picture: side_by_side shows one video beside the output."""
        beside = self.beside[:1] if self.layout == "side_by_side" else self.beside
        return (*beside, Panel("output", self.output))


@dataclass(frozen=True)
class Box:
    """A place in the picture, in pixels, everything even: chroma has half the size."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Arrangement:
    """Where everything stands: the size of the picture, a box for each panel, and the strip below them."""

    size: tuple[int, int]
    panels: tuple[Box, ...]
    strip: Box


def arrange(layout: Layout, shapes: Sequence[tuple[int, int]]) -> Arrangement:
    """Place panels of videos of the `shapes` (width, height) in columns, each under its caption."""
    columns = {"grid": min(2, len(shapes)), "vertical": 1}.get(layout, len(shapes))
    in_one_row = layout in ("triple", "side_by_side")
    height, strip_height = (400, 150) if in_one_row else (300, 200)
    scales = [min(height / tall, _MAX_PANEL / width) for width, tall in shapes]
    sizes = [
        (max(2, _even(width * scale)), max(2, _even(tall * scale)))
        for (width, tall), scale in zip(shapes, scales, strict=True)
    ]
    cells = [max(size[0] for size in sizes[column::columns]) for column in range(columns)]
    content = sum(cells) + _GAP * (columns - 1)
    width = max(_even(content + 2 * _GAP), _MIN_WIDTH)
    boxes = []
    for number, size in enumerate(sizes):
        row, column = divmod(number, columns)
        left = (width - content) // 2 + sum(cells[:column]) + _GAP * column
        top = _CAPTION + row * (height + _CAPTION)
        boxes.append(Box(_even(left + (cells[column] - size[0]) / 2), top, *size))
    below = boxes[-1].y + height + _GAP // 2
    return Arrangement((width, below + strip_height), tuple(boxes), Box(0, below, width, strip_height))


def visualize(shown: Visualization, target: Path, *, progress: Callable[[int, int], None] | None = None) -> VideoInfo:
    """Write the visualization as an H.264 mp4 of exactly as many frames as the output has.

    A panel whose video ends earlier is dark from there on. `progress(done, total)` may raise to stop it.
    Raises InvalidMedia for a video or image that cannot be read, InvalidInput for a target that is not .mp4.
    """
    videos = [index_video(panel.path) for panel in shown.panels]
    num_frames = videos[-1].info.num_frames
    if shown.timeline.num_frames != num_frames:
        raise InvalidInput(f"a timeline of {shown.timeline.num_frames} frames is not that of {num_frames} frames")
    rate = shown.fps or videos[-1].info.fps
    places = arrange(shown.layout, [(video.info.width, video.info.height) for video in videos])
    canvas = _Canvas(places, shown, videos, float(rate))
    streams = [
        _pictures(video, panel.frames or range(num_frames), (box.width, box.height))
        for video, panel, box in zip(videos, shown.panels, places.panels, strict=True)
    ]
    with (
        VideoWriter(target, fps=rate, size=places.size, crf=_CRF, preset=_PRESET) as writer,
        ThreadPoolExecutor(1, "visualization") as reader,
    ):
        coming = reader.submit(_next_of_each, streams)
        for frame in range(num_frames):
            # The next pictures are decoded while these are encoded.
            pictures, coming = coming.result(), reader.submit(_next_of_each, streams)
            writer.write_planes(canvas.drawn(frame, pictures))
            if progress:
                progress(frame + 1, num_frames)
    return index_video(target).info


def _next_of_each(streams: Sequence[Iterator[Picture | None]]) -> list[Picture | None]:
    return [next(stream, None) for stream in streams]


class _Canvas:
    """The picture: what stands still, and what is put over it frame by frame."""

    def __init__(self, places: Arrangement, shown: Visualization, videos: Sequence[VideoIndex], fps: float) -> None:
        self._places = places
        self._timeline = shown.timeline
        self._fps = fps
        self._strip = Strip(places.strip.width, places.strip.height, shown.timeline)
        self._still = _planes(self._drawn_once(shown, videos))
        self._canvas = self._still.copy()
        self._background, self._text, self._accent = (_colour(each) for each in (BACKGROUND, TEXT, ACCENT))

    def _drawn_once(self, shown: Visualization, videos: Sequence[VideoIndex]) -> Frame:
        sheet = Image.new("RGB", self._places.size, BACKGROUND)
        draw = ImageDraw.Draw(sheet)
        for panel, video, box in zip(shown.panels, videos, self._places.panels, strict=True):
            draw.rectangle((box.x, box.y, box.x + box.width - 1, box.y + box.height - 1), fill=_EMPTY)
            _caption(draw, panel.title, video.info, box)
        room = (self._strip.width, self._strip.thumbnail_height)
        images = [contained(read_image(path), room) for path in shown.images]
        strip = draw_strip(self._strip, images, shown.prompts)
        sheet.paste(Image.fromarray(strip), (self._places.strip.x, self._places.strip.y))
        return np.array(sheet, dtype=np.uint8)

    def drawn(self, frame: int, pictures: Sequence[Picture | None]) -> Planes:
        """The picture of one frame. The array is used again for the next one."""
        layers, still = self._layers(self._canvas), self._layers(self._still)
        for box, picture in zip((*self._places.panels, self._places.strip), (*pictures, None), strict=True):
            for number, (layer, below) in enumerate(zip(layers, still, strict=True)):
                area = _area(box, 2 if number else 1)
                layer[area] = picture[number] if picture else below[area]
        self._draw_cursor(frame, layers)
        self._draw_words(frame, layers[0])
        return self._canvas

    def _draw_cursor(self, frame: int, layers: Picture) -> None:
        top, bottom = (self._places.strip.y + _even(each) for each in self._strip.cursor)
        left = _even(self._strip.x_of(frame) - _CURSOR_WIDTH / 2)
        for number, (layer, value) in enumerate(zip(layers, self._accent, strict=True)):
            layer[_area(Box(left, top, _CURSOR_WIDTH, bottom - top), 2 if number else 1)] = value

    def _draw_words(self, frame: int, luma: NDArray[np.uint8]) -> None:
        """Where the cursor is. The text is as grey as its background, so luma alone is drawn."""
        segment = self._timeline.segment_at(frame)
        words = f"frame {frame} of {self._timeline.num_frames} · {frame / self._fps:.2f} s"
        words += "" if segment is None else f" · segment {segment + 1}"
        letters = Image.new("L", (_MIN_WIDTH // 2, HEADER))
        ImageDraw.Draw(letters).text((0, HEADER / 2), words, 255, font(_TEXT_SIZE), anchor="lm")
        ink = np.asarray(letters, dtype=np.float32) / 255
        value = self._background[0] + ink * (float(self._text[0]) - self._background[0])
        top = self._places.strip.y
        luma[top : top + HEADER, MARGIN : MARGIN + letters.width] = value.round().astype(np.uint8)

    def _layers(self, planes: Planes) -> Picture:
        return _layers(planes, self._places.size)


def _caption(draw: ImageDraw.ImageDraw, title: str, info: VideoInfo, box: Box) -> None:
    left, line = max(box.x, 2), box.y - _CAPTION / 2
    draw.text((left, line), title, TEXT, font(_TEXT_SIZE), anchor="lm")
    taken = font(_TEXT_SIZE).getlength(f"{title}   ")
    numbers = f"{info.width}x{info.height} · {info.num_frames} frames · {float(info.fps):g} fps"
    fitting = shortened(numbers, _TEXT_SIZE, box.width - round(taken))
    draw.text((box.x + box.width, line), fitting, FAINT, font(_TEXT_SIZE), anchor="rm")


def _pictures(video: VideoIndex, wanted: Sequence[int | None], size: tuple[int, int]) -> Iterator[Picture | None]:
    """The frames `wanted` at `size`, one after another; decoded once while they rise, from the start where they fall.

    None where there is no picture, and for a frame that the video does not have.
    """
    info = video.info
    own = (_even(info.width), _even(info.height))
    picture: Picture | None = None
    frames: Iterator[Planes] = iter(())
    position = -1
    for index in wanted:
        if index is None or index >= info.num_frames:
            yield None
            continue
        if index < position or position < 0:
            position, frames = index - 1, read_planes(video, index, info.num_frames, own)
        while position < index:
            planes, position = next(frames), position + 1
            if position == index:
                picture = tuple(_resized(each, size, number) for number, each in enumerate(_layers(planes, own)))
        yield picture


def _resized(plane: NDArray[np.uint8], size: tuple[int, int], number: int) -> NDArray[np.uint8]:
    width, height = size if number == 0 else (size[0] // 2, size[1] // 2)
    if plane.shape == (height, width):
        return plane.copy()  # the decoder may use its memory again
    much_smaller = plane.shape[1] >= 2 * width
    method = cv2.INTER_AREA if much_smaller else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(plane, (width, height), interpolation=method), dtype=np.uint8)


def _layers(planes: Planes, size: tuple[int, int]) -> Picture:
    """The Y, U and V planes, as views."""
    width, height = size
    colour = planes[height:].reshape(2, height // 2, width // 2)
    return planes[:height], colour[0], colour[1]


def _area(box: Box, step: int) -> tuple[slice, slice]:
    top, left = box.y // step, box.x // step
    return slice(top, top + box.height // step), slice(left, left + box.width // step)


def _planes(frame: Frame) -> Planes:
    return np.array(from_rgb(frame).to_ndarray(), dtype=np.uint8)


def _colour(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    """A colour as Y, U and V."""
    planes = _planes(np.full((2, 2, 3), colour, np.uint8))
    return int(planes[0, 0]), int(planes[2, 0]), int(planes[2, 1])


def _even(length: float) -> int:
    return round(length / 2) * 2
