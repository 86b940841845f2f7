"""The files of a run: only what this run wrote, inside its folder, counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from headless.outputs import new_files, snapshot, still_image
from Wan2GP.errors import EngineError, NoOutput
from Wan2GP.media import read_image, write_image, write_video


def test_a_file_that_was_not_there_before_is_new(tmp_path: Path) -> None:
    before = snapshot(tmp_path)
    (tmp_path / "new.mp4").write_bytes(b"x")
    assert new_files([tmp_path / "new.mp4"], tmp_path, before) == (tmp_path / "new.mp4",)


def test_a_file_that_was_written_anew_is_new(tmp_path: Path) -> None:
    file = tmp_path / "same-name.mp4"
    file.write_bytes(b"old")
    before = snapshot(tmp_path)
    file.write_bytes(b"newer")
    assert new_files([file], tmp_path, before) == (file,)


def test_order_is_kept_and_a_file_reported_twice_counts_once(tmp_path: Path) -> None:
    names = [tmp_path / name for name in ("b.mp4", "a.mp4", "b.mp4")]
    for file in names:
        file.write_bytes(b"x")
    assert new_files(names, tmp_path, {}) == (tmp_path / "b.mp4", tmp_path / "a.mp4")


def test_nothing_reported_is_no_output(tmp_path: Path) -> None:
    with pytest.raises(NoOutput, match="without a file"):
        new_files([], tmp_path, {})


def test_a_file_of_an_earlier_run_is_no_output(tmp_path: Path) -> None:
    (tmp_path / "old.mp4").write_bytes(b"x")
    with pytest.raises(NoOutput, match=r"old\.mp4, which an earlier run wrote"):
        new_files([tmp_path / "old.mp4"], tmp_path, snapshot(tmp_path))


def test_a_missing_file_is_no_output(tmp_path: Path) -> None:
    with pytest.raises(NoOutput, match="does not exist"):
        new_files([tmp_path / "ghost.mp4"], tmp_path, {})


def test_an_empty_file_is_no_output(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(NoOutput, match="is empty"):
        new_files([tmp_path / "empty.mp4"], tmp_path, {})


@pytest.mark.parametrize("route", ["outside.mp4", "folder/../outside.mp4", "folder/link.mp4"])
def test_a_file_outside_the_folder_is_no_output(tmp_path: Path, route: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "outside.mp4").write_bytes(b"x")
    (folder / "link.mp4").symlink_to(tmp_path / "outside.mp4")
    with pytest.raises(NoOutput, match="outside the task's folder"):
        new_files([tmp_path / route], folder, {})


def test_a_video_becomes_its_first_frame_and_goes(tmp_path: Path) -> None:
    video = tmp_path / "one.mp4"
    write_video(video, [np.full((32, 48, 3), (200, 40, 90), np.uint8)], fps=16)
    image = still_image(video)
    assert image == tmp_path / "one.png" and not video.exists()
    assert np.abs(read_image(image).astype(int) - (200, 40, 90)).max() <= 4


def test_an_image_stays_as_it_is(tmp_path: Path) -> None:
    image = write_image(tmp_path / "one.png", np.zeros((8, 8, 3), np.uint8))
    assert still_image(image) == image and image.exists()


def test_a_damaged_video_stays_and_the_engine_is_blamed(tmp_path: Path) -> None:
    video = tmp_path / "one.mp4"
    video.write_bytes(b"no video at all")
    with pytest.raises(EngineError, match="cannot be read"):
        still_image(video)
    assert video.exists() and not (tmp_path / "one.png").exists()
