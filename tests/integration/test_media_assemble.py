"""Assembling parts of clips from several encoders: untouched copies, right fades, no step in colour, exact lengths."""

from __future__ import annotations

import hashlib
import itertools
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from splicing import stitch

from source.errors import GenerationCancelled, InvalidInput, InvalidMedia
from source.media.assemble import Part, assemble
from source.media.clips import Clip
from source.media.crossfade import Crossfade, weights
from source.media.soundtrack import SoundPiece
from source.media.splice import SpliceReport
from Wan2GP.media import Frame, decode, ffmpeg_path, index_video, probe_video, read_frames, read_sound, write_video

SIZE = (96, 64)
FPS = Fraction(16)

#: the same pictures as our writer's, said to be BT.709, by encoders that agree on little else
BT709 = ("-vf", "setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709")
ENCODERS = {
    "ours": (),
    "main": ("-profile:v", "main", "-preset", "ultrafast", *BT709),
    "baseline": ("-profile:v", "baseline", "-g", "12", *BT709),
    "deep": ("-preset", "veryslow", "-bf", "8", "-refs", "6", "-g", "24", *BT709),
    "cavlc": ("-x264-params", "cabac=0:no-8x8dct=1:keyint=10", *BT709),
    "open_gops": ("-x264-params", "open-gop=1:keyint=12:bframes=3:scenecut=0", *BT709),
}


def moving(number: int, size: tuple[int, int] = SIZE) -> Frame:
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    red = 150 + 70 * np.sin((x + 3 * number) / 11)
    green = 90 + 50 * np.cos((y + 2 * number) / 13)
    blue = 60 + 50 * np.sin((x + y - 2 * number) / 17)
    return np.stack([red, green, blue], axis=-1).astype(np.uint8)


def clip(path: Path, num_frames: int, first: int = 0, size: tuple[int, int] = SIZE, fps: float = 16) -> Path:
    write_video(path, (moving(first + i, size) for i in range(num_frames)), fps=fps, crf=12)
    return path


def ffmpeg(*arguments: str | Path) -> str:
    command = [str(ffmpeg_path()), "-nostdin", "-loglevel", "error", "-y", *map(str, arguments)]
    done = subprocess.run(command, check=True, timeout=60, capture_output=True, text=True)
    assert not done.stderr, done.stderr
    return done.stdout


def hashes(path: Path) -> list[str]:
    """The decoded planes of every frame, by PyAV."""
    with av.open(str(path)) as container:
        return [hashlib.md5(frame.to_ndarray().tobytes()).hexdigest() for frame in container.decode(video=0)]


def program_hashes(path: Path, *options: str) -> list[str]:
    """The same by the ffmpeg program; the numbers are its own."""
    lines = ffmpeg(*options, "-i", path, "-map", "0:v", "-f", "framemd5", "-").splitlines()
    return [line.split(",")[-1].strip() for line in lines if not line.startswith("#")]


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(float(np.mean((a.astype(float) - b) ** 2)), 1e-9)))


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """49 frames by each encoder."""
    folder = tmp_path_factory.mktemp("encoded")
    paths = {name: folder / f"{name}.mp4" for name in ENCODERS}
    clip(paths["ours"], 49)
    for name, arguments in ENCODERS.items():
        if arguments:
            ffmpeg("-i", paths["ours"], *arguments, paths[name])
    return paths


def joined(paths: list[Path], output: Path, fade: int = 0) -> SpliceReport:
    """Whole clips one after another, by their own size and rate."""
    views = [Clip.open(path) for path in paths]
    parts = [Part(view, 0, view.num_frames, fade if number else 0) for number, view in enumerate(views)]
    return assemble(parts, output, size=views[0].size, fps=views[0].fps)


ORDERS = [
    ("ours", "main", "baseline", "deep", "cavlc"),
    ("deep", "baseline", "ours", "cavlc", "main"),
    ("baseline", "deep", "main", "open_gops", "ours"),
    ("cavlc", "ours", "deep", "main", "baseline"),
]


@pytest.mark.parametrize("order", ORDERS)
def test_clips_of_several_encoders_are_copied_untouched(
    tmp_path: Path, encoded: dict[str, Path], order: tuple[str, ...]
) -> None:
    """Cut inside GOPs at their ends, too: every frame decodes to its original's, in PyAV and in the ffmpeg program."""
    out, parts, wanted, program_wanted = tmp_path / "out.mp4", [], [], []
    for number, name in enumerate(order):
        view = Clip.open(encoded[name])
        stop = view.index.last_close(0, 49 - 3 * number)
        parts.append(Part(view, 0, stop))
        wanted += hashes(encoded[name])[:stop]
        program_wanted += program_hashes(encoded[name])[:stop]
    report = assemble(parts, out, size=SIZE, fps=FPS)
    assert (report.method, report.copied_frames, report.encoded_frames) == ("copy", len(wanted), 0)
    assert hashes(out) == wanted
    assert program_hashes(out) == program_wanted
    index = index_video(out)
    assert index.has_constant_rate and index.encoding.in_band
    sought = [next(decode(index, k, k + 1)).to_ndarray() for k in range(len(wanted))]
    assert [hashlib.md5(frame.tobytes()).hexdigest() for frame in sought] == wanted
    for seconds in ("1.0", "4.5", "9"):
        behind = program_hashes(out, "-ss", seconds)
        assert behind == program_wanted[len(program_wanted) - len(behind) :] and behind


