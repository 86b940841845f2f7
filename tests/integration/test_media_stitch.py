"""Cutting and stitching real clips: exact counts, untouched copies, right blends, bounded memory."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from splicing import cut, stitch

from source.errors import GenerationCancelled, InvalidInput, InvalidMedia
from source.media.analysis import difference_profile
from source.media.clips import Clip
from source.media.crossfade import weights
from source.media.splice import Span, sections_of
from Wan2GP.media import (
    Frame,
    ffmpeg_path,
    index_video,
    probe_video,
    read_frames,
    write_video,
)

SIZE = (96, 64)

#: an encoding whose packets cannot be copied beside ours
MPEG4 = ("-c:v", "mpeg4", "-q:v", "2")


def moving(number: int, size: tuple[int, int] = SIZE) -> Frame:
    """A texture that moves a little every frame; frames far apart look alike only by chance."""
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    red = 128 + 70 * np.sin((x + 3 * number) / 11)
    green = 128 + 70 * np.cos((y + 2 * number) / 13)
    blue = 128 + 70 * np.sin((x + y - 2 * number) / 17)
    return np.stack([red, green, blue], axis=-1).astype(np.uint8)


def clip(path: Path, num_frames: int, first: int = 0, size: tuple[int, int] = SIZE, **options: object) -> Path:
    frames = (moving(first + i, size) for i in range(num_frames))
    write_video(path, frames, **({"fps": 16} | options))  # type: ignore[arg-type]
    return path


def foreign(path: Path, source: Path, *arguments: str) -> Path:
    """The same pictures from another encoder's hand."""
    command = [str(ffmpeg_path()), "-nostdin", "-loglevel", "error", "-y", "-i", str(source), *arguments, str(path)]
    subprocess.run(command, check=True, timeout=60)
    return path


def yuv(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray() for frame in container.decode(video=0)]


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(float(np.mean((a.astype(float) - b) ** 2)), 1e-9)))


def expected(clips: Sequence[Sequence[np.ndarray]], overlaps: Sequence[int]) -> list[np.ndarray]:
    """The whole result computed the plain way: everything in memory, floating point."""
    out = list(clips[0])
    for following, overlap in zip(clips[1:], overlaps, strict=True):
        alphas = weights(overlap, "ease")
        tail = out[len(out) - overlap :]
        mixed = [(1 - a) * x + a * y.astype(float) for x, y, a in zip(tail, following, alphas, strict=False)]
        out = out[: len(out) - overlap] + mixed + list(following[overlap:])
    return out


