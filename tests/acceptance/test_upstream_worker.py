"""A worker with `--wan-dir`: real commands, a real database, and stand-ins for checkouts of three shapes."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest
from box import Box
from upstream_checkouts import API, OLD, SHAPES, VERSIONS, calls, checkout

from Wan2GP.media import probe_video

PARAMS = {"model": "t2v", "resolution": "64x48", "video_length": 17, "seed": 7}


@pytest.fixture
def box(tmp_path: Path, root: Path) -> Box:
    return Box(root, tmp_path)


def queued(box: Box, prompt: str, **params: object) -> str:
    return box.add("wgp", PARAMS | {"prompt": prompt} | params)


def worked(box: Box, path: Path, **environment: str) -> str:
    return box.work(WAN_DIR=str(path), RETRY_DELAY_S="0", **environment)


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_tasks_are_done_by_a_checkout_and_its_crash_costs_one_attempt(box: Box, tmp_path: Path, shape: str) -> None:
    path = checkout(tmp_path / "checkout", shape)
    first, crashed, last = queued(box, "a cat"), queued(box, "it dies once"), queued(box, "a dog", video_length=21)
    worked(box, path)
    views = [box.view(task) for task in (first, crashed, last)]
    assert [view["status"] for view in views] == ["Complete"] * 3
    assert [view["attempts"] for view in views] == [0, 1, 0]
    videos = [probe_video(box.video(view)) for view in views]
    assert [(each.num_frames, each.width, each.height) for each in videos] == [(17, 64, 48), (17, 64, 48), (21, 64, 48)]
    assert [each["settings"]["prompt"] for each in calls(path)].count("it dies once") == 2
    assert "hf_0123456789" not in json.dumps(views)


@pytest.mark.slow
def test_a_killed_worker_takes_the_interpreter_with_it(box: Box, tmp_path: Path) -> None:
    path = checkout(tmp_path / "checkout", OLD)
    queued(box, "deaf")
    worker = box.start("worker.py", *box.worker_arguments, WAN_DIR=str(path))
    try:
        assert worker.stderr is not None
        while not calls(path):
            assert worker.poll() is None, worker.stderr.read()
        children = psutil.Process(worker.pid).children(recursive=True)
        assert any("__main__.py" in word for child in children for word in child.cmdline())
        os.kill(worker.pid, signal.SIGKILL)
        gone, alive = psutil.wait_procs(children, timeout=10)
        assert len(gone) >= 2 and not alive
    finally:
        worker.kill()
        worker.communicate()


@pytest.mark.slow
def test_the_doctor_says_which_checkout_it_is_and_whether_it_can_be_imported(box: Box, tmp_path: Path) -> None:
    for shape, broken in ((API, None), (OLD, "mmgp")):
        path = checkout(tmp_path / f"checkout of {VERSIONS[shape]}", shape, **({"import": broken} if broken else {}))
        box.add("wgp", PARAMS | {"prompt": "a cat"})
        doctor = box.start("debug.py", "doctor", "--json", WAN_DIR=str(path))
        out, _ = doctor.communicate(timeout=120)
        checks = {each["check"]: each for each in json.loads(out)["checks"]}
        assert (
            f"Wan2GP {VERSIONS[shape]} at {path} (entry {shape}, 5 model definitions)" in checks["checkout"]["measured"]
        )
        assert checks["checkout import"]["state"] == ("failed" if broken else "ok")
        assert "weights" not in checks


def test_a_folder_that_is_no_checkout_is_refused_with_what_was_looked_for(box: Box, tmp_path: Path) -> None:
    path = checkout(tmp_path / "checkout", OLD)
    (path / "wgp.py").write_text("def something_else():\n    pass\n")
    worker = box.start("worker.py", *box.worker_arguments, WAN_DIR=str(path))
    _, err = worker.communicate(timeout=60)
    assert worker.returncode == 1
    assert "no shared/api.py" in err and "neither generate_video nor generate_media" in err


@pytest.mark.slow
def test_a_checkout_that_cannot_be_imported_stops_the_worker_before_it_claims(box: Box, tmp_path: Path) -> None:
    path = checkout(tmp_path / "checkout", OLD, **{"import": "mmgp"})
    task = queued(box, "a cat")
    with pytest.raises(AssertionError, match="ended its process while it was imported"):
        worked(box, path)
    assert (box.view(task)["status"], box.view(task)["attempts"]) == ("Queued", 0)


@pytest.mark.slow
def test_an_interpreter_of_its_own_environment_drives_a_checkout(box: Box, tmp_path: Path) -> None:
    """Its Python is another one than ours: nothing of our packages is looked for in it."""
    path = checkout(tmp_path / "checkout", OLD)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$0" >> {tmp_path}/used\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    task = queued(box, "a cat")
    worked(box, path, WAN_PYTHON=str(python))
    assert box.view(task)["status"] == "Complete"
    assert (tmp_path / "used").read_text() == f"{python}\n"
