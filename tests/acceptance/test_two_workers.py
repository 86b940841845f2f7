"""Two workers on one SQLite file share a travel's segments and a join's transitions; killing one loses nothing."""

from __future__ import annotations

import signal
import subprocess
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from box import SHORT_LEASE, Box

from source.store.sqlite import SqliteStore
from source.store.types import Status
from Wan2GP.media import probe_video, write_video

SIZE = (96, 64)
SEGMENTS, FRAMES = 6, 33
CLIPS, CLIP_FRAMES = 6, 40


@pytest.fixture
def box(root: Path, tmp_path: Path) -> Box:
    return Box(root, tmp_path)


def queue_travel(box: Box) -> str:
    """An unchained travel: no segment waits for another."""
    images = ["samples/chelsea.jpg", "samples/coffee.jpg"] * SEGMENTS
    return box.queue_travel(
        chain_segments=False, stitch=True, parsed_resolution_wh=f"{SIZE[0]}x{SIZE[1]}",
        input_image_paths_resolved=images[: SEGMENTS + 1], num_new_segments_to_generate=SEGMENTS,
        segment_frames_expanded=[FRAMES] * SEGMENTS, frame_overlap_expanded=4,
        base_prompts_expanded=["a"] * SEGMENTS, negative_prompts_expanded=[""] * SEGMENTS,
    )  # fmt: skip


def queue_join(box: Box) -> str:
    """Six clips of one colour each, with a ramp that moves."""
    clips = []
    for number in range(CLIPS):
        path = box.folder / f"clip{number}.mp4"
        ramp = np.linspace(0, 80, SIZE[0], dtype=np.uint8)
        frames = (
            np.broadcast_to(np.roll(ramp, index)[None, :, None] + np.uint8(20 * number), (SIZE[1], SIZE[0], 3)).copy()
            for index in range(CLIP_FRAMES)
        )
        write_video(path, frames, fps=16)
        clips.append({"url": str(path), "name": path.name})
    details = {
        "run_id": "share", "clip_list": clips, "model": "draft", "prompt": "go on",
        "context_frame_count": 4, "gap_frame_count": 25, "fps": 16,
    }  # fmt: skip
    return box.add("join_clips_orchestrator", {"orchestrator_details": details})


JOBS = {
    "an unchained travel": (queue_travel, "travel_segment", SEGMENTS * FRAMES - (SEGMENTS - 1) * 4),
    "a join of six clips": (queue_join, "join_clips_segment", CLIPS * CLIP_FRAMES + (CLIPS - 1) * 25),
}


@pytest.mark.parametrize(("job", "killed"), [("an unchained travel", True), ("a join of six clips", False)])
def test_two_workers_share_a_job(box: Box, job: str, killed: bool) -> None:
    """Each job and each fate once. Of the other pairs: test_join_workers.py kills a worker in such a join, and that
    two share a travel is seen here before one of them is killed."""
    queue, shared, total = JOBS[job]
    task = queue(box)
    workers = [box.start("worker.py", *box.worker_arguments, "--worker", name, **SHORT_LEASE) for name in ("a", "b")]
    try:
        if killed:
            wait_until_two_hold(box, task, shared, workers)
            workers[0].send_signal(signal.SIGKILL)
        survivors = workers[1:] if killed else workers
        for worker in survivors:
            _, errors = worker.communicate(timeout=170)
            assert worker.returncode == 0, errors
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    view = box.view(task)
    assert view["status"] == "Complete", view["error_message"]
    assert probe_video(box.video(view)).num_frames == total
    with closing(SqliteStore(box.database)) as store:
        parts = [row for row in store.children(task) if row.task_type == shared]
    assert {part.status for part in parts} == {Status.COMPLETE}
    assert {count for _, count in box.completions().items()} == {1}
    if not killed:
        assert {str(part.worker_id)[0] for part in parts} == {"a", "b"}


def wait_until_two_hold(box: Box, task: str, task_type: str, workers: list[subprocess.Popen[str]]) -> None:
    """Return as soon as each worker holds a child of that type; the database says so."""
    store = SqliteStore(box.database)
    try:
        while all(worker.poll() is None for worker in workers):
            rows = [row for row in store.children(task) if row.task_type == task_type]
            running = {str(row.worker_id)[0] for row in rows if row.status is Status.IN_PROGRESS}
            if running == {"a", "b"}:
                return
            store.wait_for_change(0.25)
    finally:
        store.close()
    raise AssertionError("the workers never shared the job")
