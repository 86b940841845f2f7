"""The samples of a picture in a different perspective, run by one worker as a user runs it, and measured.

On tiny models; without RIFE's weights, so that it is quick.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from perspective_runs import checkpoints_with_pose, rows_with_depth
from sample_runs import SampleRuns

from source.store.types import Task
from Wan2GP.media import probe_image, probe_video, read_frame, read_image, resize

#: all samples run before the first test looks
pytestmark = pytest.mark.timeout(600)

#: sample -> frames of the video to the other perspective, and its rate
VIDEOS = {
    "different_perspective_orchestrator": (17, 16),
    "different_perspective_orchestrator.depth": (21, 12),
    "different_pose": (17, 16),
    "dp_final_gen": (17, 16),
}
SAMPLES = frozenset(VIDEOS)


@pytest.fixture(scope="module")
def floor(root: Path, tmp_path_factory: pytest.TempPathFactory) -> SampleRuns:
    folder = tmp_path_factory.mktemp("perspective")
    checkpoints, rows = checkpoints_with_pose(folder / "ckpts"), rows_with_depth(folder)
    where = {"FINETUNES": str(rows), "WAN2GP_CACHE": str(checkpoints)}
    return SampleRuns(root, folder, SAMPLES, timeout_s=500, **where)


def final_row(floor: SampleRuns, sample: str) -> Task:
    """The row of dp_final_gen."""
    return floor.children[sample][-1] if floor.children[sample] else floor.rows[sample]


@pytest.mark.parametrize("sample", VIDEOS)
def test_the_result_is_a_png_and_the_video_to_it_has_exactly_its_frames(floor: SampleRuns, sample: str) -> None:
    made = probe_image(floor.output(sample))
    assert (made.width, made.height, made.format) == (64, 64, "png")
    final = final_row(floor, sample)
    assert final.result_data is not None
    video = probe_video(floor.box.folder / "public" / final.result_data["outputs"][1])
    assert (video.num_frames, video.fps) == VIDEOS[sample]
    last = read_frame(video.path, -1).astype(int)
    assert np.abs(last - read_image(made.path)).mean() < 6


@pytest.mark.parametrize("sample", VIDEOS)
def test_the_video_begins_with_the_picture(floor: SampleRuns, sample: str) -> None:
    final = final_row(floor, sample)
    assert final.result_data is not None
    video = floor.box.folder / "public" / final.result_data["outputs"][1]
    photo = resize(read_image(floor.root / str(floor.box.sample(sample)["input_image_path"])), (64, 64)).astype(int)
    first, last = (np.abs(read_frame(video, index) - photo).mean() for index in (0, -1))
    assert first < last


@pytest.mark.parametrize("sample", sorted(SAMPLES - {"dp_final_gen"}))
def test_an_orchestrator_ends_with_its_last_child_and_each_row_ran_once(floor: SampleRuns, sample: str) -> None:
    rows = floor.children[sample]
    drawing = "generate_depth" if sample.endswith(".depth") else "generate_openpose"
    assert [row.task_type for row in rows] == [drawing, "wgp", "extract_frame", drawing, "dp_final_gen"]
    assert floor.rows[sample].output_location == rows[-1].output_location
    completions = floor.box.completions()
    assert all(completions[row.id] == 1 for row in (*rows, floor.rows[sample]))
    sizes = [(probe_image(floor.output_of(row)).width, probe_image(floor.output_of(row)).height) for row in rows]
    own = probe_image(floor.root / str(floor.box.sample(sample)["input_image_path"]))
    wanted = [(own.width, own.height)] + [(64, 64)] * 4
    assert sizes == wanted
