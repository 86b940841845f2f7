"""Reading, writing and probing real video files, good and bad."""

from __future__ import annotations

import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from Wan2GP.errors import InvalidInput, InvalidMedia
from Wan2GP.media import (
    PacketRange,
    VideoWriter,
    check_video,
    concat_copy,
    exact_fps,
    ffmpeg_path,
    index_video,
    mux_audio,
    probe_video,
    read_frame,
    read_frames,
    write_video,
)

BITS = 12


def numbered(number: int, size: tuple[int, int] = (96, 64)) -> np.ndarray:
    """A drifting texture with `number` written in 12 black or white blocks along the top: survives encoding."""
    width, height = size
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    red = 128 + 60 * np.sin((x + 2 * number) / 7)
    green = 128 + 60 * np.cos((y + number) / 9)
    frame = np.stack([red, green, 90 + 0 * x], axis=-1).astype(np.uint8)
    block = width // BITS
    for bit in range(BITS):
        frame[:16, bit * block : (bit + 1) * block] = 235 if number >> bit & 1 else 20
    return frame


def number_of(frame: np.ndarray) -> int:
    block = frame.shape[1] // BITS
    return sum(1 << bit for bit in range(BITS) if frame[4:12, bit * block + 2 : (bit + 1) * block - 2].mean() > 128)


def video(path: Path, num_frames: int, **options: object) -> Path:
    options = {"fps": 16, "preset": "ultrafast"} | options
    write_video(path, (numbered(i) for i in range(num_frames)), **options)  # type: ignore[arg-type]
    return path


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(float(np.mean((a.astype(float) - b) ** 2)), 1e-9)))


def top_boxes(path: Path) -> list[str]:
    """The names of an mp4's top-level boxes, in order."""
    data, names, position = path.read_bytes(), [], 0
    while position < len(data):
        names.append(data[position + 4 : position + 8].decode())
        position += int.from_bytes(data[position : position + 4], "big")
    return names


def packet_table(path: Path) -> tuple[list[int], list[int], list[int]]:
    """(sorted time stamps, decoding stamps in file order, indices of keyframes) in units of the stream."""
    with av.open(str(path)) as container:
        packets = [(p.pts, p.dts, p.is_keyframe) for p in container.demux(video=0) if p.size]
    stamps = sorted(pts for pts, _, _ in packets)
    return stamps, [dts for _, dts, _ in packets], [stamps.index(pts) for pts, _, key in packets if key]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return video(tmp_path_factory.mktemp("clip") / "clip.mp4", 50, preset="medium")


# writing


@pytest.mark.parametrize("num_frames", [1, 2, 3, 16, 17, 33, 81])
def test_every_frame_written_is_there_once(tmp_path: Path, num_frames: int) -> None:
    info = write_video(tmp_path / "a.mp4", (numbered(i) for i in range(num_frames)), fps=16)
    assert info.num_frames == num_frames
    assert [number_of(frame) for frame in read_frames(tmp_path / "a.mp4")] == list(range(num_frames))


def test_a_written_video_plays_in_a_browser(clip: Path) -> None:
    info = probe_video(clip)
    assert (info.codec, info.pix_fmt) == ("h264", "yuv420p")
    assert (info.width, info.height, info.fps, info.num_frames) == (96, 64, Fraction(16), 50)
    assert info.duration_s == pytest.approx(50 / 16)
    assert not info.has_audio
    boxes = top_boxes(clip)
    assert boxes.index("moov") < boxes.index("mdat")
    with av.open(str(clip)) as container:
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)


@pytest.mark.parametrize("fps", [8, 16, 24, 25, 29.97, 23.976, 60, Fraction(30000, 1001)])
def test_time_stamps_are_exact(tmp_path: Path, fps: float) -> None:
    path = video(tmp_path / "a.mp4", 40, fps=fps)
    index = index_video(path)
    assert index.info.fps == exact_fps(fps)
    assert index.has_constant_rate and index.pts[0] == 0
    stamps, decoding, _ = packet_table(path)
    assert [stamp * index.encoding.time_base for stamp in stamps] == [i / exact_fps(fps) for i in range(40)]
    assert decoding == sorted(set(decoding))


def test_usual_rates_become_the_fractions_they_stand_for() -> None:
    assert exact_fps(29.97) == Fraction(30000, 1001)
    assert exact_fps(23.976) == Fraction(24000, 1001)
    assert exact_fps(0.001) == Fraction(1, 1000), "near to none, but not none"
    assert exact_fps(16) == exact_fps(16.0) == Fraction(16)
    assert exact_fps(12.5) == Fraction(25, 2)
    for bad in (0, -1, 5000):
        with pytest.raises(InvalidInput, match="frames per second"):
            exact_fps(bad)


