"""The samples of control pictures, run by one worker as a user runs it, and measured.

The weights of the depth model cannot ship: a row of the same id puts tiny random ones in its place.
"""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from control_runs import pose_checkpoints
from perspective_runs import rows_with_depth
from sample_runs import SampleRuns

from Wan2GP.drawing.edges import edge_picture, scribble_picture
from Wan2GP.drawing.motion import flow_picture, motion
from Wan2GP.drawing.skeleton import COLOURS
from Wan2GP.media import Frame, probe_image, probe_video, read_frames, read_image

#: sample -> size of the picture that it makes
PICTURES = {
    "generate_openpose": (512, 512),
    "openpose": (512, 512),
    "generate_depth": (451, 300),
    "generate_canny": (451, 300),
    "generate_scribble": (600, 400),
}
#: sample -> frames, size and rate of the video that it makes
VIDEOS = {
    "generate_openpose.video": (9, (208, 120), Fraction(25)),
    "generate_canny.video": (50, (320, 180), Fraction(25)),
    "generate_flow": (50, (320, 180), Fraction(25)),
    "vace.canny": (17, (64, 64), Fraction(16)),
    "vace.pose": (5, (64, 64), Fraction(16)),
}
SAMPLES = frozenset({*PICTURES, *VIDEOS})


@pytest.fixture(scope="module")
def floor(root: Path, tmp_path_factory: pytest.TempPathFactory) -> SampleRuns:
    pose_checkpoints()
    folder = tmp_path_factory.mktemp("control")
    return SampleRuns(root, folder, SAMPLES, FINETUNES=str(rows_with_depth(folder)))


def source(floor: SampleRuns, sample: str) -> Path:
    """The file that a sample draws."""
    params = floor.box.sample(sample)
    return floor.root / str(next(value for name, value in params.items() if name != "resolution"))


@pytest.mark.parametrize("sample", PICTURES)
def test_a_picture_becomes_a_png_of_its_size(floor: SampleRuns, sample: str) -> None:
    made = probe_image(floor.output(sample))
    assert (made.width, made.height, made.format) == (*PICTURES[sample], "png")
    noun = "openpose" if "openpose" in sample else sample.removeprefix("generate_")
    assert made.path.name.endswith(f"_{noun}.png")


@pytest.mark.parametrize("sample", VIDEOS)
def test_a_video_becomes_an_mp4_of_its_frames_and_rate(floor: SampleRuns, sample: str) -> None:
    made = probe_video(floor.output(sample))
    assert (made.num_frames, (made.width, made.height), made.fps) == VIDEOS[sample]
    assert made.path.suffix == ".mp4"


def test_edges_and_outlines_are_those_of_the_picture(floor: SampleRuns) -> None:
    for sample, draw in (("generate_canny", edge_picture), ("generate_scribble", scribble_picture)):
        assert np.array_equal(read_image(floor.output(sample)), draw(read_image(source(floor, sample))))


def test_frames_are_drawn_each_from_its_own(floor: SampleRuns) -> None:
    """As far as H.264 leaves it: thin lines and colours lose some."""
    frames = list(read_frames(source(floor, "generate_flow")))
    edges, flow = (list(read_frames(floor.output(name))) for name in ("generate_canny.video", "generate_flow"))
    for k in (0, 7, 23, 49):
        assert nearest(edges[k], [edge_picture(frame) for frame in frames[max(k - 3, 0) : k + 4]]) == min(k, 3)
        before = max(k - 1, 0)
        assert np.abs(flow[k].astype(int) - flow_picture(motion(frames[before], frames[before + 1]))).mean() < 3


def nearest(shown: Frame, candidates: list[Frame]) -> int:
    return int(np.argmin([np.abs(shown.astype(int) - each).mean() for each in candidates]))


def test_people_are_drawn_where_they_are(floor: SampleRuns) -> None:
    labels = json.loads((floor.root / "samples" / "joints.json").read_text())
    for sample, name in (("generate_openpose", "astronaut.jpg"), ("openpose", "camera.jpg")):
        shown = read_image(floor.output(sample))
        for joint, tolerance in labels[name]["tolerance_px"].items():
            middle = np.argwhere((shown == COLOURS[joint]).all(axis=2)).mean(axis=0)[::-1]
            assert np.hypot(*(middle - labels[name][joint])) <= tolerance, (name, joint)


def test_depth_is_grey_with_a_relief(floor: SampleRuns) -> None:
    shown = read_image(floor.output("generate_depth"))
    assert shown.min() == 0 and shown.max() == 255 and np.ptp(shown, axis=2).max() == 0
