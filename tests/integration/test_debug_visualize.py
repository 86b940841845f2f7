"""`debug.py visualize`: a finished travel is drawn from its rows."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from worker_floor import Floor

from source.diagnostics.travels import visualize_travel
from source.errors import InvalidInput, InvalidMedia
from source.media.timeline_strip import Strip, thumbnail_boxes
from source.media.visualization import arrange
from source.planning.timeline import timeline_for
from source.store.types import Status, Task
from source.task_registry import registry
from Wan2GP.media import Frame, probe_video, read_frame, write_image, write_video

SIZE = (96, 64)
COLOURS = [(220, 40, 40), (40, 200, 60), (50, 60, 230)]


def solid(colour: tuple[int, int, int]) -> Frame:
    return np.full((SIZE[1], SIZE[0], 3), colour, np.uint8)


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    return [write_image(tmp_path / f"image{index}.png", solid(colour)) for index, colour in enumerate(COLOURS)]


@pytest.fixture
def floor(tmp_path: Path) -> Iterator[Floor]:
    floor = Floor(tmp_path)
    yield floor
    floor.close()


def assert_colour(frame: Frame, place: tuple[int, int, int, int], wanted: tuple[int, int, int]) -> None:
    """Mean colour of the middle of a box (x, y, width, height)."""
    x, y, width, height = place
    middle = frame[y + height // 4 : y + height * 3 // 4, x + width // 4 : x + width * 3 // 4]
    assert np.abs(middle.reshape(-1, 3).mean(axis=0) - wanted).max() <= 16


def travelled(floor: Floor, images: list[Path], **changes: Any) -> Task:
    details = {
        "run_id": "run", "model_name": "fake_vace", "model_type": "vace", "segment_frames_expanded": [9, 9],
        "input_image_paths_resolved": [str(path) for path in images], "frame_overlap_expanded": 4,
        "base_prompts_expanded": ["one", "two"], "parsed_resolution_wh": "96x64", "fps_helpers": 12,
    }  # fmt: skip
    task = floor.add("travel_orchestrator", orchestrator_details=details | changes)
    assert floor.worker(registry=registry()).run(until_idle=True) == 0
    row = floor.store.get(task)
    assert row.status is Status.COMPLETE, row.error_message
    return row


def test_a_finished_travel_is_drawn_from_its_rows(floor: Floor, images: list[Path], tmp_path: Path) -> None:
    row = travelled(floor, images)
    answer = visualize_travel(floor.store, floor.settings, row.id, tmp_path / "travel.mp4")
    made = probe_video(tmp_path / "travel.mp4")
    assert answer == {
        "id": row.id,
        "output": str(tmp_path / "travel.mp4"),
        "num_frames": 18,
        "size": [made.width, made.height],
    }
    assert (made.num_frames, float(made.fps)) == (18, 12)
    strip = Strip(made.width, 150, timeline_for([9, 9], [4], 18))
    places, frame = arrange("triple", [SIZE]), read_frame(made.path, 5)
    for (x, y, width, height), colour in zip(
        thumbnail_boxes(strip, [solid(each) for each in COLOURS]), COLOURS, strict=True
    ):
        assert_colour(frame, (x, places.strip.y + y, width, height), colour)


def test_the_guidance_of_a_travel_stands_beside_it(floor: Floor, images: list[Path], tmp_path: Path) -> None:
    frames = [solid((30 + 10 * index, 0, 0)) for index in range(18)]
    guide = write_video(tmp_path / "guide.mp4", frames, fps=12).path
    structure = {"videos": [{"path": str(guide), "treatment": "clip"}], "target": "vace", "preprocessing": "none"}
    row = travelled(floor, images, structure_guidance=structure)
    visualize_travel(floor.store, floor.settings, row.id, tmp_path / "travel.mp4")
    box = arrange("triple", [SIZE, SIZE]).panels[0]
    for index in (0, 8, 17):
        frame = read_frame(tmp_path / "travel.mp4", index)
        assert_colour(frame, (box.x, box.y, box.width, box.height), (30 + 10 * index, 0, 0))


def test_a_travel_that_cannot_be_drawn_says_why(floor: Floor, images: list[Path], tmp_path: Path) -> None:
    target = tmp_path / "travel.mp4"
    apart = travelled(floor, images, chain_segments=False)
    with pytest.raises(InvalidInput, match="not joined"):
        visualize_travel(floor.store, floor.settings, apart.id, target)
    row = travelled(floor, images)
    segment = floor.store.children(row.id)[0]
    with pytest.raises(InvalidInput, match=row.id):
        visualize_travel(floor.store, floor.settings, segment.id, target)
    waiting = floor.add("travel_orchestrator")
    with pytest.raises(InvalidInput, match="Queued"):
        visualize_travel(floor.store, floor.settings, waiting, target)
    images[1].unlink()
    with pytest.raises(InvalidMedia, match="input image 1"):
        visualize_travel(floor.store, floor.settings, row.id, target)
    floor.output(row.id).unlink()
    with pytest.raises(InvalidMedia, match=floor.output(row.id).name):
        visualize_travel(floor.store, floor.settings, row.id, target)
    assert not target.exists()


def test_debug_visualize_writes_the_file_or_says_why_not(
    floor: Floor, images: list[Path], tmp_path: Path, root: Path
) -> None:
    def shown(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "debug.py", "visualize", *arguments, "--db-file", str(floor.settings.db_file)]
        return subprocess.run(command, cwd=root, text=True, capture_output=True, check=False)

    row, target = travelled(floor, images), tmp_path / "travel.mp4"
    answer = shown(row.id, "-o", str(target), "--layout", "vertical")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout.split() == [str(target), "18", "frames"]
    assert probe_video(target).height == arrange("vertical", [SIZE]).size[1]
    odd = tmp_path / ("a long name " * 15) / "take [b] 1.mp4"
    odd.parent.mkdir()
    assert shown(row.id, "-o", str(odd)).stdout == f"{odd}  18 frames\n", "in one line, brackets and all"
    for arguments, said in (
        (("nobody",), "nobody"),
        ((row.id, "-o", str(tmp_path / "travel.avi")), ".mp4"),
        ((row.id, "-o", str(images[0] / "travel.mp4")), "debug.py:"),
    ):
        answer = shown(*arguments)
        assert (answer.returncode, answer.stdout) == (1, "")
        assert said in answer.stderr
        assert "Traceback" not in answer.stderr