def test_keyframes_are_where_they_were_asked_for(tmp_path: Path) -> None:
    asked = {5, 12, 13, 37, 79}
    path = video(tmp_path / "a.mp4", 80, keyframes=frozenset(asked), preset="medium")
    keys = packet_table(path)[2]
    assert asked <= set(keys)
    assert max(np.diff([*keys, 80])) <= 16
    assert index_video(path).entry_points == tuple(keys), "every GOP is closed"


def test_colours_do_not_drift_over_five_generations(tmp_path: Path, samples: Path) -> None:
    first = list(read_frames(samples / "bbb_416x240_49f.mp4", 0, 5))
    frames = first
    for generation in range(5):
        write_video(tmp_path / f"{generation}.mp4", frames, fps=16, crf=8)
        frames = list(read_frames(tmp_path / f"{generation}.mp4"))
    shift = np.mean([a.astype(float) - b for a, b in zip(frames, first, strict=True)], axis=(0, 1, 2))
    assert np.abs(shift).max() < 0.3
    assert psnr(np.array(frames), np.array(first)) > 33


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (128, 128, 128), (255, 0, 0), (0, 255, 0), (0, 0, 255)])
def test_flat_colours_come_back(tmp_path: Path, colour: tuple[int, int, int]) -> None:
    write_video(tmp_path / "a.mp4", [np.full((32, 32, 3), colour, np.uint8)] * 3, fps=16)
    assert np.abs(read_frame(tmp_path / "a.mp4", 1).astype(int) - colour).max() <= 2


def test_ffv1_is_bit_exact(tmp_path: Path) -> None:
    frames = [np.random.default_rng(i).integers(0, 256, (33, 47, 3), dtype=np.uint8) for i in range(9)]
    info = write_video(tmp_path / "a.mkv", frames, fps=16, codec="ffv1")
    assert (info.num_frames, info.fps, info.codec, info.width, info.height) == (9, Fraction(16), "ffv1", 47, 33)
    assert all(np.array_equal(a, b) for a, b in zip(read_frames(tmp_path / "a.mkv"), frames, strict=True))
    assert np.array_equal(read_frame(tmp_path / "a.mkv", 5), frames[5])


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = video(tmp_path / "a.mp4", 4)
    before = path.read_bytes()
    with pytest.raises(ZeroDivisionError), VideoWriter(path, fps=16, size=(96, 64)) as writer:
        writer.write(numbered(0))
        _ = 1 // 0
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_nothing_shows_under_the_name_before_the_end(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", fps=16, size=(96, 64)) as writer:
        writer.write(numbered(0))
        assert not (tmp_path / "a.mp4").exists()
    assert probe_video(tmp_path / "a.mp4").num_frames == 1


def test_wrong_frames_are_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(InvalidInput, match="frame 1 is uint8 of shape"),
        VideoWriter(tmp_path / "a.mp4", fps=16, size=(96, 64)) as writer,
    ):
        writer.write(numbered(0))
        writer.write(numbered(0, (48, 64)))
    with pytest.raises(InvalidInput, match="float"):
        write_video(tmp_path / "a.mp4", [np.zeros((32, 32, 3))], fps=16)  # type: ignore[list-item]
    assert not list(tmp_path.iterdir())


def test_unusable_sizes_names_and_empty_videos_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="use 96x64"):
        VideoWriter(tmp_path / "a.mp4", fps=16, size=(97, 65))
    with pytest.raises(InvalidInput, match="at least 2"):
        VideoWriter(tmp_path / "a.mp4", fps=16, size=(0, 64))
    with pytest.raises(InvalidInput, match=r"\.mkv"):
        VideoWriter(tmp_path / "a.mp4", fps=16, size=(96, 64), codec="ffv1")
    with pytest.raises(InvalidInput, match="without frames"):
        write_video(tmp_path / "a.mp4", [], fps=16)
    with pytest.raises(InvalidInput, match="without frames"), VideoWriter(tmp_path / "a.mp4", fps=16, size=(96, 64)):
        pass
    assert not list(tmp_path.iterdir())


# reading


@pytest.mark.parametrize(
    ("start", "stop"), [(0, 1), (0, 50), (15, 17), (16, 32), (31, 33), (49, 50), (20, 20), (7, None)]
)
def test_ranges_are_exact(clip: Path, start: int, stop: int | None) -> None:
    expected = list(range(50))[start:stop]
    assert [number_of(frame) for frame in read_frames(clip, start, stop)] == expected


def test_every_single_frame_can_be_sought(clip: Path) -> None:
    assert [number_of(read_frame(clip, i)) for i in range(50)] == list(range(50))
    assert [number_of(read_frame(clip, i)) for i in (-1, -2, -50)] == [49, 48, 0]


