"""What the tests of joins, edits and inpainting share: clips whose frames can be told apart, and rows."""

from __future__ import annotations

import json
import subprocess
import wave
from pathlib import Path
from typing import Any

import numpy as np
from skimage.metrics import structural_similarity
from travel_shop import Workshop

from source.store.types import Task
from Wan2GP.media import Frame, ffmpeg_path, probe_video, read_frame, read_frames, read_sound, write_video

SIZE = (96, 64)
FPS = 16
RATE = 48_000


def textured(number: int, phase: int = 0, size: tuple[int, int] = SIZE) -> Frame:
    """A moving texture whose look depends on the clip (`phase`) and on the frame."""
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    red = 128 + 90 * np.sin((x + 5 * number) / (9 + 4 * phase))
    green = 128 + 90 * np.cos((y - 4 * number) / (11 + 3 * phase))
    blue = 128 + 90 * np.sin((x + y + 3 * number) / (7 + 5 * phase))
    return np.stack([red, green, blue], axis=-1).astype(np.uint8)


def clip(
    path: Path, num_frames: int, phase: int = 0, *, size: tuple[int, int] = SIZE, fps: float = FPS, **options: Any
) -> Path:
    write_video(path, (textured(number, phase, size) for number in range(num_frames)), fps=fps, **options)
    return path


def row_of_clips(folder: Path, *lengths: int) -> list[Path]:
    return [clip(folder / f"clip{index}.mp4", length, index) for index, length in enumerate(lengths)]


def clicking(
    path: Path,
    num_frames: int,
    beats: list[int],
    *,
    fps: float = FPS,
    tone: float = 0.0,
    rate: int = RATE,
    sound_s: float | None = None,
) -> Path:
    """A dark clip with a white frame and a click at each of `beats`, over a soft tone of `tone` Hz.

    The sound lasts `sound_s` seconds (None: as long as the pictures), one channel of `rate` samples a second.
    """
    silent, sound = path.with_suffix(".silent.mp4"), path.with_suffix(".wav")
    shape = (SIZE[1], SIZE[0], 3)
    write_video(silent, (np.full(shape, 235 if k in beats else 40, np.uint8) for k in range(num_frames)), fps=fps)
    samples = np.zeros(round((num_frames / fps if sound_s is None else sound_s) * rate))
    if tone:
        samples += 0.1 * np.sin(2 * np.pi * tone * np.arange(len(samples)) / rate)
    for beat in beats:
        start = round(beat / fps * rate)
        samples[start : start + rate // 200] = 0.9
    with wave.open(str(sound), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    ffmpeg("-i", silent, "-i", sound, "-c:v", "copy", "-c:a", "aac", "-b:a", "192k", path)
    return path


def ffmpeg(*arguments: str | Path) -> None:
    quiet = [str(ffmpeg_path()), "-nostdin", "-loglevel", "error", "-y"]
    subprocess.run([*quiet, *map(str, arguments)], check=True, timeout=60)


def uneven(path: Path, source: Path) -> Path:
    """The video without its frames 8 to 23, each other frame still at its own time."""
    ffmpeg("-i", source, "-vf", "select='not(between(n,8,23))'", "-fps_mode", "vfr", "-crf", "8", path)
    return path


def flashes(video: Path) -> list[int]:
    """The frames that are white."""
    return [number for number, frame in enumerate(read_frames(video)) if frame.mean() > 150]


def clicks(video: Path) -> list[float]:
    """When the clicks are heard, in frames."""
    sound = np.abs(read_sound(video, rate=RATE))
    loud = np.flatnonzero(sound > 0.45)
    starts = loud[np.insert(np.diff(loud) > RATE // 20, 0, True)] if len(loud) else loud
    return [float(start / RATE * FPS) for start in starts]


def loudness(video: Path, start: float, stop: float) -> float:
    """Root mean square of the sound of the frames start..stop-1."""
    samples = read_sound(video, rate=RATE, start_s=start / FPS, stop_s=stop / FPS)
    return float(np.sqrt(np.mean(samples.astype(np.float64) ** 2)))


def ssim(video: Path, position: int, wanted: Frame) -> float:
    found = read_frame(video, position)
    assert found.shape == wanted.shape
    return float(structural_similarity(found, wanted, channel_axis=2))


def project(clips: list[Path], **changes: Any) -> dict[str, Any]:
    details = {
        "run_id": "run",
        "clip_list": [{"url": str(path), "name": path.stem} for path in clips],
        "model": "fake_vace",
        "context_frame_count": 4,
        "gap_frame_count": 9,
    }
    return {"orchestrator_details": details | changes}


def alone(first: Path | None, second: Path, **changes: Any) -> dict[str, Any]:
    named = {"starting_video_path": str(first)} if first else {}
    settings = {"model": "fake_vace", "context_frame_count": 4, "gap_frame_count": 9, "prompt": "x"}
    return named | {"ending_video_path": str(second)} | settings | changes


def transitions(shop: Workshop, row: Task) -> list[Task]:
    return [child for child in shop.store.children(row.id) if child.task_type == "join_clips_segment"]


def frames_of(path: str | Path) -> list[Frame]:
    return list(read_frames(path))


def length(path: Path) -> int:
    return probe_video(path).num_frames


def sample(root: Path, name: str) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((root / "samples" / "tasks" / f"{name}.json").read_text())
    return values
