"""Sound laid along a video: in step to the sample, faded, mixed, exactly as long as the pictures, streamed."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from source.errors import InvalidInput, InvalidMedia
from source.media.soundtrack import SoundPiece, lay_sound, mixed
from Wan2GP.media import SOUND_RATE, ffmpeg_path, index_video, probe_video, write_video

RATE = SOUND_RATE


def silent(path: Path, num_frames: int, fps: Fraction | float) -> Path:
    write_video(path, (np.full((32, 48, 3), k % 200, np.uint8) for k in range(num_frames)), fps=fps)
    return path


def wave(path: Path, samples: np.ndarray, rate: int = 44_100, *coding: str | Path) -> Path:
    """Write samples (N, channels) by the ffmpeg program, encoded as the suffix says."""
    shaped = ["-f", "f32le", "-ar", str(rate), "-ac", str(samples.shape[1]), "-i", "-"]
    quiet = [str(ffmpeg_path()), "-loglevel", "error", "-y"]
    data = samples.astype("<f4").tobytes()
    subprocess.run([*quiet, *shaped, *map(str, coding), str(path)], input=data, check=True, timeout=60)
    return path


def clicks(seconds: list[float], duration_s: float, rate: int = 44_100, channels: int = 1) -> np.ndarray:
    """Bursts of 5 ms in silence."""
    samples = np.zeros((int(duration_s * rate), channels), np.float32)
    for second in seconds:
        samples[round(second * rate) : round((second + 0.005) * rate)] = 0.8
    return samples


def tone(duration_s: float, hertz: float, level: float = 0.4, rate: int = 44_100) -> np.ndarray:
    t = np.arange(int(duration_s * rate)) / rate
    return (level * np.sin(2 * np.pi * hertz * t)).astype(np.float32)[:, None]


def heard(path: Path) -> np.ndarray:
    """Both channels (2, N) as decoded, at their own rate."""
    with av.open(str(path)) as container:
        assert container.streams.audio[0].rate == RATE
        return np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)


def onsets(samples: np.ndarray) -> list[float]:
    """When each burst begins, in seconds."""
    loud = np.flatnonzero(np.abs(samples).max(axis=0) > 0.3)
    begins = loud[np.flatnonzero(np.diff(loud, prepend=-RATE) > RATE // 20)]
    return [float(begin) / RATE for begin in begins]


def loudness(samples: np.ndarray, start_s: float, stop_s: float) -> float:
    return float(np.sqrt(np.mean(samples[:, round(start_s * RATE) : round(stop_s * RATE)] ** 2)))


@pytest.mark.parametrize("suffix", ["wav", "m4a", "mp3", "flac", "ogg"])
@pytest.mark.parametrize("start_s", [0.0, 1.0])
def test_a_sound_is_heard_when_it_should_be(tmp_path: Path, suffix: str, start_s: float) -> None:
    sound = wave(tmp_path / f"s.{suffix}", clicks([0.5, 1.5, 2.5, 3.5], 4))
    fps = Fraction(24000, 1001)
    video = silent(tmp_path / "v.mp4", 100, fps)
    lay_sound(video, [SoundPiece(sound, start_s, 3.9, 0.25)], tmp_path / "out.mp4")
    made = heard(tmp_path / "out.mp4")
    wanted = [t - start_s + 0.25 for t in (0.5, 1.5, 2.5, 3.5) if t > start_s]
    assert np.allclose(onsets(made), wanted, atol=0.002)
    assert np.allclose(made[0], made[1], atol=1e-3), "one channel is given to both sides"


@pytest.mark.parametrize("container", ["mp4", "mkv", "mov"])
def test_spans_of_a_long_video_stay_in_step(tmp_path: Path, container: str) -> None:
    """A minute of clicks beside pictures that begin late: every span is heard to the millisecond."""
    at = [k + 0.5 for k in range(60)]
    sound = wave(tmp_path / "c.wav", clicks(at, 60, channels=2))
    video = silent(tmp_path / "v.mp4", 60 * 16, 16)
    both = tmp_path / f"both.{container}"
    inputs = ["-itsoffset", "0.25", "-i", video, "-i", sound]
    quiet = [str(ffmpeg_path()), "-loglevel", "error", "-y"]
    subprocess.run([*quiet, *map(str, inputs), "-c:v", "copy", "-c:a", "aac", str(both)], check=True)
    lay_sound(video, [SoundPiece(both, 10 * k, 10 * k + 5, 10 * k) for k in range(6)], tmp_path / "out.mp4")
    wanted = [t - 0.25 for t in at if (t - 0.25) % 10 < 5]
    assert np.allclose(onsets(heard(tmp_path / "out.mp4")), wanted, atol=0.002)


@pytest.mark.parametrize(("num_frames", "fps"), [(1, 16), (49, 16), (100, Fraction(24000, 1001)), (721, 30)])
def test_the_sound_is_as_long_as_the_pictures(tmp_path: Path, num_frames: int, fps: Fraction) -> None:
    sound = wave(tmp_path / "s.wav", tone(1, 440))
    video = silent(tmp_path / "v.mp4", num_frames, fps)
    lay_sound(video, [SoundPiece(sound, 0, 99, 0.01)], tmp_path / "out.mp4")
    exact = num_frames / Fraction(fps) * RATE
    assert 0 <= heard(tmp_path / "out.mp4").shape[1] - round(exact) < 1024, "but for the rest of the last AAC frame"
    with av.open(str(tmp_path / "out.mp4")) as container:
        track = container.streams.audio[0]
        assert track.codec_context.name == "aac"
        assert abs(float(track.duration * track.time_base) - num_frames / fps) < 0.0015
        assert track.start_time == 0


def test_the_pictures_are_copied(tmp_path: Path, samples: Path) -> None:
    video = samples / "bbb_832x480_81f.mp4"
    lay_sound(video, [SoundPiece(samples / "bbb_320x180_audio.mp4", 0, 1, 1)], tmp_path / "out.mp4")
    made, source = index_video(tmp_path / "out.mp4"), index_video(video)
    assert made.encoding.parameter_sets == source.encoding.parameter_sets and made.has_constant_rate
    with av.open(str(tmp_path / "out.mp4")) as a, av.open(str(video)) as b:
        pairs = zip(a.demux(video=0), b.demux(video=0), strict=True)
        assert all(bytes(x) == bytes(y) for x, y in pairs)
    assert probe_video(tmp_path / "out.mp4").num_frames == 81


def test_a_cross_fade_keeps_its_loudness(tmp_path: Path) -> None:
    low, high = wave(tmp_path / "l.wav", tone(4, 330)), wave(tmp_path / "h.wav", tone(4, 470))
    pieces = [SoundPiece(low, 0, 2.5, 0, fade_out_s=1), SoundPiece(high, 0, 2.5, 1.5, fade_in_s=1)]
    video = silent(tmp_path / "v.mp4", 64, 16)
    made = heard(lay_sound(video, pieces, tmp_path / "out.mp4"))
    levels = [loudness(made, at, at + 0.2) for at in (0.5, 1.6, 1.9, 2.2, 3.0)]
    assert max(levels) / min(levels) < 1.06


def test_where_nothing_is_laid_there_is_silence_and_too_much_is_clipped(tmp_path: Path) -> None:
    loud = wave(tmp_path / "l.wav", tone(1, 440, level=0.9))
    pieces = [SoundPiece(loud, 0, 1, 1), SoundPiece(loud, 0, 1, 1), SoundPiece(loud, 0.5, 3, 3)]
    blocks = list(mixed(pieces, 5 * RATE))
    made = np.concatenate(blocks, axis=1)
    assert made.shape == (2, 5 * RATE) and {block.shape[1] for block in blocks} == {RATE}
    assert np.abs(made[:, :RATE]).max() == np.abs(made[:, 2 * RATE : 3 * RATE]).max() == 0
    assert np.abs(made[:, RATE : 2 * RATE]).max() == 1
    assert loudness(made, 3, 3.4) > 0.5 and loudness(made, 3.6, 5) == 0, "a piece ends where its file does"


def test_sound_of_frames_shown_faster_is_played_faster(tmp_path: Path) -> None:
    sound = wave(tmp_path / "s.wav", clicks([k + 0.5 for k in range(30)], 30))
    video = silent(tmp_path / "v.mp4", 30 * 15, 16)
    lay_sound(video, [SoundPiece(sound, 0, 30, 0, speed=Fraction(16, 15))], tmp_path / "out.mp4")
    wanted = [(k + 0.5) * 15 / 16 for k in range(30)]
    assert np.allclose(onsets(heard(tmp_path / "out.mp4")), wanted, atol=0.002)


def test_holes_in_a_recording_stay_where_they_are(tmp_path: Path) -> None:
    sound = wave(tmp_path / "s.wav", clicks([0.5, 1.5, 2.5, 3.5], 4))
    holed = tmp_path / "holed.mkv"
    cut = ["-af", "aselect='not(between(t,0.9,1.9))'", "-c:a", "pcm_s16le"]
    subprocess.run(
        [str(ffmpeg_path()), "-loglevel", "error", "-y", "-i", str(sound), *cut, str(holed)], check=True, timeout=60
    )
    made = np.concatenate(list(mixed([SoundPiece(holed, 0, 4, 0)], 4 * RATE)), axis=1)
    assert np.allclose(onsets(made), [0.5, 2.5, 3.5], atol=0.002)


def test_what_cannot_be_laid_is_refused(tmp_path: Path, samples: Path) -> None:
    video = silent(tmp_path / "v.mp4", 16, 16)
    sound = wave(tmp_path / "s.wav", tone(1, 440))
    for piece, error, message in (
        (SoundPiece(sound, 1, 1, 0), InvalidInput, "no sound from 1 s to 1 s"),
        (SoundPiece(sound, -1, 1, 0), InvalidInput, "no sound from -1 s"),
        (SoundPiece(samples / "bbb_416x240_49f.mp4", 0, 1, 0), InvalidMedia, "no sound track"),
        (SoundPiece(tmp_path / "none.wav", 0, 1, 0), InvalidMedia, "does not exist"),
    ):
        with pytest.raises(error, match=message):
            lay_sound(video, [piece], tmp_path / "out.mp4")
    with pytest.raises(InvalidInput, match=r"ends in \.mp4"):
        lay_sound(video, [SoundPiece(sound, 0, 1, 0)], tmp_path / "out.mkv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.wav", "v.mp4"]


MEASURE = """
import re, sys
from fractions import Fraction
from pathlib import Path
from source.media.soundtrack import SoundPiece, mixed

def peak_mb():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

sound = Path(sys.argv[1])
for _ in mixed([SoundPiece(sound, 0, 4, 0)], 48_000 * 4): pass
before = peak_mb()
pieces = [SoundPiece(sound, 0, 600, 0), SoundPiece(sound, 500, 590, 30)]
blocks = sum(block.shape[1] for block in mixed(pieces, 48_000 * 600))
print(blocks, peak_mb() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_does_not_grow_with_length(tmp_path: Path, root: Path) -> None:
    """Ten minutes are 230 MB as stereo samples."""
    sound = tmp_path / "s.wav"
    long = ["-f", "lavfi", "-i", "sine=frequency=300:duration=600", "-ar", "16000"]
    subprocess.run([str(ffmpeg_path()), "-loglevel", "error", "-y", *long, str(sound)], check=True, timeout=60)
    command = [sys.executable, "-c", MEASURE, str(sound)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=120, check=True)
    blocks, grown_mb = done.stdout.split()
    assert int(blocks) == 48_000 * 600
    assert float(grown_mb) < 20