def test_fades_between_encoders_leave_everything_else_untouched(tmp_path: Path, encoded: dict[str, Path]) -> None:
    names = ["ours", "baseline", "deep", "cavlc"]
    out = tmp_path / "out.mp4"
    report = joined([encoded[name] for name in names], out, fade=12)
    made, wanted = list(read_frames(out)), list(read_frames(encoded["ours"]))
    assert (report.method, len(made)) == ("smart", report.num_frames) == ("smart", 4 * 49 - 3 * 12)
    same = [a == b for a, b in zip(hashes(out)[:37], hashes(encoded["ours"]), strict=False)]
    assert sum(same) >= 33, "the first clip up to its last closed frame"
    assert report.copied_frames > 0.4 * report.num_frames
    alpha = weights(12)[6]
    middle = (1 - alpha) * wanted[43].astype(float) + alpha * wanted[6].astype(float)
    assert psnr(made[43], middle) > 34
    assert min(psnr(a, b) for a, b in zip(made[50:74], wanted[13:37], strict=True)) > 32


def test_a_mixed_result_can_be_used_again(tmp_path: Path, encoded: dict[str, Path]) -> None:
    once, twice = tmp_path / "once.mp4", tmp_path / "twice.mp4"
    joined([encoded["main"], encoded["ours"], encoded["deep"]], once)
    report = joined([once, encoded["ours"], once], twice)
    assert (report.method, report.num_frames) == ("copy", 7 * 49)
    wanted = hashes(once) + hashes(encoded["ours"]) + hashes(once)
    assert hashes(twice) == wanted
    assert program_hashes(twice) == program_hashes(once) + program_hashes(encoded["ours"]) + program_hashes(once)
    again = joined([once, once], tmp_path / "again.mp4", fade=8)
    assert again.method == "smart"
    assert hashes(tmp_path / "again.mp4")[:100] == hashes(once)[:100]


UNTAGGED = ("-vf", "scale=out_color_matrix=bt601:out_range=tv,setparams=colorspace=unknown:color_primaries=unknown")


@pytest.mark.parametrize("mostly", ["untagged", "tagged"])
def test_colours_do_not_step_at_seams(tmp_path: Path, mostly: str) -> None:
    """Clips that do not say their matrix (BT.601, then) between clips in BT.709: all look alike in the result."""
    lossless = tmp_path / "a.mkv"
    write_video(lossless, (moving(i) for i in range(40)), fps=16, codec="ffv1")
    ffmpeg("-i", lossless, *UNTAGGED, "-color_trc", "2", "-pix_fmt", "yuv420p", "-g", "8", tmp_path / "untagged.mp4")
    clip(tmp_path / "tagged.mp4", 40)
    assert Clip.open(tmp_path / "untagged.mp4").index.encoding.signalling.matrix == 2
    other = "tagged" if mostly == "untagged" else "untagged"
    order = [mostly, other, mostly, mostly]
    report = joined([tmp_path / f"{name}.mp4" for name in order], tmp_path / "out.mp4", fade=4)
    assert report.method == "smart" and report.copied_frames >= 70
    said = index_video(tmp_path / "out.mp4").encoding.signalling
    assert said == Clip.open(tmp_path / f"{mostly}.mp4").index.encoding.signalling
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert len({frame.colorspace for frame in container.decode(video=0)}) == 1
    made = list(read_frames(tmp_path / "out.mp4"))
    originals = {name: list(read_frames(tmp_path / f"{name}.mp4")) for name in ("tagged", "untagged")}
    for number, begun in enumerate([0, 36, 72, 108]):
        for k in range(4 if number else 0, 36):
            wanted = originals[order[number]][k]
            shift = (made[begun + k].astype(float) - wanted).mean(axis=(0, 1))
            assert np.abs(shift).max() < 1, (order[number], k, shift)
            assert psnr(made[begun + k], wanted) > 33


def test_clips_of_another_rate_and_size_fade_into_each_other(tmp_path: Path) -> None:
    first = Clip.open(clip(tmp_path / "a.mp4", 40))
    second = clip(tmp_path / "b.mp4", 60, first=40, size=(256, 128), fps=24)
    view = Clip.open(second, fps=16, size=SIZE, aspect=Fraction(3, 2))
    assert view.num_frames == 40
    parts = [Part(first, 4, 36), Part(view, 2, 30, fade=10), Part(first, 10, 40, fade=5)]
    report = assemble(parts, tmp_path / "out.mp4", size=SIZE, fps=FPS, crossfade=Crossfade("linear"))
    made = list(read_frames(tmp_path / "out.mp4"))
    assert len(made) == report.num_frames == 32 + 28 + 30 - 15
    assert probe_video(tmp_path / "out.mp4").fps == 16
    a, b = list(first.frames()), list(view.frames())
    wanted = [*a[4:26], *fade(a[26:36], b[2:12]), *b[12:25], *fade(b[25:30], a[10:15]), *a[15:]]
    assert min(psnr(x, y) for x, y in zip(made, wanted, strict=True)) > 32


