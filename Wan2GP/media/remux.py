"""Putting whole GOPs of several files one after another, without decoding them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import av
import numpy as np
from av.packet import Packet
from av.video.stream import VideoStream
from numpy.typing import NDArray

from Wan2GP.errors import InvalidInput, InvalidMedia
from Wan2GP.media.containers import open_video
from Wan2GP.media.files import publishing
from Wan2GP.media.index import VideoIndex


@dataclass(frozen=True)
class PacketRange:
    """The packets of the frames start..stop-1 of a video; both ends lie on GOP boundaries."""

    video: VideoIndex
    start: int
    stop: int

    def __post_init__(self) -> None:
        if not (self.video.is_boundary(self.start) and self.video.is_boundary(self.stop)):
            raise InvalidInput(f"{self.video.info.path}: frames {self.start} to {self.stop} are not whole GOPs")

    @property
    def num_frames(self) -> int:
        return self.stop - self.start

    @property
    def order(self) -> NDArray[np.int64]:
        """The frame that each packet holds, counted from the start of the range."""
        return self.video.decode_order[self.start : self.stop] - self.start


def concat_copy(ranges: Sequence[PacketRange], output: Path) -> int:
    """Write the packets of all ranges, in order, into one mp4 with exact time stamps; returns the number of frames.

    All ranges must share one `Encoding`. Frame i is stamped i / fps. Because every range is closed, the decoding time
    of packet d may be (d - delay) / fps, where `delay` is the deepest reordering in any range.
    """
    encodings = {r.video.encoding for r in ranges}
    if len(encodings) != 1:
        raise InvalidInput(f"cannot join {len(encodings)} different encodings by copying")
    fps = encodings.pop().fps
    delay = max(int((np.arange(r.num_frames) - r.order).max()) for r in ranges)
    first = 0
    with (
        publishing(output) as partial,
        open_video(ranges[0].video.info.path) as (_, template),
        av.open(str(partial), "w", format="mp4", options={"movflags": "+faststart"}) as container,
    ):
        stream = container.add_stream_from_template(template)
        for part in ranges:
            for position, packet in enumerate(_packets(part)):
                packet.stream = stream
                packet.time_base = 1 / fps
                packet.pts = first + int(part.order[position])
                packet.dts = first + position - delay
                packet.duration = 1
                container.mux_one(packet)
            first += part.num_frames
    return first


def _packets(part: PacketRange) -> Iterator[Packet[VideoStream]]:
    path, stamp = part.video.info.path, int(part.video.pts[part.start])
    with open_video(path) as (container, stream):
        if part.start:
            container.seek(stamp, stream=stream, backward=True)
        shown = (p for p in container.demux(stream) if p.size and not p.is_discard)
        for packet in shown:
            if packet.pts == stamp:
                yield packet
                break
        taken = 1
        for packet in islice(shown, part.num_frames - 1):
            yield packet
            taken += 1
    if taken != part.num_frames:
        raise InvalidMedia(f"{path} ended after {taken} of {part.num_frames} packets; it changed while it was read")
