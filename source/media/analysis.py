"""Looking at a video: its numbers in the log, a contact sheet, and how much each frame differs from the one before."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from source.errors import InvalidInput
from Wan2GP.media import Frame, VideoInfo, probe_video, read_frames, resize, write_image

log = logging.getLogger(__name__)

_BACKGROUND = (22, 23, 27)
_TEXT = (226, 228, 233)
_FAINT = (146, 150, 160)
_ACCENT = (255, 190, 92)
_THUMBNAIL_WIDTH = 320
_GAP = 14
_CAPTION_HEIGHT = 28
_TITLE_HEIGHT = 44


def debug_video_analysis(path: str | Path) -> VideoInfo:
    """Probe a video and log its frames, rate, duration and size. Errors as `probe_video`."""
    info = probe_video(path)
    log.debug(
        "%s: %d frames, %g fps, %.3f s, %dx%d, %s %s, %d bytes",
        info.path.name,
        info.num_frames,
        float(info.fps),
        info.duration_s,
        info.width,
        info.height,
        info.codec,
        info.pix_fmt,
        info.path.stat().st_size,
    )
    return info


def difference_profile(path: str | Path) -> NDArray[np.float64]:
    """Mean absolute difference (0..255, RGB) of each frame from the one before: num_frames - 1 numbers.

    A repeated frame shows as a dip to almost nothing, a dropped one as a spike.
    """
    return np.array([float(cv2.absdiff(b, a).mean()) for a, b in pairwise(read_frames(path))], dtype=np.float64)


def contact_sheet(
    video: str | Path,
    output: str | Path,
    *,
    columns: int = 4,
    count: int = 12,
    labels: Mapping[int, str] | None = None,
    title: str | None = None,
) -> Path:
    """Draw `count` evenly spaced frames of a video, the first and the last among them, into one PNG.

    labels   frame index -> a word to show under it; such a frame is framed in colour and stands in for the nearest
             of the evenly spaced ones
    title    the line at the top; the file's name and numbers when None

    Raises InvalidInput for a label outside the video, InvalidMedia for a bad file.
    """
    labels = labels or {}
    info = probe_video(video)
    outside = sorted(index for index in labels if not 0 <= index < info.num_frames)
    if outside or columns < 1 or count < 1:
        raise InvalidInput(f"cannot draw {count} frames in {columns} columns with labels at {outside or 'no frame'}")
    wanted = _choose(info.num_frames, count, labels)
    cell_height = round(_THUMBNAIL_WIDTH * info.height / info.width)
    size = (_THUMBNAIL_WIDTH, cell_height)
    columns = min(columns, len(wanted))
    sheet = _blank_sheet(columns, -(-len(wanted) // columns), cell_height, title or _describe(info))
    for position, (index, frame) in enumerate(zip(wanted, _pick(video, wanted, size), strict=True)):
        row, column = divmod(position, columns)
        corner = (
            _GAP + column * (_THUMBNAIL_WIDTH + _GAP),
            _TITLE_HEIGHT + row * (cell_height + _CAPTION_HEIGHT + _GAP),
        )
        _draw_cell(sheet, corner, frame, f"{index}", f"{float(index / info.fps):.2f} s", labels.get(index))
    return write_image(output, np.asarray(sheet, dtype=np.uint8))


def _choose(num_frames: int, count: int, labels: Collection[int]) -> list[int]:
    """Frames to draw: evenly spaced, except that each labelled frame takes the place of its nearest neighbour."""
    spaced = {int(index) for index in np.linspace(0, num_frames - 1, min(count, num_frames)).round()}
    for label in set(labels) - spaced:
        inner = spaced - set(labels) - {0, num_frames - 1}
        spaced -= {min(inner, key=lambda index: abs(index - label))} if inner else set()
        spaced.add(label)
    return sorted(spaced)


def _pick(video: str | Path, wanted: list[int], size: tuple[int, int]) -> list[Frame]:
    """The wanted frames as thumbnails, in one pass over the video."""
    chosen = set(wanted)
    return [resize(frame, size) for index, frame in enumerate(read_frames(video)) if index in chosen]


def _describe(info: VideoInfo) -> str:
    numbers = (
        f"{info.num_frames} frames · {float(info.fps):g} fps · {info.duration_s:.2f} s · {info.width}x{info.height}"
    )
    return f"{info.path.name}   {numbers}"


def _blank_sheet(columns: int, rows: int, cell_height: int, title: str) -> Image.Image:
    width = _GAP + columns * (_THUMBNAIL_WIDTH + _GAP)
    height = _TITLE_HEIGHT + rows * (cell_height + _CAPTION_HEIGHT + _GAP)
    sheet = Image.new("RGB", (width, height), _BACKGROUND)
    ImageDraw.Draw(sheet).text((_GAP, _TITLE_HEIGHT / 2), title, _TEXT, ImageFont.load_default(16), anchor="lm")
    return sheet


def _draw_cell(
    sheet: Image.Image, corner: tuple[int, int], frame: Frame, number: str, time: str, label: str | None
) -> None:
    x, y = corner
    height, width = frame.shape[:2]
    sheet.paste(Image.fromarray(frame), corner)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    if label is not None:
        draw.rectangle((x - 3, y - 3, x + width + 2, y + height + 2), outline=_ACCENT, width=3)
    line = y + height + _CAPTION_HEIGHT / 2 + 2
    draw.text((x + 2, line), f"frame {number}", _TEXT, font, anchor="lm")
    draw.text((x + width - 2, line), time, _FAINT, font, anchor="rm")
    if label:
        draw.text((x + width / 2, line), label, _ACCENT, font, anchor="mm")
