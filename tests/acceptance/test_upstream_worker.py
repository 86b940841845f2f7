"""A worker with `--wan-dir`: real commands, a real database, and stand-ins for checkouts of three shapes."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from box import Box
from upstream_checkouts import API, OLD, VERSIONS, checkout

from source.doctor.checkout import checkout_checks
from source.doctor.checks import State, examine
from source.doctor.fitness import check_fitness
from source.doctor.weights import weight_checks
from source.errors import ConfigurationError
from source.settings import load_settings
from source.store.opening import open_store
from source.store.types import NewTask, Status
from Wan2GP.media import probe_video

PARAMS = {"model": "t2v", "resolution": "64x48", "video_length": 17, "seed": 7, "prompt": "a cat"}


@pytest.fixture
def box(tmp_path: Path, root: Path) -> Box:
    return Box(root, tmp_path)


def queued(box: Box, prompt: str = "a cat") -> str:
    with closing(open_store(load_settings(db_file=box.database))) as store:
        return store.add(NewTask(task_type="wgp", params=PARAMS | {"prompt": prompt}))


@pytest.mark.slow
def test_a_worker_draws_by_a_checkout_with_the_interpreter_that_it_is_given(box: Box, tmp_path: Path) -> None:
    path = checkout(tmp_path / "checkout", OLD)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$0" >> {tmp_path}/used\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    task = queued(box)
    box.run("worker.py", *box.worker_arguments, "--wan-dir", str(path), "--wan-python", str(python))
    with closing(open_store(load_settings(db_file=box.database))) as store:
        end = store.get(task)
    assert (end.status, end.attempts) == (Status.COMPLETE, 0)
    video = probe_video(tmp_path / "public" / str(end.output_location))
    assert (video.num_frames, video.width, video.height) == (17, 64, 48)
    assert (tmp_path / "used").read_text() == f"{python}\n"


@pytest.mark.slow
def test_a_killed_worker_takes_the_interpreter_with_it(box: Box, tmp_path: Path) -> None:
    path = checkout(tmp_path / "checkout", OLD)
    queued(box, "deaf")
    worker = box.start("worker.py", *box.worker_arguments, "--debug", WAN_DIR=str(path))
    try:
        assert worker.stderr is not None
        assert any("Wan2GP: loading t2v" in line for line in worker.stderr)
        children = psutil.Process(worker.pid).children(recursive=True)
        assert any("__main__.py" in word for child in children for word in child.cmdline())
        os.kill(worker.pid, signal.SIGKILL)
        gone, alive = psutil.wait_procs(children, timeout=10)
        assert len(gone) >= 2 and not alive
    finally:
        worker.kill()
        worker.communicate()


def test_a_folder_that_is_no_checkout_is_refused_with_what_was_looked_for(box: Box, tmp_path: Path) -> None:
    path = checkout(tmp_path / "checkout", OLD)
    (path / "wgp.py").write_text("def something_else():\n    pass\n")
    with pytest.raises(ConfigurationError, match=r"no shared/api\.py, .*neither generate_video nor generate_media"):
        check_fitness(load_settings(wan_dir=path, main_output_dir=tmp_path, db_file=box.database))


@pytest.mark.slow
def test_the_doctor_says_which_checkout_it_is_and_whether_it_can_be_imported(tmp_path: Path) -> None:
    for shape, broken in ((API, {}), (OLD, {"import": "mmgp"})):
        path = checkout(tmp_path / f"checkout of {VERSIONS[shape]}", shape, **broken)
        settings = load_settings(wan_dir=path)
        models = weight_checks(settings, lambda: pytest.fail("no row is looked at"), ["t2v", "t2w"])
        found = {each.check: each.finding for each in examine([*checkout_checks(settings), *models])}
        assert f"Wan2GP {VERSIONS[shape]} at {path} (entry {shape}, 5 model def" in found["checkout"].measured
        assert found["checkout import"].state is (State.FAILED if broken else State.OK)
        assert (found["model t2v"].state, found["model t2w"].state) == (State.OK, State.FAILED)
