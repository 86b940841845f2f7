"""Clips as views: other rates, crops and sizes, frame by frame and without a file in between."""

from __future__ import annotations

import math
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from source.errors import InvalidInput, InvalidMedia
from source.media.clips import Clip
from Wan2GP.media import Frame, Signalling, VideoWriter, ffmpeg_path, read_frames, resize, write_video

SIZE = (96, 64)


def grey(number: int, size: tuple[int, int] = SIZE) -> Frame:
    """A frame whose brightness is its number."""
    return np.full((size[1], size[0], 3), 20 + 4 * number, np.uint8)


def number_of(frame: np.ndarray) -> int:
    return round((float(frame.mean()) - 20) / 4)


def clip(path: Path, num_frames: int, fps: Fraction | float = 16, size: tuple[int, int] = SIZE) -> Path:
    write_video(path, (grey(i, size) for i in range(num_frames)), fps=fps)
    return path


def foreign(path: Path, source: Path, *arguments: str) -> Path:
    command = [str(ffmpeg_path()), "-nostdin", "-loglevel", "error", "-y", "-i", str(source), *arguments, str(path)]
    subprocess.run(command, check=True, timeout=60)
    return path


def mean_colour(frame: np.ndarray) -> np.ndarray:
    return np.asarray(frame.mean(axis=(0, 1)))


def test_a_view_of_a_file_as_it_is_shows_its_very_frames(tmp_path: Path) -> None:
    seen = Clip.open(clip(tmp_path / "a.mp4", 30))
    assert (seen.num_frames, seen.fps, seen.size, seen.is_plain, seen.has_audio) == (30, 16, SIZE, True, False)
    assert [number_of(frame) for frame in seen.frames()] == list(range(30))
    for frame, wanted in zip(seen.frames(5, 9), read_frames(tmp_path / "a.mp4", 5, 9), strict=True):
        assert np.array_equal(frame, wanted)