def test_seeking_works_where_keyframes_crowd(tmp_path: Path) -> None:
    path = video(tmp_path / "a.mp4", 30, keyframes=frozenset({9, 10, 11, 13, 29}), preset="medium")
    assert [number_of(read_frame(path, i)) for i in range(30)] == list(range(30))


def test_sought_frames_are_the_streamed_frames(samples: Path) -> None:
    streamed = list(read_frames(samples / "bbb_832x480_81f.mp4"))
    assert len(streamed) == 81
    for i in (0, 40, 80):
        assert np.array_equal(read_frame(samples / "bbb_832x480_81f.mp4", i), streamed[i])


@pytest.mark.parametrize(("start", "stop"), [(-1, 5), (0, 51), (9, 8), (60, None)])
def test_ranges_outside_are_refused_at_once(clip: Path, start: int, stop: int | None) -> None:
    with pytest.raises(InvalidInput, match="it has 50 frames"):
        read_frames(clip, start, stop)


def test_a_frame_outside_is_refused(clip: Path) -> None:
    for index in (50, -51):
        with pytest.raises(InvalidInput, match="it has 50 frames"):
            read_frame(clip, index)


def test_reading_part_of_a_video_closes_it(clip: Path) -> None:
    frames = read_frames(clip)
    assert number_of(next(frames)) == 0
    del frames


@pytest.mark.parametrize("name", ["bbb_832x480_81f.mp4", "bbb_416x240_49f.mp4", "bbb_320x180_audio.mp4"])
def test_foreign_videos_are_probed(samples: Path, name: str) -> None:
    info = check_video(samples / name)
    assert f"{info.width}x{info.height}" in name
    assert info.num_frames == {"bbb_832x480_81f.mp4": 81, "bbb_416x240_49f.mp4": 49}.get(name, 50)
    assert info.fps == 25 and info.has_audio == ("audio" in name)


def test_a_turned_phone_video_stands_upright(tmp_path: Path, clip: Path) -> None:
    turned = tmp_path / "turned.mp4"
    run_ffmpeg("-display_rotation", "90", "-i", str(clip), "-c", "copy", str(turned))
    upright = tmp_path / "upright.mp4"
    run_ffmpeg("-i", str(turned), "-crf", "8", str(upright))
    assert (probe_video(turned).width, probe_video(turned).height) == (64, 96)
    assert (probe_video(upright).width, probe_video(upright).height) == (64, 96)
    assert psnr(read_frame(turned, 7), read_frame(upright, 7)) > 30


@pytest.mark.parametrize("suffix", ["avi", "mkv", "webm", "ts", "mov", "gif"])
def test_other_containers_count_right(tmp_path: Path, clip: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    run_ffmpeg("-i", str(clip), *(["-c:v", "mpeg4", "-q:v", "3"] if suffix == "avi" else []), str(path))
    assert probe_video(path).num_frames == 50
    frames = list(read_frames(path))
    assert len(frames) == 50
    assert np.array_equal(read_frame(path, 33), frames[33])
    if suffix != "gif":
        assert [number_of(frame) for frame in frames] == list(range(50))


def test_open_gops_are_read_exactly(tmp_path: Path, clip: Path) -> None:
    path = tmp_path / "open.mp4"
    run_ffmpeg("-i", str(clip), "-x264-params", "open-gop=1:keyint=12:bframes=3", str(path))
    assert [number_of(read_frame(path, i)) for i in range(0, 50, 3)] == list(range(0, 50, 3))


def run_ffmpeg(*arguments: str) -> None:
    command = [str(ffmpeg_path()), "-nostdin", "-loglevel", "error", "-y", *arguments]
    subprocess.run(command, check=True, timeout=60)


# bad files


def test_a_missing_video_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidMedia, match=r"nowhere\.mp4 does not exist"):
        probe_video(tmp_path / "nowhere.mp4")


def test_an_empty_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    with pytest.raises(InvalidMedia, match=r"a\.mp4 is empty \(0 bytes\)"):
        probe_video(tmp_path / "a.mp4")


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidMedia, match="is a directory"):
        probe_video(tmp_path)


@pytest.mark.parametrize("name", ["a.mp4", "a.txt", "a.nfo"])
def test_text_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("these are words\n" * 50)
    with pytest.raises(InvalidMedia, match=rf"{name} is not a video: it holds text"):
        probe_video(tmp_path / name)


def test_an_image_is_refused_as_a_video(samples: Path) -> None:
    with pytest.raises(InvalidMedia, match=r"camera\.jpg is not a video: it holds a JPEG image"):
        probe_video(samples / "camera.jpg")


def test_a_playlist_that_points_elsewhere_is_refused(tmp_path: Path, clip: Path) -> None:
    (tmp_path / "a.mp4").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{clip}\n#EXT-X-ENDLIST\n")
    with pytest.raises(InvalidMedia, match="not a video"):
        probe_video(tmp_path / "a.mp4")
    (tmp_path / "b.mp4").write_text(f"ffconcat version 1.0\nfile '{clip}'\n")
    with pytest.raises(InvalidMedia, match="not a video"):
        probe_video(tmp_path / "b.mp4")


