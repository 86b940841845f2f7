"""A text in a picture or video: it comes back as it was, and nothing of the pixels, samples and their order changes."""

from __future__ import annotations

import io
import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from engine_runs import picture
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from Wan2GP.errors import InvalidMedia
from Wan2GP.media import PacketRange, concat_copy, index_video, mux_audio, probe_video, read_frames, write_video
from Wan2GP.media.boxes import XMP_UUID, embed, embedded
from Wan2GP.media.digest import content_digest
from Wan2GP.media.metadata import carries_text, embed_text, embedded_texts
from Wan2GP.media.xmp import MAX_TEXT_BYTES

TEXT = json.dumps({"prompt": "ein Ball & <Würfel> 球 \u2028 \x07", "a]]>b": "\ud800 \ufffe"}, ensure_ascii=False)
PLAIN = '{"a": 1}'
TOOL = "a <tool> 1.0"


def frames(count: int = 20) -> list[np.ndarray]:
    return [np.roll(picture(3), 2 * index, axis=1) for index in range(count)]


def silent(folder: Path) -> Path:
    return write_video(folder / "silent.mp4", frames(), fps=16).path


def with_sound(folder: Path, samples: Path) -> Path:
    mux_audio(silent(folder), samples / "bbb_320x180_audio.mp4", folder / "sound.mp4")
    return folder / "sound.mp4"


def joined_by_copying(folder: Path) -> Path:
    index = index_video(silent(folder))
    concat_copy([PacketRange(index, 0, index.info.num_frames)] * 3, folder / "joined.mp4")
    return folder / "joined.mp4"


@pytest.fixture(params=["silent", "sound", "joined", "late table", "keyframes"])
def video(request: pytest.FixtureRequest, tmp_path: Path, samples: Path) -> Path:
    match request.param:
        case "silent":
            return silent(tmp_path)
        case "sound":
            return with_sound(tmp_path, samples)
        case "joined":
            return joined_by_copying(tmp_path)
        case "late table":
            return remuxed(silent(tmp_path), tmp_path / "late.mp4")
    return samples / "bbb_320x180_keyframes.mp4"


def remuxed(source: Path, target: Path, **options: str) -> Path:
    """The same packets in another file; without options the table of contents stands last."""
    with av.open(str(source)) as given_, av.open(str(target), "w", options=options) as made:
        streams = {stream.index: made.add_stream_from_template(stream) for stream in given_.streams}
        for packet in given_.demux():
            if packet.size:
                packet.stream = streams[packet.stream.index]
                made.mux(packet)
    return target


def kinds(path: Path) -> list[bytes]:
    data, position, found = path.read_bytes(), 0, []
    while position < len(data):
        size, kind = struct.unpack_from(">I4s", data, position)
        found.append(kind)
        position += size
    return found


def sample_bytes(path: Path) -> list[tuple[int, bytes]]:
    """Each packet of every stream, time stamps and bytes."""
    with av.open(str(path)) as container:
        return [
            (packet.stream_index, packet.pts, packet.dts, packet.duration, bytes(packet))
            for packet in container.demux() if packet.size
        ]  # fmt: skip


def strictly_decoded(path: Path) -> int:
    """How many frames and sound blocks decode when any damage is an error."""
    with av.open(str(path), options={"err_detect": "explode"}) as container:
        return sum(1 for _ in container.decode(*container.streams))


def embedded_in(source: Path, folder: Path, text: str = TEXT) -> Path:
    target = folder / f"made{source.suffix}"
    embed_text(source, target, text, tool=TOOL)
    return target


# ---- videos


def test_a_video_carries_the_text_twice_and_its_samples_are_untouched(video: Path, tmp_path: Path) -> None:
    made = embedded_in(video, tmp_path)
    assert [json.loads(text) for text in embedded_texts(made)] == [json.loads(TEXT)] * 2
    with av.open(str(made)) as container:
        assert json.loads(container.metadata["comment"]) == json.loads(TEXT)
    assert sample_bytes(made) == sample_bytes(video)
    assert content_digest(made) == content_digest(video)
    assert strictly_decoded(made) == strictly_decoded(video)
    assert all((a == b).all() for a, b in zip(read_frames(made), read_frames(video), strict=True))
    assert probe_video(made).num_frames == probe_video(video).num_frames
    assert made.stat().st_size - video.stat().st_size < 64 * 1024
    assert video.read_bytes() != made.read_bytes()


