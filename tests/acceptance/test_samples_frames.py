"""The samples of frame interpolation and post-processing, run by one worker as a user runs it, and measured.

Without RIFE's weights, so that it is quick: motion is drawn by optical flow then, and everything measured is the same.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from sample_runs import SampleRuns

from Wan2GP.media import Frame, probe_video, read_frame, read_image, resize

SAMPLES = frozenset({"rife_interpolate_images", "extract_frame", "postprocess_video"})


@pytest.fixture(scope="module")
def floor(root: Path, tmp_path_factory: pytest.TempPathFactory) -> SampleRuns:
    folder = tmp_path_factory.mktemp("frames")
    return SampleRuns(root, folder, SAMPLES, WAN2GP_CACHE=str(folder / "no_weights"))


def given(floor: SampleRuns, sample: str, name: str) -> Path:
    """A file that a sample names."""
    return floor.root / str(floor.box.sample(sample)[name])


def red_x(frame: Frame) -> float:
    """Where the red circle is, in shares of the width."""
    red = np.maximum(frame[..., 0].astype(float) - frame[..., 1:].max(axis=2) - 40, 0)
    return float((red.sum(0) * np.arange(frame.shape[1])).sum() / red.sum() / frame.shape[1])


def test_two_pictures_become_a_video_that_moves_from_one_to_the_other(floor: SampleRuns) -> None:
    made = probe_video(floor.output("rife_interpolate_images"))
    assert (made.num_frames, made.width, made.height, made.fps) == (12, 128, 128, 12)
    for name, index in (("input_image_path1", 0), ("input_image_path2", -1)):
        wanted = resize(read_image(given(floor, "rife_interpolate_images", name)), (128, 128))
        assert cv2.PSNR(read_frame(made.path, index), wanted) > 30
    places = [red_x(read_frame(made.path, index)) for index in range(12)]
    assert places == pytest.approx(np.linspace(places[0], places[-1], 12), abs=0.03)
    assert places[-1] - places[0] > 0.1


def test_a_frame_is_the_decoded_one(floor: SampleRuns) -> None:
    video = given(floor, "extract_frame", "input_video_path")
    assert np.array_equal(read_image(floor.output("extract_frame")), read_frame(video, -1))


def test_a_finished_video_gets_frames_size_and_grain_and_keeps_its_sound(floor: SampleRuns) -> None:
    made = probe_video(floor.output("postprocess_video"))
    before = probe_video(given(floor, "postprocess_video", "input_video_path"))
    assert (made.num_frames, made.fps) == (2 * before.num_frames - 1, 2 * before.fps)
    assert (made.width, made.height, made.has_audio) == (480, 272, True)
    assert 0 <= before.num_frames / before.fps - made.num_frames / made.fps < Fraction(1) / before.fps
    frame = read_frame(made.path, 10)
    plain = resize(read_frame(before.path, 5), (480, 272))
    assert cv2.PSNR(frame, plain) > 26
    assert (frame.astype(int) - plain).std() > 2