def fade(before: list[Frame], after: list[Frame]) -> list[np.ndarray]:
    pairs = zip(before, after, weights(len(after), "linear"), strict=True)
    return [(1 - alpha) * a.astype(float) + alpha * b.astype(float) for a, b, alpha in pairs]


def test_damage_inside_what_is_copied_is_found_in_mixed_files(tmp_path: Path, encoded: dict[str, Path]) -> None:
    with av.open(str(encoded["main"])) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        place, size = packets[24].pos, packets[24].size
    data = bytearray(encoded["main"].read_bytes())
    data[place + 5 : place + size] = bytes(size - 5)
    (tmp_path / "bad.mp4").write_bytes(data)
    with pytest.raises(InvalidMedia, match=r"bad\.mp4"):
        joined([encoded["ours"], tmp_path / "bad.mp4", encoded["deep"]], tmp_path / "out.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.mp4"]


def test_the_sound_is_as_long_as_the_pictures_and_in_step(tmp_path: Path, samples: Path) -> None:
    source = samples / "bbb_320x180_audio.mp4"
    view = Clip.open(source)
    whole = read_sound(source, rate=48_000)
    parts = [Part(view, 10, 40), Part(view, 5, 35, fade=5)]
    pieces = [view.sound(10, 40, 0, fade_out_s=0.2), view.sound(5, 35, 1, fade_in_s=0.2)]
    sound = [piece for piece in pieces if isinstance(piece, SoundPiece)]
    report = assemble(parts, tmp_path / "out.mp4", size=view.size, fps=view.fps, sound=sound)
    info = probe_video(tmp_path / "out.mp4")
    assert info.num_frames == report.num_frames == 55 and info.has_audio
    made = read_sound(tmp_path / "out.mp4", rate=48_000)
    assert 0 <= len(made) - 55 * 1920 < 1024, "but for the rest of the last AAC frame"
    for first, start in ((0, 10 * 1920), (58_000, 5 * 1920 + 58_000 - 48_000)):
        heard, wanted = made[first : first + 40_000], whole[start : start + 40_000]
        shifts = {
            s: float(np.dot(heard[1000:-1000], wanted[1000 + s : len(wanted) - 1000 + s])) for s in (-480, 0, 480)
        }
        assert max(shifts, key=lambda s: shifts[s]) == 0
        assert np.corrcoef(heard, wanted)[0, 1] > 0.95


def test_what_does_not_fit_is_refused_before_a_byte_is_written(tmp_path: Path, encoded: dict[str, Path]) -> None:
    view = Clip.open(encoded["ours"])
    for parts, message in (
        ([], "nothing to put together"),
        ([Part(view, 0, 49, fade=3)], "nothing is before it"),
        ([Part(view, 0, 50)], "frames 0 to 50 do not exist"),
        ([Part(view, 5, 5)], "frames 5 to 5 do not exist"),
        ([Part(view, 0, 10), Part(view, 0, 8, fade=9)], "8 frames are too few"),
        ([Part(view, 0, 10), Part(view, 0, 8, fade=5), Part(view, 0, 9, fade=4)], "too few to fade over 5 and 4"),
        ([Part(Clip.open(encoded["ours"], fps=24), 0, 10)], "seen at 24 frames per second, the result has 16"),
    ):
        with pytest.raises(InvalidInput, match=message):
            assemble(parts, tmp_path / "out.mp4", size=SIZE, fps=FPS)
    assert not list(tmp_path.iterdir())


def test_cancelling_an_assembly_with_sound_leaves_nothing(tmp_path: Path, samples: Path) -> None:
    view = Clip.open(samples / "bbb_320x180_audio.mp4")
    sound = [piece for piece in [view.sound(0, 20, 0)] if piece]
    asked = itertools.count()
    with pytest.raises(GenerationCancelled):
        assemble(
            [Part(view, 3, 20), Part(view, 3, 20, fade=4)],
            tmp_path / "out.mp4",
            size=view.size,
            fps=view.fps,
            sound=sound,
            cancelled=lambda: next(asked) >= 3,
        )
    assert not list(tmp_path.iterdir())


def test_clips_of_one_foreign_encoder_are_stitched_by_copying(tmp_path: Path, encoded: dict[str, Path]) -> None:
    report = stitch([encoded["deep"]] * 3, [0, 0], tmp_path / "out.mp4")
    assert report.method == "copy"
    assert hashes(tmp_path / "out.mp4") == hashes(encoded["deep"]) * 3
    assert not index_video(tmp_path / "out.mp4").encoding.in_band
