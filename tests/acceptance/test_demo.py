"""`make demo` as a newcomer runs it: what it prints is there, and is what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from training.tiny_wan.measure import largest_jump, ssim
from Wan2GP.media import probe_image, probe_video, read_frames, read_image

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def run_demo(root: Path, folder: Path, *more: str) -> dict[str, str]:
    """What the demo said, by the word at the beginning of each line."""
    made = subprocess.run(
        [sys.executable, "scripts/demo.py", "--folder", str(folder), *more], cwd=root, text=True, capture_output=True,
        check=False, env=os.environ | {"OMP_NUM_THREADS": "2"},
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    return dict(line.split(maxsplit=1) for line in made.stdout.splitlines() if not line.startswith(" "))


@pytest.fixture(scope="module")
def printed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return run_demo(root, tmp_path_factory.mktemp("demo") / "made")


def test_the_tiny_travel_passes_through_the_given_shapes(root: Path, tmp_path: Path) -> None:
    printed = run_demo(root, tmp_path / "made", "--tiny")
    frames = list(read_frames(printed["video"]))
    assert len(frames) == 30
    details = json.loads((root / "samples/shapes/travel_orchestrator.json").read_text())["orchestrator_details"]
    for frame, picture in zip((0, 16, 29), details["input_image_paths_resolved"], strict=True):
        assert ssim(frames[frame], read_image(root / picture)) >= 0.8, picture
    assert largest_jump(np.stack(frames)) <= 5


def test_the_video_is_the_planned_one(printed: dict[str, str]) -> None:
    made = probe_video(printed["video"])
    assert (made.num_frames, made.width, made.height, float(made.fps)) == (98, 384, 256, 16.0)
    assert (made.codec, made.pix_fmt) == ("h264", "yuv420p")


def test_the_contact_sheet_is_a_picture_to_look_at(printed: dict[str, str]) -> None:
    sheet = Path(printed["contact"])
    assert sheet.read_bytes().startswith(b"\x89PNG")
    info = probe_image(sheet)
    assert 600 <= info.width <= 4000
    assert 200 <= info.height <= 4000


def test_the_timeline_tells_of_every_child(printed: dict[str, str], root: Path) -> None:
    database = Path(printed["timeline"]).with_name("tasks.db")
    command = [sys.executable, "debug.py", "task", printed["queued"], "--json", "--db-file", str(database)]
    view = json.loads(subprocess.run(command, cwd=root, text=True, capture_output=True, check=True).stdout)
    told = Path(printed["timeline"]).read_text()
    assert len(view["children"]) == 3
    for task in (view, *view["children"]):
        assert f"{task['task_type']} {task['id']}: Complete" in told


def test_it_says_how_long_it_took(printed: dict[str, str]) -> None:
    assert float(printed["took"].removesuffix(" s")) < 180


def test_a_folder_that_is_there_is_left_alone(root: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    command = [sys.executable, "scripts/demo.py", "--folder", str(tmp_path)]
    made = subprocess.run(command, cwd=root, text=True, capture_output=True, check=False)
    assert made.returncode == 1
    assert str(tmp_path) in made.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