def test_an_mp4_without_its_index_is_refused(tmp_path: Path, clip: Path) -> None:
    plain = tmp_path / "plain.mp4"
    run_ffmpeg("-i", str(clip), "-c", "copy", str(plain))
    data = plain.read_bytes()
    assert data.index(b"moov") > data.index(b"mdat")
    (tmp_path / "a.mp4").write_bytes(data[: len(data) // 2])
    with pytest.raises(InvalidMedia, match="cut off or damaged"):
        probe_video(tmp_path / "a.mp4")


@pytest.mark.parametrize("share", [0.15, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("reader", [probe_video, check_video, lambda path: list(read_frames(path))])
def test_a_truncated_mp4_is_refused(tmp_path: Path, clip: Path, share: float, reader: object) -> None:
    data = clip.read_bytes()
    (tmp_path / "a.mp4").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(InvalidMedia, match=r"a\.mp4 is (truncated|cut off)"):
        reader(tmp_path / "a.mp4")  # type: ignore[operator]


def test_an_mp4_cut_between_two_frames_is_refused(tmp_path: Path, clip: Path) -> None:
    with av.open(str(clip)) as container:
        ends = [p.pos + p.size for p in container.demux(video=0) if p.size and p.pos is not None]
    (tmp_path / "a.mp4").write_bytes(clip.read_bytes()[: ends[30]])
    with pytest.raises(InvalidMedia, match="ends after 31 of 50 frames"):
        probe_video(tmp_path / "a.mp4")


def test_damage_in_the_last_gop_is_found(tmp_path: Path, clip: Path) -> None:
    data = bytearray(clip.read_bytes())
    data[-400:] = bytes(400)
    (tmp_path / "a.mp4").write_bytes(data)
    with pytest.raises(InvalidMedia, match="damaged"):
        check_video(tmp_path / "a.mp4")


def test_sound_alone_is_no_video(tmp_path: Path, samples: Path) -> None:
    run_ffmpeg("-i", str(samples / "bbb_320x180_audio.mp4"), "-vn", "-c", "copy", str(tmp_path / "a.mp4"))
    with pytest.raises(InvalidMedia, match="no video stream"):
        probe_video(tmp_path / "a.mp4")


# sound and copying


def test_sound_is_laid_under_a_video_without_touching_it(tmp_path: Path, samples: Path, clip: Path) -> None:
    out = mux_audio(clip, samples / "bbb_320x180_audio.mp4", tmp_path / "out.mp4")
    info = probe_video(out)
    assert info.has_audio
    assert info.num_frames == probe_video(clip).num_frames, "shorter sound cuts no picture"
    for made, source in zip(read_frames(out), read_frames(clip), strict=True):
        assert np.array_equal(made, source)


def test_sound_from_a_file_that_has_none_is_refused(tmp_path: Path, clip: Path) -> None:
    with pytest.raises(InvalidMedia, match="cannot put the sound"):
        mux_audio(clip, clip, tmp_path / "out.mp4")
    assert not list(tmp_path.iterdir())


def test_whole_gops_are_joined_without_a_change(tmp_path: Path, clip: Path) -> None:
    index = index_video(clip)
    ranges = [PacketRange(index, 16, 32), PacketRange(index, 0, 16), PacketRange(index, 48, 50)]
    assert concat_copy(ranges, tmp_path / "out.mp4") == 34
    made = list(read_frames(tmp_path / "out.mp4"))
    source = list(read_frames(clip))
    expected = source[16:32] + source[:16] + source[48:]
    assert all(np.array_equal(a, b) for a, b in zip(made, expected, strict=True))
    joined = index_video(tmp_path / "out.mp4")
    assert joined.has_constant_rate and joined.info.fps == 16 and joined.pts[0] == 0
    boxes = top_boxes(tmp_path / "out.mp4")
    assert boxes.index("moov") < boxes.index("mdat")


def test_half_gops_cannot_be_copied(clip: Path) -> None:
    with pytest.raises(InvalidInput, match="not whole GOPs"):
        PacketRange(index_video(clip), 3, 16)


def test_any_frame_of_an_open_gop_video_can_be_read(tmp_path: Path, clip: Path) -> None:
    path = tmp_path / "open.mp4"
    run_ffmpeg("-i", str(clip), "-x264-params", "open-gop=1:bframes=5:keyint=6:scenecut=0", "-crf", "10", str(path))
    num_frames = check_video(path).num_frames
    assert [number_of(read_frame(path, index)) for index in range(num_frames)] == list(range(num_frames))