def keyframes(path: Path) -> list[int]:
    return list(index_video(path).entry_points)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four clips of different lengths whose pictures run on from one to the next."""
    folder = tmp_path_factory.mktemp("clips")
    return [clip(folder / f"{i}.mp4", n, first=i * 40) for i, n in enumerate([49, 33, 21, 64])]


LENGTHS = [49, 33, 21, 64]


@pytest.mark.parametrize(
    ("count", "overlaps"),
    [
        (1, []),
        (2, [0]),
        (2, [1]),
        (2, [12]),
        (2, [16]),
        (2, [33]),
        (3, [0, 0]),
        (3, [12, 8]),
        (3, [5, 16]),
        (3, [12, 21]),
        (4, [0, 4, 7]),
        (4, [16, 10, 11]),
        (4, [33, 0, 21]),
    ],
)
def test_lengths_are_exact_and_pictures_right(
    tmp_path: Path, clips: list[Path], count: int, overlaps: list[int]
) -> None:
    out = tmp_path / "out.mp4"
    report = stitch(clips[:count], overlaps, out)
    total = sum(LENGTHS[:count]) - sum(overlaps)
    info = probe_video(out)
    assert (report.num_frames, info.num_frames) == (total, total)
    assert report.copied_frames + report.encoded_frames == total
    assert (info.width, info.height, info.fps, info.pix_fmt, info.codec) == (*SIZE, 16, "yuv420p", "h264")
    wanted = expected([yuv(path) for path in clips[:count]], overlaps)
    made = yuv(out)
    assert len(made) == len(wanted) == total
    assert min(psnr(a, b) for a, b in zip(made, wanted, strict=True)) > 36
    assert index_video(out).has_constant_rate
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]


def test_frames_outside_the_overlap_gops_are_untouched(tmp_path: Path, clips: list[Path]) -> None:
    report = stitch(clips[:2], [12], tmp_path / "out.mp4")
    assert report.method == "smart"
    first, second, made = yuv(clips[0]), yuv(clips[1]), yuv(tmp_path / "out.mp4")
    kept_until = index_video(clips[0]).last_close(0, 49 - 12)
    assert 49 - 12 - 4 < kept_until <= 49 - 12, "a GOP is copied up to the last frame that needs none after it"
    kept_from = min(k for k in keyframes(clips[1]) if k >= 12)
    assert all(np.array_equal(a, b) for a, b in zip(made[:kept_until], first, strict=False))
    assert all(np.array_equal(a, b) for a, b in zip(made[49 - 12 + kept_from :], second[kept_from:], strict=True))
    assert report.copied_frames == kept_until + 33 - kept_from


def test_keyframes_at_the_overlap_leave_only_the_blend_to_encode(tmp_path: Path) -> None:
    a = clip(tmp_path / "a.mp4", 49, keyframes=frozenset({37}))
    b = clip(tmp_path / "b.mp4", 49, first=37, keyframes=frozenset({12}))
    report = stitch([a, b], [12], tmp_path / "out.mp4")
    assert (report.method, report.copied_frames, report.encoded_frames) == ("smart", 37 + 37, 12)
    first, second, made = yuv(a), yuv(b), yuv(tmp_path / "out.mp4")
    assert all(np.array_equal(x, y) for x, y in zip(made, first[:37], strict=False))
    assert all(np.array_equal(x, y) for x, y in zip(made[49:], second[12:], strict=True))
    assert {0, 37, 49} <= set(keyframes(tmp_path / "out.mp4"))


def test_without_overlaps_nothing_is_encoded(tmp_path: Path, clips: list[Path]) -> None:
    report = stitch(clips, [0, 0, 0], tmp_path / "out.mp4")
    assert (report.method, report.encoded_frames) == ("copy", 0)
    sources = itertools.chain.from_iterable(yuv(path) for path in clips)
    assert all(np.array_equal(a, b) for a, b in zip(yuv(tmp_path / "out.mp4"), sources, strict=True))


def test_a_stitched_video_can_be_stitched_again_by_copying(tmp_path: Path, clips: list[Path]) -> None:
    stitch(clips[:2], [12], tmp_path / "once.mp4")
    report = stitch([tmp_path / "once.mp4", clips[3]], [8], tmp_path / "twice.mp4")
    assert report.method == "smart"
    assert probe_video(tmp_path / "twice.mp4").num_frames == 49 + 33 - 12 + 64 - 8


def test_no_frame_is_repeated_or_dropped_at_joins(tmp_path: Path) -> None:
    parts = [clip(tmp_path / f"{i}.mp4", 49, first=i * 37) for i in range(3)]
    stitch(parts, [12, 12], tmp_path / "out.mp4")
    profile = difference_profile(tmp_path / "out.mp4")
    assert len(profile) == 49 * 3 - 24 - 1
    assert profile.min() > 0.6 * np.median(profile), "a repeated frame"
    assert profile.max() < 1.5 * np.median(profile), "a dropped frame"


def test_the_result_starts_at_zero_with_its_index_in_front(tmp_path: Path, clips: list[Path]) -> None:
    out = tmp_path / "out.mp4"
    stitch(clips[:3], [12, 5], out)
    data = out.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    with av.open(str(out)) as container:
        packets = [(p.pts, p.dts) for p in container.demux(video=0) if p.size]
    decoding = [dts for _, dts in packets]
    assert decoding == sorted(set(decoding))
    assert all(pts >= dts for pts, dts in packets)
    assert min(pts for pts, _ in packets) == 0


def test_the_result_decodes_in_another_decoder_without_complaint(tmp_path: Path, clips: list[Path]) -> None:
    out = tmp_path / "out.mp4"
    stitch(clips, [12, 5, 6], out)
    command = [str(ffmpeg_path()), "-nostdin", "-v", "warning", "-xerror", "-i", str(out), "-f", "null", "-"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""


def test_clips_of_one_and_two_frames_join_like_any_other(tmp_path: Path) -> None:
    paths = [clip(tmp_path / f"{i}.mp4", n, first=20 * i) for i, n in enumerate([1, 33, 1, 2, 40])]
    report = stitch(paths, [0, 1, 0, 1], out := tmp_path / "out.mp4")
    assert (report.method, report.num_frames) == ("copy", 75), "a fade of one frame shows the second clip's alone"
    assert index_video(out).has_constant_rate
    wanted = expected([yuv(path) for path in paths], [0, 1, 0, 1])
    assert min(psnr(a, b) for a, b in zip(yuv(out), wanted, strict=True)) > 36


def test_foreign_clips_are_streamed_with_the_same_exactness(tmp_path: Path, clips: list[Path]) -> None:
    others = [foreign(tmp_path / f"f{i}.mp4", path, *MPEG4) for i, path in enumerate(clips[:3])]
    report = stitch(others, [12, 8], tmp_path / "out.mp4")
    assert (report.method, report.copied_frames, report.num_frames) == ("stream", 0, 49 + 33 + 21 - 20)
    wanted = expected([list(read_frames(path)) for path in others], [12, 8])
    made = list(read_frames(tmp_path / "out.mp4"))
    assert len(made) == len(wanted)
    assert min(psnr(a, b) for a, b in zip(made, wanted, strict=True)) > 32


def test_a_clip_of_another_codec_is_encoded_and_the_rest_copied(tmp_path: Path, clips: list[Path]) -> None:
    other = foreign(tmp_path / "f.mp4", clips[1], *MPEG4)
    report = stitch([clips[0], other], [16], tmp_path / "out.mp4")
    assert (report.method, report.copied_frames) == ("smart", index_video(clips[0]).last_close(0, 33))
    made = yuv(tmp_path / "out.mp4")
    assert len(made) == 49 + 33 - 16
    assert all(np.array_equal(a, b) for a, b in zip(made[: report.copied_frames], yuv(clips[0]), strict=False))
    assert min(psnr(a, b) for a, b in zip(made[49:], yuv(clips[1])[16:], strict=True)) > 30


def test_the_first_clip_sets_size_and_rate(tmp_path: Path, clips: list[Path]) -> None:
    big = clip(tmp_path / "big.mp4", 20, size=(192, 128), fps=24)
    report = stitch([clips[0], big], [6], tmp_path / "out.mp4")
    info = probe_video(tmp_path / "out.mp4")
    assert (info.width, info.height, info.fps, info.num_frames) == (*SIZE, 16, 63)
    assert report.method == "smart"
    last = list(read_frames(tmp_path / "out.mp4"))[-1]
    small = cv2.resize(moving(19, (192, 128)), SIZE, interpolation=cv2.INTER_AREA)
    assert psnr(last, small) > 30


def test_real_footage_keeps_its_colours(tmp_path: Path, samples: Path) -> None:
    source = samples / "bbb_416x240_49f.mp4"
    report = stitch([source, source], [12], tmp_path / "out.mp4")
    before = list(read_frames(source, 0, 10))
    after = list(read_frames(tmp_path / "out.mp4", 0, 10))
    assert report.num_frames == 2 * probe_video(source).num_frames - 12
    shift = np.mean([a.astype(float) - b for a, b in zip(after, before, strict=True)], axis=(0, 1, 2))
    assert np.abs(shift).max() < 0.6
    assert min(psnr(a, b) for a, b in zip(after, before, strict=True)) > 34


@pytest.mark.parametrize("mode", ["equal_power", "linear", "linear_sharp"])
def test_other_fades_keep_the_count_and_end_on_the_second_clip(tmp_path: Path, clips: list[Path], mode: str) -> None:
    report = stitch(clips[:2], [12], tmp_path / "out.mp4", mode=mode, sharp_amount=0.0)  # type: ignore[arg-type]
    assert report.num_frames == 49 + 33 - 12
    assert psnr(yuv(tmp_path / "out.mp4")[48], yuv(clips[1])[11]) > 38


def test_damage_in_a_clip_is_named_and_leaves_nothing(tmp_path: Path, clips: list[Path]) -> None:
    data = bytearray(clips[1].read_bytes())
    data[-300:] = bytes(300)
    (tmp_path / "bad.mp4").write_bytes(data)
    with pytest.raises(InvalidMedia, match=r"bad\.mp4"):
        stitch([clips[0], tmp_path / "bad.mp4", clips[2]], [4, 4], tmp_path / "out.mp4")
    assert [p.name for p in tmp_path.iterdir()] == ["bad.mp4"]


@pytest.mark.parametrize(
    ("count", "overlaps", "message"),
    [
        (2, [-1], r"33 frames are too few to fade over -1 and 0|49 frames are too few to fade over 0 and -1"),
        (2, [34], r"1\.mp4: 33 frames are too few to fade over 34 and 0"),
        (3, [20, 14], r"1\.mp4: 33 frames are too few to fade over 20 and 14"),
    ],
)
def test_overlaps_that_do_not_fit_are_refused_before_writing(
    tmp_path: Path, clips: list[Path], count: int, overlaps: list[int], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        stitch(clips[:count], overlaps, tmp_path / "out.mp4")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("method", ["smart", "stream"])
def test_progress_counts_every_frame_up_to_the_total(tmp_path: Path, clips: list[Path], method: str) -> None:
    pair = clips[:2]
    if method == "stream":
        pair = [foreign(tmp_path / f"f{i}.mp4", path, *MPEG4) for i, path in enumerate(pair)]
    seen: list[tuple[int, int]] = []
    report = stitch(pair, [12], tmp_path / "out.mp4", progress=lambda *step: seen.append(step))
    assert report.method == method
    assert seen == sorted(seen) and seen[-1] == (70, 70)


def test_cancelling_stops_and_leaves_nothing(tmp_path: Path, clips: list[Path]) -> None:
    asked = itertools.count()
    with pytest.raises(GenerationCancelled, match="of 70 frames"):
        stitch(clips[:2], [12], tmp_path / "out.mp4", cancelled=lambda: next(asked) >= 5)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("start", "stop"), [(0, 49), (0, 16), (16, 32), (3, 47), (5, 9), (16, 49), (48, 49), (1, 49)])
def test_cuts_are_exact(tmp_path: Path, clips: list[Path], start: int, stop: int) -> None:
    report = cut(clips[0], start, stop, tmp_path / "out.mp4")
    made, source = yuv(tmp_path / "out.mp4"), yuv(clips[0])[start:stop]
    assert report.num_frames == len(made) == stop - start
    assert min(psnr(a, b) for a, b in zip(made, source, strict=True)) > 38
    begin = next((k for k in keyframes(clips[0]) if start <= k < stop), stop)
    end = index_video(clips[0]).last_close(begin, stop)
    assert report.copied_frames == end - begin
    if end > begin:
        inside = slice(begin - start, end - start)
        assert all(np.array_equal(a, b) for a, b in zip(made[inside], source[inside], strict=True))


@pytest.mark.parametrize(("start", "stop"), [(0, 25), (7, 8), (13, 50)])
def test_cuts_of_foreign_videos_are_exact(tmp_path: Path, samples: Path, start: int, stop: int) -> None:
    source = samples / "bbb_320x180_audio.mp4"
    report = cut(source, start, stop, tmp_path / "out.mp4")
    made = list(read_frames(tmp_path / "out.mp4"))
    assert report.num_frames == len(made) == stop - start
    for a, b in zip(made, read_frames(source, start, stop), strict=True):
        assert psnr(a, b) > 32


@pytest.mark.parametrize(("start", "stop"), [(5, 5), (-1, 4), (0, 50), (9, 3)])
def test_impossible_cuts_are_refused(tmp_path: Path, clips: list[Path], start: int, stop: int) -> None:
    with pytest.raises(InvalidInput, match="it has 49 frames"):
        cut(clips[0], start, stop, tmp_path / "out.mp4")
    assert not list(tmp_path.iterdir())


def test_sections_cover_every_frame_once(clips: list[Path]) -> None:
    seen = Clip.open(clips[0])
    for start, stop in itertools.combinations(range(0, 50, 3), 2):
        spans = [section.pieces for section in sections_of([Span(seen, start, stop)], [seen])]
        flat = [frame for (span,) in spans if isinstance(span, Span) for frame in range(span.start, span.stop)]
        assert flat == list(range(start, stop))


MEASURE = """
import re, sys
from pathlib import Path
sys.path.insert(0, "..")
from splicing import stitch

