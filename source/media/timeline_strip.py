"""The strip below the panels of a visualization: segments with their prompts, overlaps, thumbnails of the input images.

All of it but the cursor stands still, so it is drawn once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw

from source.media.lettering import font, font_for, shortened, wrapped
from source.planning.timeline import Span, Timeline
from Wan2GP.media import Frame, resize

Colour = tuple[int, int, int]

BACKGROUND: Colour = (22, 23, 27)
TEXT: Colour = (226, 228, 233)
FAINT: Colour = (146, 150, 160)
ACCENT: Colour = (255, 190, 92)
_SEGMENTS: tuple[Colour, ...] = ((44, 62, 88), (56, 50, 84))
_OVERLAP: Colour = (84, 92, 112)
_BORDER: Colour = (92, 98, 112)

#: pixels: left and right of the strip, its line of text, a tick between a thumbnail and its frame, below the segments
MARGIN, HEADER, TICK, _BELOW = 12, 26, 8, 8
_TEXT_SIZE, _LINE, _PADDING = 13, 17, 6


@dataclass(frozen=True)
class Strip:
    """The geometry of a strip, in pixels from its own top left corner."""

    width: int
    height: int
    timeline: Timeline

    def x_of(self, frame: float) -> int:
        """The middle of the place of a frame."""
        return self.edge_of(frame + 0.5)

    def edge_of(self, frame: float) -> int:
        """Where the place of a frame begins."""
        return round(MARGIN + (self.width - 2 * MARGIN) * frame / self.timeline.num_frames)

    def columns_of(self, span: Span) -> tuple[int, int]:
        """The first and the last column of a span: one at least, however long the video is."""
        left = self.edge_of(span.start)
        return left, max(left, self.edge_of(span.stop) - 1)

    @property
    def thumbnail_height(self) -> int:
        return round(self.height * 0.3)

    @property
    def bar(self) -> tuple[int, int]:
        """Top and bottom of the segments."""
        return HEADER + self.thumbnail_height + TICK, self.height - _BELOW

    @property
    def cursor(self) -> tuple[int, int]:
        """Top and bottom of the cursor."""
        return HEADER + self.thumbnail_height, self.height - _BELOW // 2


def draw_strip(strip: Strip, images: Sequence[Frame], prompts: Sequence[str]) -> Frame:
    """The strip without its cursor, RGB (height, width, 3) uint8.

    images    input images of any size, one for each anchor of the timeline; further ones are left out
    prompts   one for each segment; "" where there is none
    """
    sheet = Image.new("RGB", (strip.width, strip.height), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    _draw_header(draw, strip)
    _draw_segments(draw, strip, prompts)
    if not images:
        _draw_hint(draw, strip)
    for box, anchor, image in zip(thumbnail_boxes(strip, images), strip.timeline.anchors, images, strict=False):
        _draw_thumbnail(sheet, draw, strip, box, anchor, image)
    return np.array(sheet, dtype=np.uint8)


def thumbnail_boxes(strip: Strip, images: Sequence[Frame]) -> list[tuple[int, int, int, int]]:
    """(x, y, width, height) of each thumbnail: all equally high, over their anchors, none over another."""
    centres = [strip.x_of(anchor) for anchor in strip.timeline.anchors[: len(images)]]
    aspects = [image.shape[1] / image.shape[0] for image in images[: len(centres)]]
    # The outer ones are moved inside by half of their width, so they need room for one and a half.
    room = min((right - left for left, right in pairwise(sorted(centres))), default=strip.width) / 1.5
    height = round(max(4, min(strip.thumbnail_height, (room - 4) / max(aspects, default=1))))
    boxes = []
    for centre, aspect in zip(centres, aspects, strict=True):
        width = max(1, min(round(height * aspect), strip.width - 2 * MARGIN))
        x = min(max(centre - width // 2, MARGIN), strip.width - MARGIN - width)
        boxes.append((x, HEADER + strip.thumbnail_height - height, width, height))
    return boxes


def _draw_header(draw: ImageDraw.ImageDraw, strip: Strip) -> None:
    """What stands still of the line of text; the left half is the cursor's."""
    timeline = strip.timeline
    shared = sum(span.stop - span.start for span in timeline.overlaps)
    words = [f"{len(timeline.segments)} segment{'s' * (len(timeline.segments) != 1)}"]
    words += [f"{shared} frame{'s' * (shared != 1)} shared"] if shared else []
    words += [f"planned for {timeline.planned} frames"] if timeline.planned != timeline.num_frames else []
    draw.text((strip.width - MARGIN, HEADER / 2), " · ".join(words), FAINT, font(_TEXT_SIZE), anchor="rm")


def _draw_hint(draw: ImageDraw.ImageDraw, strip: Strip) -> None:
    place = (MARGIN, HEADER + strip.thumbnail_height / 2)
    draw.text(place, "no input images", FAINT, font(_TEXT_SIZE), anchor="lm")


def _draw_segments(draw: ImageDraw.ImageDraw, strip: Strip, prompts: Sequence[str]) -> None:
    top, bottom = strip.bar
    for index, span in enumerate(strip.timeline.segments):
        left, right = strip.columns_of(span)
        draw.rectangle((left, top, right, bottom), fill=_SEGMENTS[index % len(_SEGMENTS)])
    for span in strip.timeline.overlaps:
        left, right = strip.columns_of(span)
        draw.rectangle((left, top, right, bottom), fill=_OVERLAP)
    for index, span in enumerate(strip.timeline.segments):
        left, right = _own_place(strip, index)
        draw.line((strip.edge_of(span.start), top, strip.edge_of(span.start), bottom), fill=_BORDER)
        _draw_prompt(draw, (left, top, right, bottom), index, span.stop - span.start, prompts[index : index + 1])


def _own_place(strip: Strip, index: int) -> tuple[int, int]:
    """Left and right of what a segment shares with no other: there its prompt is written."""
    spans = strip.timeline.segments
    start = max(spans[index].start, spans[index - 1].stop if index else 0)
    stop = min(spans[index].stop, spans[index + 1].start if index + 1 < len(spans) else strip.timeline.num_frames)
    return strip.edge_of(start) + _PADDING, strip.edge_of(stop) - _PADDING


def _draw_prompt(
    draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], index: int, length: int, prompts: Sequence[str]
) -> None:
    left, top, right, bottom = box
    title = shortened(f"{index + 1} · {length} frames", _TEXT_SIZE, right - left)
    draw.text((left, top + 5), title, FAINT, font(_TEXT_SIZE))
    lines = wrapped("".join(prompts), _TEXT_SIZE, right - left, (bottom - top - 5) // _LINE - 1)
    for number, line in enumerate(lines, 1):
        draw.text((left, top + 5 + number * _LINE), line, TEXT, font_for(line, _TEXT_SIZE))


def _draw_thumbnail(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, strip: Strip, box: tuple[int, int, int, int], anchor: int,
    image: Frame,
) -> None:  # fmt: skip
    x, y, width, height = box
    sheet.paste(Image.fromarray(resize(image, (width, height))), (x, y))
    middle, top = strip.x_of(anchor), HEADER + strip.thumbnail_height
    draw.polygon([(middle - 4, top + 1), (middle + 4, top + 1), (middle, top + TICK - 1)], fill=TEXT)
