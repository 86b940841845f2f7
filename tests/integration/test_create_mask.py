"""create_mask through a whole worker, with SAM 2 on tiny random weights, and with the shipped fake."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_runs import picture
from tiny_models import write_definition
from tiny_sam2 import tiny_sam2
from worker_floor import Floor

from headless.orchestrator import WanOrchestrator
from source.store.types import Status, Task
from source.task_registry import registry
from Wan2GP import wgp
from Wan2GP.media import probe_video, read_frames, read_image, write_image, write_video

SIZE, FRAMES, FPS = (48, 32), 7, Fraction(30000, 1001)
CLICK = [{"frame": 2, "points": [[24, 16]]}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_sam2(tmp_path_factory.mktemp("weights") / "sam2")


@pytest.fixture
def floor(tmp_path: Path, folder: Path) -> Iterator[Floor]:
    rows = write_definition(tmp_path / "rows", "tiny_sam2", "sam2", folder)
    made = Floor(tmp_path, WanOrchestrator(checkpoints=tmp_path / "ckpts", definitions=[rows], device="cpu"))
    yield made
    made.close()
    wgp.release_model()


@pytest.fixture
def video(tmp_path: Path) -> str:
    frames = [picture(number, *SIZE) for number in range(FRAMES)]
    return str(write_video(tmp_path / "shown.mp4", frames, fps=FPS).path)


def run(floor: Floor, task_type: str = "create_mask", **params: Any) -> Task:
    task = floor.add(task_type, **{"model": "tiny_sam2"} | params)
    assert floor.worker(registry=registry()).run(until_idle=True) == 0
    return floor.store.get(task)


def output(floor: Floor, row: Task) -> Path:
    assert row.status is Status.COMPLETE, row.error_message
    return floor.output(row.id)


def test_a_video_gets_a_mask_for_each_frame_at_its_own_size_and_rate(floor: Floor, video: str) -> None:
    row = run(floor, input_video_path=video, mask_prompts=CLICK)
    path = output(floor, row)
    info = probe_video(path)
    assert (path.suffix, info.num_frames, info.width, info.height, info.fps) == (".mp4", FRAMES, *SIZE, FPS)
    masks = np.stack(list(read_frames(path))).astype(int)
    far = np.minimum(masks, 255 - masks)
    assert (far <= 8).mean() > 0.95 and far.max() < 100, "black or white, but for the codec's rounding"
    assert 0.02 < (masks > 127).mean() < 0.98
    found = row.result_data or {}
    assert found["num_frames"] == FRAMES and found["model"] == "tiny_sam2"
    assert found["selected"] == pytest.approx((masks > 127).mean(), abs=0.01)


def test_inverting_selects_the_rest_and_older_names_are_known(floor: Floor, video: str) -> None:
    plain = output(floor, run(floor, video=video, prompts=CLICK))
    rest = output(floor, run(floor, video_path=video, mask_prompts=CLICK, invert=True))
    for one, other in zip(read_frames(plain), read_frames(rest), strict=True):
        assert np.array_equal(one > 127, other <= 127)


def test_an_image_gets_a_png_of_its_exact_size(floor: Floor, tmp_path: Path) -> None:
    shown = str(write_image(tmp_path / "odd.png", picture(3, 51, 37)))
    row = run(floor, image=shown, mask_prompts=[{"box": [5, 5, 40, 30]}])
    mask = read_image(output(floor, row))
    assert mask.shape == (37, 51, 3) and set(np.unique(mask)) <= {0, 255}
    assert (row.result_data or {})["selected"] == pytest.approx(mask.mean() / 255, abs=1e-3)


def test_a_video_of_odd_sides_loses_a_pixel_as_every_mp4_does(floor: Floor, tmp_path: Path) -> None:
    odd = write_video(tmp_path / "odd.mkv", [picture(1, 35, 33)] * 2, fps=8, codec="ffv1").path
    info = probe_video(output(floor, run(floor, video=str(odd), mask_prompts=[{"points": [[34, 32]]}])))
    assert (info.width, info.height, info.num_frames) == (34, 32, 2)


def test_the_output_of_another_task_is_masked(floor: Floor, video: str, tmp_path: Path) -> None:
    first = run(floor, video=video, mask_prompts=CLICK)
    second = run(floor, input_video_task_id=first.id, mask_prompts=CLICK)
    assert probe_video(output(floor, second)).num_frames == FRAMES
    near = [{"points": [[9, 9]]}]
    still = run(floor, image=str(write_image(tmp_path / "a.png", picture(3, 40, 30))), mask_prompts=near)
    again = run(floor, input_video_task_id=still.id, mask_prompts=near)
    assert read_image(output(floor, again)).shape == (30, 40, 3)


def test_an_output_that_shows_nothing_is_refused_by_its_field(floor: Floor, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    made = floor.add("nothing")
    [claimed] = floor.store.claim("somebody", lease_s=60, limit=1)
    floor.store.complete(claimed.claim, str(tmp_path / "notes.txt"))
    row = run(floor, input_video_task_id=made, mask_prompts=CLICK)
    assert row.status is Status.FAILED
    assert (row.error_message or "").startswith("input_video_task_id: ") and "not a video" in (row.error_message or "")


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({"mask_prompts": None}, "mask_prompts: is missing"),
        (
            {"mask_prompts": [{"frame": 9, "points": [[1, 1]]}]},
            "mask_prompts: entry 0: there is no frame 9; there are 7",
        ),
        ({"video": None}, "video: is missing"),
        ({"image": "samples/camera.jpg"}, "video and image are given"),
        ({"model": "draft"}, "draft makes no masks"),
        ({"input_video_task_id": "nowhere", "video": None}, "nowhere"),
    ],
)
def test_a_row_that_cannot_be_meant_fails_and_says_why(floor: Floor, video: str, params, reason) -> None:
    row = run(floor, **{"video": video, "mask_prompts": CLICK} | params)
    assert row.status is Status.FAILED and row.error_class == "bad_input"
    assert reason in (row.error_message or "")


def test_without_its_weights_the_row_fails_with_the_command_that_fetches_them(floor: Floor, video: str) -> None:
    row = run(floor, video=video, mask_prompts=CLICK, model="sam2_hiera_large")
    assert row.status is Status.FAILED and "Wan2GP.models fetch sam2_hiera_large" in (row.error_message or "")