def test_the_order_of_the_boxes_stays_and_the_packet_follows_the_table(video: Path, tmp_path: Path) -> None:
    before, after = kinds(video), kinds(embedded_in(video, tmp_path))
    assert after.index(b"uuid") == after.index(b"moov") + 1
    assert [kind for kind in after if kind != b"uuid"] == before
    if video.name in ("silent.mp4", "sound.mp4", "joined.mp4"):
        assert after.index(b"moov") < after.index(b"mdat")


def test_writing_twice_is_writing_once(video: Path, tmp_path: Path) -> None:
    other = embedded_in(video, tmp_path, PLAIN)
    again = tmp_path / "again.mp4"
    embed_text(other, again, TEXT, tool=TOOL)
    assert again.read_bytes() == embedded_in(video, tmp_path).read_bytes()


def test_the_other_items_of_a_video_are_kept(tmp_path: Path, samples: Path) -> None:
    source = tmp_path / "titled.mp4"
    with av.open(str(silent(tmp_path))) as given_, av.open(str(source), "w") as container:
        container.metadata["title"] = "A title"
        container.metadata["comment"] = "Another comment"
        stream = container.add_stream_from_template(given_.streams.video[0])
        for packet in given_.demux(video=0):
            if packet.size:
                packet.stream = stream
                container.mux(packet)
    with av.open(str(embedded_in(source, tmp_path, PLAIN))) as container:
        assert container.metadata["title"] == "A title"
        assert container.metadata["comment"] == PLAIN


def test_a_fragmented_video_gets_the_packet_alone_at_its_end(tmp_path: Path) -> None:
    source = remuxed(silent(tmp_path), tmp_path / "pieces.mp4", movflags="frag_keyframe+empty_moov")
    made = embedded_in(source, tmp_path)
    assert made.read_bytes().startswith(source.read_bytes())
    assert [json.loads(text) for text in embedded_texts(made)] == [json.loads(TEXT)]
    again = tmp_path / "again.mp4"
    embed_text(made, again, PLAIN, tool=TOOL)
    assert list(embedded_texts(again)) == [PLAIN]
    assert sample_bytes(again) == sample_bytes(source)


def test_a_quicktime_video_gets_the_packet_alone(tmp_path: Path) -> None:
    source = remuxed(silent(tmp_path), tmp_path / "clip.mov", movflags="faststart")
    made = embedded_in(source, tmp_path, PLAIN)
    assert list(embedded_texts(made)) == [PLAIN]
    assert sample_bytes(made) == sample_bytes(source)


def full_box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


class Sparse(io.RawIOBase):
    """A file of almost any size: what was written last lies behind a hole."""

    def __init__(self, head: bytes, size: int) -> None:
        self._head, self._size, self._position = head, size, 0

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = offset + (0, self._position, self._size)[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, count: int = -1) -> bytes:
        count = min(count, self._size - self._position)
        piece = self._head[self._position : self._position + count]
        self._position += count
        return piece + bytes(count - len(piece))


class Sink(io.RawIOBase):
    """Counts what is written and keeps its beginning and its largest piece."""

    def __init__(self) -> None:
        self.head, self.size, self.largest = b"", 0, 0

    def write(self, data: Any) -> int:
        if len(self.head) < 1 << 20:
            self.head += bytes(data[: 1 << 20])
        self.size += len(data)
        self.largest = max(self.largest, len(data))
        return len(data)


def test_sample_offsets_that_pass_four_gigabytes_become_long_and_memory_stays_small() -> None:
    offsets = [200, 2**32 - 500]
    table = full_box(b"stco", struct.pack(">III", 0, 2, 0) + b"")[:16] + struct.pack(">II", *offsets)
    table = struct.pack(">I", len(table)) + table[4:]
    moov = table
    for kind in (b"stbl", b"minf", b"mdia", b"trak", b"moov"):
        moov = full_box(kind, moov)
    head = full_box(b"ftyp", b"isom" + bytes(8)) + moov
    data_size = 2**32 - 100 - len(head)
    source = Sparse(head + struct.pack(">I4s", data_size, b"mdat"), len(head) + data_size)
    target = Sink()
    embed(source, target, PLAIN, b"packet")  # type: ignore[arg-type]
    growth = target.size - len(head) - data_size
    at = target.head.index(b"co64")
    assert struct.unpack_from(">II2Q", target.head, at + 4) == (0, 2, *(offset + growth for offset in offsets))
    assert b"stco" not in target.head
    assert target.largest <= 1 << 20


