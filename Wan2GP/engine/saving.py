"""Frames become files: H.264 mp4 for videos, png for stills; answers become txt. Under names that nothing else has.

No torch here.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from itertools import count
from pathlib import Path

from Wan2GP.engine.families import Cancel, Report
from Wan2GP.engine.request import Frame, GenerationRequest
from Wan2GP.errors import EngineError
from Wan2GP.media import VideoWriter, mux_audio, write_image
from Wan2GP.media.writer import VideoCodec
from Wan2GP.post_processing import PostProcessing

_PROMPT_CHARACTERS = 40


def save_frames(
    frames: Iterable[Frame], request: GenerationRequest, folder: Path, report: Report, cancel: Cancel
) -> list[Path]:
    """Write the finished frames of a request as they come. An existing file is never touched; a failed run leaves none.

    A lossless request makes FFV1 in mkv, unless it has sound.

    Raises EngineError when the number of frames is not what was asked for.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if request.image_output:
        return _save_stills(frames, request, folder, report, cancel)
    return [_save_video(frames, request, folder, report, cancel)]


def save_text(text: str, request: GenerationRequest, folder: Path, report: Report) -> list[Path]:
    """Write an answer as one .txt file (UTF-8), named as the frames of a request are."""
    folder.mkdir(parents=True, exist_ok=True)
    path = _published(lambda partial: partial.write_text(text, encoding="utf-8"), folder, _stem(request), ".txt")
    report("saving", 1, 1)
    return [path]


def _save_video(
    frames: Iterable[Frame], request: GenerationRequest, folder: Path, report: Report, cancel: Cancel
) -> Path:
    lossless = request.lossless and request.audio_guide is None
    codec: VideoCodec = "ffv1" if lossless else "libx264"
    done = PostProcessing.of(request.settings)

    def write(path: Path) -> None:
        with VideoWriter(path, fps=done.fps(request.fps), size=done.size(request.size), codec=codec) as writer:
            for frame in frames:
                writer.write(frame)
            cancel.raise_if_requested()
            _check_count(writer.num_frames, done.num_frames(request.total_frames))
            report("saving", 0, 1)

    whole = write if request.audio_guide is None else _with_sound(write, request)
    path = _published(whole, folder, _stem(request), ".mkv" if lossless else ".mp4")
    report("saving", 1, 1)
    return path


def _with_sound(write: Callable[[Path], object], request: GenerationRequest) -> Callable[[Path], object]:
    """Writes the same video with the sound that it was made to."""

    def both(path: Path) -> None:
        silent = path.with_suffix(".silent.mp4")
        try:
            write(silent)
            assert request.audio_guide is not None
            mux_audio(silent, request.audio_guide, path)
        finally:
            silent.unlink(missing_ok=True)

    return both


def _save_stills(
    frames: Iterable[Frame], request: GenerationRequest, folder: Path, report: Report, cancel: Cancel
) -> list[Path]:
    stills = list(frames)
    cancel.raise_if_requested()
    _check_count(len(stills), request.batch_size)
    paths = []
    for number, still in enumerate(stills, start=1):
        stem = _stem(request) if len(stills) == 1 else f"{_stem(request)}_{number}"
        paths.append(_published(lambda path, still=still: write_image(path, still), folder, stem, ".png"))
        report("saving", number, len(stills))
    return paths


def _check_count(written: int, wanted: int) -> None:
    if written != wanted:
        raise EngineError(f"the model made {written} frames where {wanted} were asked for")


def _published(write: Callable[[Path], object], folder: Path, stem: str, suffix: str) -> Path:
    """Write under a hidden name, then take the first free one of stem, stem_2, stem_3 …"""
    partial = folder / f".{uuid.uuid4().hex}{suffix}"
    try:
        write(partial)
        for path in _candidates(folder, stem, suffix):
            try:
                # Reserve the name first: only the creator of a file may replace it.
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            except FileExistsError:
                continue
            os.replace(partial, path)
            return path
    finally:
        partial.unlink(missing_ok=True)
    raise AssertionError("there is always a free name")


def _candidates(folder: Path, stem: str, suffix: str) -> Iterator[Path]:
    yield folder / f"{stem}{suffix}"
    for number in count(2):
        yield folder / f"{stem}_{number}{suffix}"


def _stem(request: GenerationRequest) -> str:
    """2026-08-21-14h05m09s_seed42_a_red_circle"""
    words = re.sub(r"[^\w-]+", "_", request.prompt, flags=re.ASCII).strip("_")[:_PROMPT_CHARACTERS].strip("_")
    return f"{datetime.now():%Y-%m-%d-%Hh%Mm%Ss}_seed{request.seed}_{words or request.definition.id}"
