"""The samples of frame interpolation and post-processing, run by one worker as a user runs it, and measured.

Without RIFE's weights, so that it is quick: motion is drawn by optical flow then, and everything measured is the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from box import Box

from source.store.sqlite import SqliteStore
from source.store.types import NewTask, Status, Task
from source.task_registry import registry
from Wan2GP.media import Frame, probe_video, read_frame, read_image, resize

SAMPLES = frozenset({"rife_interpolate_images", "extract_frame", "postprocess_video"})


class Floor:
    """What a worker made of the samples."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.root, self.box = root, Box(root, folder)
        store = SqliteStore(self.box.database)
        tasks = {name: store.add(self._task(name)) for name in sorted(SAMPLES)}
        self.box.work(WAN2GP_CACHE=str(folder / "no_weights"))
        self.rows: Mapping[str, Task] = {name: store.get(task) for name, task in tasks.items()}
        store.close()

    def _task(self, sample: str) -> NewTask:
        kind, params = sample.partition(".")[0], self.box.sample(sample)
        registry().get(kind).parse(params, strict=True)
        return NewTask(task_type=kind, params=params)

    def output(self, sample: str) -> Path:
        row = self.rows[sample]
        assert row.status is Status.COMPLETE and row.output_location, row.error_message
        return self.box.folder / "public" / row.output_location

    def given(self, sample: str, name: str) -> Path:
        return self.root / str(self.box.sample(sample)[name])


@pytest.fixture(scope="module")
def floor(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Floor:
    return Floor(root, tmp_path_factory.mktemp("frames"))


def red_x(frame: Frame) -> float:
    """Where the red circle is, in shares of the width."""
    red = np.maximum(frame[..., 0].astype(float) - frame[..., 1:].max(axis=2) - 40, 0)
    return float((red.sum(0) * np.arange(frame.shape[1])).sum() / red.sum() / frame.shape[1])


def test_two_pictures_become_a_video_that_moves_from_one_to_the_other(floor: Floor) -> None:
    made = probe_video(floor.output("rife_interpolate_images"))
    assert (made.num_frames, made.width, made.height, made.fps) == (12, 128, 128, 12)
    for name, index in (("input_image_path1", 0), ("input_image_path2", -1)):
        wanted = resize(read_image(floor.given("rife_interpolate_images", name)), (128, 128))
        assert cv2.PSNR(read_frame(made.path, index), wanted) > 30
    places = [red_x(read_frame(made.path, index)) for index in range(12)]
    assert places == pytest.approx(np.linspace(places[0], places[-1], 12), abs=0.03)
    assert places[-1] - places[0] > 0.1


def test_a_frame_is_the_decoded_one(floor: Floor) -> None:
    video = floor.given("extract_frame", "input_video_path")
    assert np.array_equal(read_image(floor.output("extract_frame")), read_frame(video, -1))


def test_a_finished_video_gets_frames_size_and_grain_and_keeps_its_sound(floor: Floor) -> None:
    made = probe_video(floor.output("postprocess_video"))
    before = probe_video(floor.given("postprocess_video", "input_video_path"))
    assert (made.num_frames, made.fps) == (2 * before.num_frames - 1, 2 * before.fps)
    assert (made.width, made.height, made.has_audio) == (480, 272, True)
    assert 0 <= before.num_frames / before.fps - made.num_frames / made.fps < Fraction(1) / before.fps
    frame = read_frame(made.path, 10)
    plain = resize(read_frame(before.path, 5), (480, 272))
    assert cv2.PSNR(frame, plain) > 26
    assert (frame.astype(int) - plain).std() > 2
