"""What a media file holds, in one number: the same for two files of equal streams, whatever their containers say."""

from __future__ import annotations

import hashlib
from pathlib import Path

import av


def content_digest(path: Path) -> str:
    """SHA-256 over the packets of all streams; over the bytes of a file that is no video, image or sound.

    Containers carry random numbers and dates, so two runs that write the same frames write different files.
    Raises OSError when the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with av.open(str(path)) as container:
            for stream in container.streams:
                digest.update(f"{stream.type} {stream.codec_context.name} {stream.time_base}".encode())
                digest.update(stream.codec_context.extradata or b"")
            for packet in container.demux():
                digest.update(f"{packet.stream_index} {packet.pts} {packet.size}".encode())
                digest.update(bytes(packet))
    except (av.error.InvalidDataError, AttributeError):
        digest = hashlib.sha256(path.read_bytes())
    return digest.hexdigest()
