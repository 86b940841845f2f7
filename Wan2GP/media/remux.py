"""Putting whole GOPs of several files one after another, without decoding them.

Packets of one encoding follow one another as they are. H.264 of several encoders does too, once every IDR picture
carries the parameter sets that its own encoder wrote; the file says so by the sample entry "avc3" (ISO/IEC 14496-15).
"""

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
from Wan2GP.media.index import Encoding, VideoIndex

#: the type of a NAL unit that belongs to an IDR picture
_IDR = 5


@dataclass(frozen=True)
class PacketRange:
    """The packets of the frames start..stop-1 of a video.

    It starts where a GOP does, and ends where one does or where no frame needs a later one (`VideoIndex.last_close`).
    """

    video: VideoIndex
    start: int
    stop: int

    def __post_init__(self) -> None:
        if not (self.video.is_boundary(self.start) and self.video.last_close(self.start, self.stop) == self.stop):
            raise InvalidInput(f"{self.video.info.path}: frames {self.start} to {self.stop} are not whole GOPs")

    @property
    def num_frames(self) -> int:
        return self.stop - self.start

    @property
    def order(self) -> NDArray[np.int64]:
        """The frame that each packet holds, counted from the start of the range."""
        return self.video.decode_order[self.start : self.stop] - self.start


def can_follow(first: Encoding, second: Encoding) -> bool:
    """Whether packets of both may stand in one file: one encoding, or H.264 that shows alike."""
    if first == second:
        return True
    return all(
        (a.has_parameter_sets and a.size == b.size and a.pix_fmt == b.pix_fmt and a.fps == b.fps)
        and (a.signalling == b.signalling and a.rotation == b.rotation)
        for a, b in ((first, second), (second, first))
    )


def needs_sets_in_band(ranges: Sequence[PacketRange]) -> bool:
    """Whether the parameter sets change along these ranges, so that every keyframe has to bring its own."""
    encodings = {part.video.encoding for part in ranges}
    return len({encoding.parameter_sets for encoding in encodings}) > 1 or any(e.in_band for e in encodings)


def concat_copy(ranges: Sequence[PacketRange], output: Path) -> int:
    """Write the packets of all ranges, in order, into one mp4 with exact time stamps; returns the number of frames.

    Frame i is stamped i / fps. Because every range is closed, the decoding time of packet d may be (d - delay) / fps,
    where `delay` is the deepest reordering in any range.

    Raises InvalidInput for encodings that cannot stand in one file, InvalidMedia for a file that is not what it was.
    """
    encodings = {r.video.encoding for r in ranges}
    first = ranges[0].video.encoding
    if not all(can_follow(first, encoding) for encoding in encodings):
        raise InvalidInput(f"cannot join {len(encodings)} different encodings by copying")
    mixed = needs_sets_in_band(ranges)
    delay = max(int((np.arange(r.num_frames) - r.order).max()) for r in ranges)
    begun = 0
    with (
        publishing(output) as partial,
        open_video(ranges[0].video.info.path) as (_, template),
        av.open(str(partial), "w", format="mp4", options={"movflags": "+faststart"}) as container,
    ):
        stream = container.add_stream_from_template(template)
        if mixed:
            stream.codec_context.codec_tag = "avc3"
        for part in ranges:
            packets = _packets(part)
            for position, packet in enumerate(_with_sets(packets, part.video) if mixed else packets):
                packet.stream = stream
                packet.time_base = 1 / first.fps
                packet.pts = begun + int(part.order[position])
                packet.dts = begun + position - delay
                packet.duration = 1
                container.mux_one(packet)
            begun += part.num_frames
    return begun


def _with_sets(packets: Iterator[Packet[VideoStream]], video: VideoIndex) -> Iterator[Packet[VideoStream]]:
    """The packets, every keyframe led by the parameter sets of its encoder."""
    sets = _parameter_sets(video.encoding.parameter_sets)
    for packet in packets:
        if not packet.is_keyframe:
            yield packet
            continue
        led: Packet[VideoStream] = Packet(sets + bytes(packet))
        led.is_keyframe = True
        yield led


def _parameter_sets(record: bytes) -> bytes:
    """The SPS and PPS of an AVCDecoderConfigurationRecord as NAL units, each led by 4 bytes of length."""
    units, position = [], 5
    for mask in (0x1F, 0xFF):
        count, position = record[position] & mask, position + 1
        for _ in range(count):
            size = int.from_bytes(record[position : position + 2], "big")
            units.append(size.to_bytes(4, "big") + record[position + 2 : position + 2 + size])
            position += 2 + size
    return b"".join(units)


def _begins_afresh(packet: Packet[VideoStream], encoding: Encoding) -> bool:
    """Whether a keyframe is an IDR picture, behind which nothing refers; only that of H.264 can be something else."""
    if not encoding.has_parameter_sets:
        return True
    data, position = bytes(packet), 0
    while position + 4 < len(data):
        if data[position + 4] & 0x1F == _IDR:
            return True
        position += 4 + int.from_bytes(data[position : position + 4], "big")
    return False


def _packets(part: PacketRange) -> Iterator[Packet[VideoStream]]:
    path, stamp = part.video.info.path, int(part.video.pts[part.start])
    with open_video(path) as (container, stream):
        if part.start:
            container.seek(stamp, stream=stream, backward=True)
        shown = (p for p in container.demux(stream) if p.size and not p.is_discard)
        for packet in shown:
            if packet.pts == stamp:
                if not _begins_afresh(packet, part.video.encoding):
                    raise InvalidMedia(f"{path}: frame {part.start} is a keyframe across which others refer")
                yield packet
                break
        taken = 1
        for packet in islice(shown, part.num_frames - 1):
            yield packet
            taken += 1
    if taken != part.num_frames:
        raise InvalidMedia(f"{path} ended after {taken} of {part.num_frames} packets; it changed while it was read")
