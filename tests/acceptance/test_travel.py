"""The main job end to end, as a user runs it: real commands, a real database file, real photos, the draft model."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from box import SHORT_LEASE, Box
from skimage.metrics import structural_similarity

from source.media.analysis import difference_profile
from source.store.sqlite import SqliteStore
from source.store.types import Task
from Wan2GP.media import probe_video, read_frame, read_frames, read_image, resize

SIZE = (192, 128)
FRAMES = [49, 49]
OVERLAP = 12
TOTAL = 98
ANCHORS = (0, 48, 97)


@pytest.fixture
def box(root: Path, tmp_path: Path) -> Box:
    return Box(root, tmp_path)


def photo(root: Path, name: str) -> np.ndarray:
    return resize(read_image(root / "samples" / name), SIZE)


@pytest.fixture(scope="module")
def finished(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Box, dict[str, Any]]:
    """One travel, finished; the tests below look at it from many sides."""
    box = Box(root, tmp_path_factory.mktemp("travel"))
    task = box.queue_travel(parsed_resolution_wh=f"{SIZE[0]}x{SIZE[1]}")
    box.work()
    return box, box.view(task)


def test_the_stitched_video_has_exactly_the_planned_frames(finished: tuple[Box, dict[str, Any]]) -> None:
    box, view = finished
    assert view["status"] == "Complete", view["error_message"]
    made = probe_video(box.video(view))
    assert (made.num_frames, made.width, made.height, float(made.fps)) == (TOTAL, *SIZE, 16.0)


def test_each_photo_is_at_its_anchor(finished: tuple[Box, dict[str, Any]], root: Path) -> None:
    box, view = finished
    for position, name in zip(ANCHORS, ("chelsea.jpg", "coffee.jpg", "rocket.jpg"), strict=True):
        shown = read_frame(box.video(view), position)
        assert structural_similarity(shown, photo(root, name), channel_axis=2) >= 0.9, name


def test_no_frame_is_repeated_or_dropped_at_the_join(finished: tuple[Box, dict[str, Any]]) -> None:
    """Outside the overlap the stitched frames are the segments' frames, one for one; inside it the motion goes on."""
    box, view = finished
    segments = [child for child in view["children"] if child["task_type"] == "travel_segment"]
    first, second = (
        list(read_frames(box.video(child))) for child in sorted(segments, key=lambda child: child["child_key"])
    )
    stitched = list(read_frames(box.video(view)))
    assert (len(first), len(second)) == (FRAMES[0], FRAMES[1] + OVERLAP)
    expected = [*first[:-OVERLAP], *second]
    for index, (frame, source) in enumerate(zip(stitched, expected, strict=True)):
        assert np.abs(frame.astype(int) - source).mean() < 4.0, index
    motion = difference_profile(box.video(view))
    assert (motion > 0).all()
    around = motion[FRAMES[0] - OVERLAP - 2 : FRAMES[0] + 2]
    assert around.max() < 4 * np.median(motion)


def test_it_plays_in_a_browser(finished: tuple[Box, dict[str, Any]]) -> None:
    box, view = finished
    video = box.video(view)
    made = probe_video(video)
    assert (made.codec, made.pix_fmt) == ("h264", "yuv420p")
    data = video.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_the_timeline_tells_what_happened(finished: tuple[Box, dict[str, Any]]) -> None:
    _, view = finished
    names = [event["name"] for event in view["timeline"]]
    assert names[0] == "queued"
    assert "claimed" in names
    assert names[-1] == "complete"
    assert [child["status"] for child in view["children"]] == ["Complete"] * 3


def test_nothing_is_left_in_the_scratch_folder(finished: tuple[Box, dict[str, Any]]) -> None:
    box, _ = finished
    assert not [path for path in (box.folder / "outputs").rglob("*") if path.is_file()]


def test_a_killed_worker_loses_nothing(box: Box) -> None:
    """kill -9 while the second segment is generated; another worker finishes, each row once, same frame count."""
    task = box.queue_travel(segment_frames_expanded=[17, 49], parsed_resolution_wh="96x64", frame_overlap_expanded=[4])
    interrupted = killed_when(box, task, "travel_segment:1", lambda row: bool(row.progress) and not row.terminal)
    assert interrupted["status"] == "In Progress"
    finished_by_another(box, task, frames=66)
    assert box.view(interrupted["id"])["attempts"] == 1


def test_a_worker_killed_between_the_segments_and_their_stitch_loses_nothing(box: Box) -> None:
    """The segments are not made again."""
    task = box.queue_travel(segment_frames_expanded=[17, 17], parsed_resolution_wh="96x64", frame_overlap_expanded=[4])
    last = killed_when(box, task, "travel_segment:1", lambda row: row.terminal)
    assert last["status"] == "Complete"
    finished_by_another(box, task, frames=34)
    assert box.view(last["id"])["attempts"] == 0


def killed_when(box: Box, task: str, key: str, reached: Callable[[Task], bool]) -> dict[str, Any]:
    """The child `key` of a travel whose worker was killed by kill -9 as soon as the child had come that far."""
    worker = box.start("worker.py", *box.worker_arguments, **SHORT_LEASE)
    try:
        wait_until(worker, box, task, key, reached)
    finally:
        worker.send_signal(signal.SIGKILL)
        worker.communicate()
    return child(box.view(task), key)


def finished_by_another(box: Box, task: str, frames: int) -> None:
    box.work(**SHORT_LEASE)
    view = box.view(task)
    assert view["status"] == "Complete", view["error_message"]
    assert probe_video(box.video(view)).num_frames == frames
    ended = box.completions()
    assert set(ended) == {task, *(each["id"] for each in view["children"])}
    assert set(ended.values()) == {1}


def child(view: dict[str, Any], key: str) -> dict[str, Any]:
    return next(each for each in view["children"] if each["child_key"] == key)


def wait_until(worker: subprocess.Popen[str], box: Box, task: str, key: str, reached: Callable[[Task], bool]) -> None:
    """Return as soon as the child has come that far; the database says so."""
    store = SqliteStore(box.database)
    try:
        while worker.poll() is None:
            if any(row.child_key == key and reached(row) for row in store.children(task)):
                return
            store.wait_for_change(1.0)
    finally:
        store.close()
    raise AssertionError(f"the worker ended before the segment ran: {worker.communicate()[1]}")