@pytest.mark.parametrize(
    ("fps", "num_frames"),
    [(8, 20), (24, 60), (32, 80), (Fraction(30000, 1001), 75), (12.5, 31), (1, 3)],
)
def test_at_another_rate_each_frame_is_the_nearest_in_time(tmp_path: Path, fps: float, num_frames: int) -> None:
    seen = Clip.open(clip(tmp_path / "a.mp4", 40), fps=fps)
    assert (seen.num_frames, seen.is_plain) == (num_frames, False)
    shown = [number_of(frame) for frame in seen.frames()]
    assert shown == [seen.source_frame(k) for k in range(num_frames)]
    for k, source in enumerate(shown):
        assert abs(Fraction(source, 16) - k / seen.fps) <= Fraction(1, 32) or source == 39, (k, source)
    part = range(1, num_frames)
    assert [number_of(frame) for frame in seen.frames(part.start, part.stop)] == [shown[k] for k in part]
    planes = list(seen.planes(part.start, part.stop))
    assert len(planes) == len(part) and planes[0].shape == (SIZE[1] * 3 // 2, SIZE[0])


@pytest.mark.parametrize("fps", [15.6, 16.5, 16])
def test_a_rate_close_to_its_own_keeps_the_frames_one_for_one(tmp_path: Path, fps: float) -> None:
    seen = Clip.open(clip(tmp_path / "a.mp4", 40), fps=fps)
    assert [seen.source_frame(k) for k in range(seen.num_frames)] == list(range(40))
    exact = Clip.open(tmp_path / "a.mp4", fps=15.6, fps_tolerance=0.01)
    assert exact.num_frames == 39
    assert Clip.open(tmp_path / "a.mp4", fps=48, fps_tolerance=math.inf).num_frames == 40


def test_a_file_of_varying_rate_is_read_by_time(tmp_path: Path) -> None:
    source = clip(tmp_path / "a.mp4", 40)
    holes = foreign(tmp_path / "v.mp4", source, "-vf", "select='not(between(n,8,23))'", "-fps_mode", "vfr", "-crf", "5")
    seen = Clip.open(holes, fps=10)
    shown = [number_of(frame) for frame in seen.frames()]
    for k, number in enumerate(shown[:24]):
        assert abs(number - k * 1.6) <= (8.5 if 4 < k < 16 else 0.9), (k, number)


def test_a_frame_picked_by_time_never_comes_before_the_last(tmp_path: Path) -> None:
    seen = Clip.open(clip(tmp_path / "a.mp4", 50, fps=Fraction(24000, 1001)), fps=23, fps_tolerance=0.1)
    sources = [seen.source_frame(k) for k in range(seen.num_frames)]
    assert sources == sorted(set(sources)) and sources[0] == 0


@pytest.mark.parametrize(
    ("aspect", "size"),
    [(Fraction(1), (64, 64)), (Fraction(16, 9), (96, 54)), (Fraction(9, 16), (36, 64)), (Fraction(3, 2), SIZE)],
)
def test_the_crop_is_centred_even_and_undistorted(tmp_path: Path, aspect: Fraction, size: tuple[int, int]) -> None:
    x, y = np.meshgrid(np.arange(96), np.arange(64))
    picture = np.stack([2 * x + 20, 3 * y + 20, 0 * x + 90], axis=-1).astype(np.uint8)
    write_video(tmp_path / "a.mp4", [picture] * 3, fps=16, crf=5)
    seen = Clip.open(tmp_path / "a.mp4", aspect=aspect)
    assert seen.size == size and seen.is_plain == (size == SIZE)
    left, top = (96 - size[0]) // 4 * 2, (64 - size[1]) // 4 * 2
    wanted = picture[top : top + size[1], left : left + size[0]]
    frame = next(seen.frames(0, 1))
    assert np.abs(frame.astype(float) - wanted).mean() < 2
    big = Clip.open(tmp_path / "a.mp4", aspect=aspect, size=(192, 128))
    assert np.abs(next(big.frames(0, 1)).astype(float) - resize(wanted, (192, 128))).mean() < 3
    assert next(big.planes(0, 1)).shape == (192, 192)


def test_planes_and_pictures_of_a_crop_show_the_same(tmp_path: Path, samples: Path) -> None:
    seen = Clip.open(samples / "bbb_416x240_49f.mp4", aspect=Fraction(4, 3), size=(160, 120))
    write_planes = tmp_path / "planes.mp4"
    with VideoWriter(write_planes, fps=25, size=(160, 120), crf=4) as writer:
        for planes in seen.planes(0, 5):
            writer.write_planes(planes)
    for made, wanted in zip(read_frames(write_planes), seen.frames(0, 5), strict=True):
        assert np.abs(mean_colour(made) - mean_colour(wanted)).max() < 1


def test_planes_follow_the_colours_they_are_asked_for(samples: Path) -> None:
    """The sample does not say its matrix: in its own terms nothing changes, in BT.709 the numbers do."""
    seen = Clip.open(samples / "bbb_416x240_49f.mp4")
    own, ours = next(seen.planes(0, 1, Signalling(2, 2, 2))), next(seen.planes(0, 1))
    assert seen.index.encoding.signalling.matrix == 2
    assert not np.array_equal(own, ours)


@pytest.mark.parametrize("num_frames", [1, 2, 3, 9])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_short_file_keeps_its_rate(tmp_path: Path, suffix: str, num_frames: int) -> None:
    path = tmp_path / f"a{suffix}"
    codec = "ffv1" if suffix == ".mkv" else "libx264"
    write_video(path, (grey(k) for k in range(num_frames)), fps=16, codec=codec)  # type: ignore[arg-type]
    seen = Clip.open(path)
    assert (seen.fps, seen.num_frames) == (16, num_frames)
    assert [number_of(frame) for frame in seen.frames()] == list(range(num_frames))


def test_a_last_frame_that_lasts_longer_does_not_change_the_rate(tmp_path: Path) -> None:
    """As many tools write it, so that the pictures end with the sound."""
    with (
        av.open(str(foreign(tmp_path / "a.mp4", clip(tmp_path / "c.mp4", 20), "-bf", "0"))) as source,
        av.open(str(tmp_path / "b.mp4"), "w") as container,
    ):
        stream = container.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(packet for packet in source.demux(video=0) if packet.size):
            packet.duration *= 3 if number == 19 else 1
            packet.stream = stream
            container.mux(packet)
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert container.streams.video[0].average_rate != 16
    seen = Clip.open(tmp_path / "b.mp4")
    assert (seen.fps, seen.index.has_constant_rate) == (16, True)


def test_odd_sides_lose_a_row_instead_of_being_stretched(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mkv", [grey(3, (97, 65))] * 2, fps=16, codec="ffv1")
    seen = Clip.open(tmp_path / "a.mkv")
    assert seen.size == (96, 64) and not seen.is_plain
    assert number_of(next(seen.frames())) == 3
    assert next(seen.planes(0, 1)).shape == (96, 96)


def test_a_turned_phone_video_is_cropped_as_it_stands(tmp_path: Path) -> None:
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:, :48] = (200, 40, 40)
    write_video(tmp_path / "a.mp4", [picture] * 2, fps=16, crf=5)
    command = ["-nostdin", "-loglevel", "error", "-y", "-display_rotation", "90", "-i", str(tmp_path / "a.mp4")]
    subprocess.run([str(ffmpeg_path()), *command, "-c", "copy", str(tmp_path / "t.mp4")], check=True)
    seen = Clip.open(tmp_path / "t.mp4", aspect=Fraction(1))
    assert seen.size == (64, 64) and not seen.is_plain
    frame = next(seen.frames(0, 1))
    reddest = [frame[:20].mean(axis=(0, 1))[0], frame[-20:].mean(axis=(0, 1))[0]]
    assert abs(reddest[0] - reddest[1]) > 150
    assert next(seen.planes(0, 1)).shape == (96, 64)


def test_the_sound_of_a_view_keeps_step_with_its_frames(samples: Path) -> None:
    path = samples / "bbb_320x180_audio.mp4"
    own = Clip.open(path).sound(10, 20, 3)
    assert own is not None and (own.start_s, own.stop_s, own.at_s, own.speed) == (0.4, 0.8, 3.0, 1)
    kept = Clip.open(path, fps=25.4).sound(10, 20, 3)
    assert kept is not None and (kept.start_s, kept.stop_s, kept.speed) == (0.4, 0.8, Fraction(254, 250))
    timed = Clip.open(path, fps=16).sound(8, 16, 3, fade_in_s=0.1)
    assert timed is not None and (timed.start_s, timed.stop_s, timed.speed) == (0.5, 1.0, 1)
    assert Clip.open(samples / "bbb_416x240_49f.mp4").sound(0, 5, 0) is None


def test_what_cannot_be_shown_is_refused(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4", 10)
    for size in ((95, 64), (96, 0)):
        with pytest.raises(InvalidInput, match="both sides must be even"):
            Clip.open(path, size=size)
    with pytest.raises(InvalidInput, match="cannot have the shape"):
        Clip.open(path, aspect=Fraction(0))
    with pytest.raises(InvalidInput, match="nothing is left"):
        Clip.open(path, aspect=Fraction(1000))
    with pytest.raises(InvalidInput, match="frames 4 to 11 do not exist"):
        Clip.open(path).frames(4, 11)
    with pytest.raises(InvalidInput, match="do not exist"):
        Clip.open(path, fps=32).source_frame(20)
    with pytest.raises(InvalidMedia, match="does not exist"):
        Clip.open(tmp_path / "none.mp4")