def peak_mb():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

folder, short, clips = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
stitch([short, short], [8], folder / "warm.mp4")
before = peak_mb()
report = stitch(clips, [8] * (len(clips) - 1), folder / "long.mp4")
print(report.method, report.num_frames, peak_mb() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("method", ["smart", "stream"])
def test_memory_does_not_grow_with_length(tmp_path: Path, root: Path, method: str) -> None:
    """900 frames of 416x240 are 270 MB as RGB; beyond the peak of a short stitch a long one adds next to nothing."""
    short = clip(tmp_path / "short.mp4", 60, size=(416, 240))
    clips = [short] * 17
    if method == "stream":
        short = foreign(tmp_path / "foreign.mp4", short, *MPEG4)
        clips = [foreign(tmp_path / "long.mp4", short, "-vf", "loop=7:size=60", *MPEG4)] * 2
    command = [sys.executable, "-c", MEASURE, str(tmp_path), str(short), *map(str, clips)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root / "tests", timeout=170, check=True)
    used, num_frames, grown_mb = done.stdout.split()
    assert used == method
    assert int(num_frames) > 850
    assert float(grown_mb) < 40


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("way", ["smart", "stream"])
def test_a_720p_stitch_takes_as_much_memory_for_a_minute_as_for_ten_seconds(root: Path, way: str) -> None:
    """By the benchmark: at most 300 MB above the imports, both lengths within 10 %. The stream of a minute took 178 s
    on two busy cores, so these have more room than others."""
    command = [sys.executable, "benchmarks/stitch_memory.py", "--json", "--ways", way]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=1100, check=True)
    short, long = (run["grown_mb"] for run in json.loads(done.stdout)["runs"])
    assert max(short, long) <= 300
    assert abs(long - short) <= 0.10 * max(short, long)