# ---- pictures


def saved(folder: Path, name: str, mode: str = "RGB", **options: Any) -> Path:
    path = folder / name
    Image.fromarray(picture(5)).convert(mode).save(path, **options)
    return path


PICTURES = [
    ("a.png", "RGB", {}),
    ("transparent.png", "RGBA", {}),
    ("a.jpg", "RGB", {"quality": 90}),
    ("grey.jpg", "L", {"progressive": True}),
    ("lossy.webp", "RGB", {"quality": 80}),
    ("lossless.webp", "RGB", {"lossless": True}),
    ("alpha.webp", "RGBA", {"lossless": True}),
    ("exif.webp", "RGB", {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"}),
]


@pytest.mark.parametrize(("name", "mode", "options"), PICTURES)
def test_a_picture_carries_the_text_and_its_pixels_are_untouched(
    name: str, mode: str, options: dict[str, Any], tmp_path: Path
) -> None:
    source = saved(tmp_path, name, mode, **options)
    made = embedded_in(source, tmp_path)
    assert [json.loads(text) for text in embedded_texts(made)] == [json.loads(TEXT)]
    with Image.open(source) as before, Image.open(made) as after:
        assert (before.size, before.mode) == (after.size, after.mode)
        assert (np.asarray(before) == np.asarray(after)).all()
    again = tmp_path / f"again{source.suffix}"
    embed_text(made, again, PLAIN, tool=TOOL)
    assert list(embedded_texts(again)) == [PLAIN]
    assert embedded_in(source, tmp_path, PLAIN).read_bytes() == again.read_bytes()


def test_other_programs_find_the_text(tmp_path: Path) -> None:
    with Image.open(embedded_in(saved(tmp_path, "a.png"), tmp_path, PLAIN)) as image:
        assert image.text["Comment"] == PLAIN  # type: ignore[attr-defined]
    for name in ("a.jpg", "a.webp"):
        with Image.open(embedded_in(saved(tmp_path, name), tmp_path, PLAIN)) as image:
            packet = image.info["xmp"].decode()
            assert PLAIN in packet
            assert "a &lt;tool&gt; 1.0" in packet


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp"])
def test_a_text_larger_than_a_segment_survives(name: str, tmp_path: Path) -> None:
    long = json.dumps({"prompts": [f"a picture, number {number}" for number in range(9000)]})
    made = embedded_in(saved(tmp_path, name), tmp_path, long)
    assert list(embedded_texts(made)) == [long]
    with Image.open(made) as image:
        image.load()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(exclude_categories=())), inner),
    max_leaves=20,
)  # fmt: skip


@pytest.fixture(scope="module")
def plain_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("plain")
    return [silent(folder), *(saved(folder, name) for name in ("a.png", "a.jpg", "a.webp"))]


@settings(max_examples=60, deadline=None)
@given(value=JSON)
def test_any_json_survives(plain_files: list[Path], value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False)
    for source in plain_files:
        found = list(embedded_texts(embedded_in(source, source.parent, text)))
        assert found
        assert all(json.loads(each) == value for each in found)


# ---- what cannot be written into


