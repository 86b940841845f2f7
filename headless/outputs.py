"""The files of a run: which are new, and a still made of a video of one frame."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from Wan2GP.errors import EngineError, InvalidMedia, NoOutput
from Wan2GP.media import read_frame, write_image

VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".mkv", ".webm", ".avi"})

#: path -> (inode, bytes, time of change in nanoseconds) of each file in a folder at one moment
Snapshot = dict[Path, tuple[int, int, int]]


def snapshot(folder: Path) -> Snapshot:
    """Every file under `folder` as it is now."""
    return {path: _signature(path) for path in folder.resolve().rglob("*") if path.is_file()}


def _signature(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def new_files(reported: Iterable[Path], folder: Path, before: Snapshot) -> tuple[Path, ...]:
    """The files that an engine says it wrote, once each is proven to be this run's own.

    Raises NoOutput when there is none, or when one is missing, empty, outside `folder`, or as old as `before`.
    """
    files = tuple(dict.fromkeys(reported))
    if not files:
        raise NoOutput("the engine ended without an error and without a file")
    for file in files:
        _prove(file, folder.resolve(), before)
    return files


def _prove(file: Path, folder: Path, before: Snapshot) -> None:
    path = file.resolve()
    if not path.is_file():
        raise NoOutput(f"the engine reported {file}, which does not exist")
    if not path.is_relative_to(folder):
        raise NoOutput(f"the engine wrote {file} outside the task's folder {folder}")
    if before.get(path) == _signature(path):
        raise NoOutput(f"the engine reported {file}, which an earlier run wrote")
    if path.stat().st_size == 0:
        raise NoOutput(f"the engine wrote {file}, which is empty")


def still_image(file: Path) -> Path:
    """The first frame of a video as `<stem>.png` beside it; the video goes once the image is there.

    A file that is no video is returned as it is. Raises EngineError when the video cannot be read.
    """
    if file.suffix.lower() not in VIDEO_SUFFIXES:
        return file
    image = file.with_suffix(".png")
    try:
        write_image(image, read_frame(file, 0))
    except InvalidMedia as error:
        raise EngineError(f"the engine's video of one frame cannot be read: {error}") from error
    file.unlink()
    return image