@pytest.mark.parametrize("name", ["a.txt", "a.gif", "a.mkv", "a.bmp"])
def test_other_kinds_carry_none(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name.endswith("mkv"):
        write_video(path, frames(3), fps=16, codec="ffv1")
    elif name.endswith("txt"):
        path.write_text("words")
    else:
        Image.fromarray(picture(5)).save(path)
    assert not carries_text(path)
    assert list(embedded_texts(path)) == []
    with pytest.raises(InvalidMedia, match="of this kind"):
        embed_text(path, tmp_path / "made", PLAIN, tool=TOOL)
    assert not (tmp_path / "made").exists()


def damaged(path: Path) -> Iterator[bytes]:
    data = path.read_bytes()
    yield data[: len(data) // 2]
    yield data[:40]
    yield data[:30] + b"\xff" * 60


@pytest.mark.parametrize("name", ["a.mp4", "a.png", "a.jpg", "a.webp"])
def test_damage_is_refused_by_name_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    source = silent(tmp_path) if name == "a.mp4" else saved(tmp_path, name)
    for number, data in enumerate(damaged(source)):
        broken = tmp_path / f"{number}_{name}"
        broken.write_bytes(data)
        if name == "a.jpg" and number == 0:
            continue  # cut within the picture: its segments are whole
        with pytest.raises(InvalidMedia, match=broken.name):
            embed_text(broken, tmp_path / "made", PLAIN, tool=TOOL)
        assert not (tmp_path / "made").exists()


PNG_HEAD = b"\x89PNG\r\n\x1a\n"


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"WEBP" + b"".join(struct.pack("<4sI", kind, len(content)) + content for kind, content in chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


CRAFTED = {
    "a segment shorter than its length.jpg": b"\xff\xd8\xff\xe0\0\0" + bytes(1000),
    "a segment of one byte.jpg": b"\xff\xd8\xff\xe1\0\1" + bytes(70_000),
    "a segment that is cut off.jpg": b"\xff\xd8\xff\xe1\xff\xff" + bytes(100),
    "an empty header.webp": riff((b"VP8X", b""), (b"VP8L", bytes(10))),
    "a short picture.webp": riff((b"VP8 ", b"\0\0\0\x9d\x01\x2a")),
    "no size.webp": riff((b"VP8 ", b"\0\0\0\x9d\x01\x2a" + bytes(4))),
    "a million boxes.mp4": full_box(b"ftyp", b"isom") + full_box(b"moov", b"") + full_box(b"free", b"") * 300_000,
    "a chunk of four gigabytes.png": PNG_HEAD + b"\xff\xff\xff\xffIHDR" + bytes(50),
}


@pytest.mark.parametrize("name", CRAFTED)
def test_what_no_program_writes_is_refused_by_name(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(CRAFTED[name])
    with pytest.raises(InvalidMedia, match=name):
        embed_text(path, tmp_path / "made", PLAIN, tool=TOOL)
    assert not (tmp_path / "made").exists()


def test_boxes_inside_boxes_without_end_are_copied_as_they_are(tmp_path: Path) -> None:
    deep = b""
    for _ in range(3000):
        deep = full_box(b"trak", deep)
    path = tmp_path / "deep.mp4"
    path.write_bytes(full_box(b"ftyp", b"isom" + bytes(8)) + full_box(b"moov", deep))
    assert list(embedded_texts(embedded_in(path, tmp_path, PLAIN))) == [PLAIN, PLAIN]


def test_a_packet_that_opens_its_text_over_and_over_is_read_in_one_go(tmp_path: Path) -> None:
    path = tmp_path / "openings.mp4"
    path.write_bytes(full_box(b"ftyp", b"isom") + full_box(b"uuid", XMP_UUID + b"<hw:record>" * 200_000))
    started = time.process_time()
    assert list(embedded_texts(path)) == []
    assert time.process_time() - started < 5  # trying each opening takes an hour


def test_a_text_that_would_fill_the_memory_is_neither_written_nor_read(tmp_path: Path) -> None:
    source = saved(tmp_path, "a.png")
    with pytest.raises(InvalidMedia, match="too long"):
        embed_text(source, tmp_path / "made.png", json.dumps("&" * MAX_TEXT_BYTES), tool=TOOL)
    assert not (tmp_path / "made.png").exists()
    huge = tmp_path / "huge.mp4"
    packet = b"<hw:record>" + b"1" * MAX_TEXT_BYTES + b"</hw:record>"
    huge.write_bytes(full_box(b"ftyp", b"isom") + full_box(b"uuid", XMP_UUID + packet))
    assert list(embedded_texts(huge)) == []


def test_a_packet_of_another_program_is_no_text_of_ours(tmp_path: Path) -> None:
    source = silent(tmp_path)
    data = source.read_bytes() + full_box(b"uuid", XMP_UUID + b"<x:xmpmeta>other</x:xmpmeta>")
    other = tmp_path / "other.mp4"
    other.write_bytes(data)
    assert list(embedded_texts(other)) == []
    with other.open("rb") as file:
        assert list(embedded(file)) == [b"<x:xmpmeta>other</x:xmpmeta>"]
    assert b"other" not in embedded_in(other, tmp_path).read_bytes()
