"""The ComfyUI of a worker: how it starts, stays and ends, what becomes of the GPU, and what a broken one costs."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import requests
from comfy_shop import (
    LONG,
    QUICK_STEPS,
    add,
    asked,
    comfy_folder,
    living_comfy,
    new_floor,
    running,
    until,
    worked,
)
from same_media import same_media
from worker_floor import Floor

from headless.testing import FakeOrchestrator, Gate
from source.comfy.program import ComfyProgram
from source.store.types import Status
from source.task_registry import registry


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return comfy_folder(tmp_path / "comfy")


@pytest.fixture
def floor(tmp_path: Path, folder: Path) -> Iterator[Floor]:
    floor = new_floor(tmp_path, folder)
    yield floor
    floor.close()


@pytest.fixture
def video(samples: Path) -> Path:
    return samples / "bbb_320x180_keyframes.mp4"


def test_the_program_stays_for_the_next_task_and_ends_with_the_worker(
    floor: Floor, folder: Path, video: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    tasks = [add(floor, video), add(floor, video)]
    floor.work()
    assert [floor.store.get(task).status for task in tasks] == [Status.COMPLETE] * 2
    assert sum("starting ComfyUI" in each.message for each in caplog.records) == 1
    until(lambda: not running(folder), 5)


def test_a_stopped_worker_ends_the_program_with_its_workflow(floor: Floor, folder: Path, video: Path) -> None:
    task = add(floor, video, LONG)
    with floor.working() as worker:
        floor.wait_until(lambda: (floor.store.get(task).progress or {}).get("total") == 600)
        stopped_at = time.monotonic()
        worker.stop()
        gone_at = until(lambda: not running(folder))
    assert gone_at - stopped_at < 3
    row = floor.store.get(task)
    assert (row.status, row.attempts) == (Status.QUEUED, 0)
    assert asked(folder, "interrupt") == []


WORKER = """
import sys
from pathlib import Path
from worker_floor import Floor
from source.task_registry import registry
folder = Path(sys.argv[1])
floor = Floor(folder, comfy_path=folder / "comfy", comfy_port=0)
floor.registry.register(registry().get("comfy"))
floor.work()
"""


def test_the_program_dies_with_a_killed_worker(floor: Floor, folder: Path, video: Path, root: Path) -> None:
    task = add(floor, video, LONG)
    paths = {"PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}"}
    worker = subprocess.Popen([sys.executable, "-c", WORKER, str(folder.parent)], env=os.environ | paths, cwd=root)
    floor.wait_until(lambda: (floor.store.get(task).progress or {}).get("total") == 600)
    assert running(folder)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    until(lambda: not running(folder), 5)


def test_a_crash_in_mid_run_is_tried_again_with_a_new_program(
    floor: Floor, folder: Path, video: Path, tmp_path: Path
) -> None:
    row = worked(floor, task := add(floor, video, ("Crash", {"once": str(tmp_path / "crashed")})))
    assert (row.status, row.attempts) == (Status.COMPLETE, 1), row.error_message
    assert len(asked(folder, "prompt")) == 2
    [retry] = [event for event in floor.store.events(task) if event.name == "retry"]
    assert "exit code 7" in (retry.detail or "") and "Segmentation fault" in (retry.detail or "")


def test_a_failed_start_says_why_and_the_next_task_starts_it_anew(tmp_path: Path, folder: Path, video: Path) -> None:
    broken = tmp_path / "broken"
    broken.touch()
    floor = new_floor(tmp_path, folder, comfy_args=f"--fail-while '{broken}'", max_attempts=1)
    with floor.working():
        first = floor.wait_for(add(floor, video), Status.FAILED)
        assert "ComfyUI did not start (exit code 1; its last words: no GPU was found)" in (first.error_message or "")
        broken.unlink()
        floor.wait_for(add(floor, video), Status.COMPLETE)
    floor.close()


def test_a_port_of_somebody_else_is_not_taken_for_a_comfyui(tmp_path: Path, folder: Path, video: Path) -> None:
    with closing(socket.socket()) as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        floor = new_floor(tmp_path, folder, comfy_port=port)
        row = worked(floor, add(floor, video))
    assert (row.status, row.error_class) == (Status.FAILED, "program_unavailable")
    assert f"port {port} is in use by another program" in (row.error_message or "")
    assert not (folder / "pid").exists()
    floor.close()


def test_it_listens_on_this_machine_alone_and_gets_no_secret(
    tmp_path: Path, folder: Path, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPLICATE_API_TOKEN", "r8_secret")
    monkeypatch.setenv("HUGGING_FACE_HUB_TOKEN", "hf_secret")
    (folder / "main.py").write_text(
        "import json, os, pathlib, sys\n"
        "pathlib.Path('told.json').write_text(json.dumps([sys.argv[1:], dict(os.environ)]))\n"
    )
    floor = new_floor(tmp_path, folder, comfy_args="--lowvram --preview-method 'none'", max_attempts=1)
    worked(floor, add(floor, video))
    arguments, environment = json.loads((folder / "told.json").read_text())
    assert arguments[:3] == ["--listen", "127.0.0.1", "--port"]
    assert arguments[4:] == ["--lowvram", "--preview-method", "none"]
    assert environment["PATH"] == os.environ["PATH"]
    assert not {"REPLICATE_API_TOKEN", "HUGGING_FACE_HUB_TOKEN"} & environment.keys()
    floor.close()


def test_a_flood_of_output_blocks_nothing(floor: Floor, video: Path) -> None:
    row = worked(floor, add(floor, video, ("Flood", {"megabytes": 4})))
    assert row.status is Status.COMPLETE, row.error_message


def test_without_the_websocket_the_history_is_asked(floor: Floor, video: Path) -> None:
    started_at = time.monotonic()
    row = worked(floor, task := add(floor, video, ("DropSockets", {}), QUICK_STEPS))
    assert row.status is Status.COMPLETE, row.error_message
    assert same_media(floor.output(task), video)
    assert time.monotonic() - started_at < 10


def test_what_a_dead_worker_left_in_a_living_comfyui_is_taken_back(tmp_path: Path, folder: Path, video: Path) -> None:
    with living_comfy(folder) as url:
        floor = new_floor(tmp_path, folder, comfy_url=url)
        task = add(floor, video)
        old = {"2": {"class_type": "Work", "inputs": {"steps": 1000, "seconds": 0.05}}}
        left = requests.post(f"{url}/prompt", json={"prompt": old, "client_id": f"{task}:0"}, timeout=5).json()
        row = worked(floor, task)
        assert row.status is Status.COMPLETE, row.error_message
        assert [each["prompt_id"] for each in asked(folder, "interrupt")] == [left["prompt_id"]]
        floor.close()


# -- the GPU


def test_no_generation_runs_beside_a_workflow_and_each_has_the_memory_alone(
    tmp_path: Path, folder: Path, video: Path
) -> None:
    """Our model is unloaded before, ComfyUI is asked to free its memory after."""
    gate = Gate()
    floor = Floor(tmp_path, FakeOrchestrator(gate=gate), comfy_path=folder, comfy_port=0)
    floor.registry.register(registry().get("comfy"))
    drawing = floor.add("draw", resolution="32x32", video_length=5)
    with floor.working():
        gate.wait_until_held()
        task = add(floor, video, LONG)
        floor.wait_until(lambda: (floor.store.get(task).progress or {}).get("phase") == "queued")
        assert asked(folder, "prompt") == []
        gate.open()
        floor.wait_for(drawing, Status.COMPLETE)
        floor.wait_until(lambda: (floor.store.get(task).progress or {}).get("total") == 600)
        assert (floor.engine.current_model, floor.engine.unloads) == (None, 1)
        waiting = floor.add("draw", resolution="32x32", video_length=5)
        floor.wait_until(lambda: floor.store.get(waiting).status is Status.IN_PROGRESS)
        assert len(floor.engine.calls) == 1
        floor.store.cancel(task)
        floor.wait_for(waiting, Status.COMPLETE)
    assert [(each["unload_models"], each["free_memory"]) for each in asked(folder, "free")] == [(True, True)]
    floor.close()


def test_a_comfyui_elsewhere_leaves_the_gpu_to_generations(tmp_path: Path, folder: Path, video: Path) -> None:
    with living_comfy(folder) as url:
        floor = new_floor(tmp_path, folder, comfy_url=url, comfy_shares_gpu=False)
        task = add(floor, video, LONG)
        with floor.working():
            until(lambda: bool(asked(folder, "prompt")))
            for _ in range(2):
                floor.wait_for(floor.add("draw", resolution="32x32", video_length=5), Status.COMPLETE)
            assert floor.store.get(task).status is Status.IN_PROGRESS and floor.engine.unloads == 0
        assert floor.store.get(task).status is Status.QUEUED
        assert len(asked(folder, "interrupt")) == 1 and asked(folder, "free") == []
        floor.close()


@pytest.mark.parametrize(
    ("choices", "shares"),
    [
        ({}, True),
        ({"comfy_url": "http://localhost:8188"}, True),
        ({"comfy_url": "http://gpu-2:8188"}, False),
        ({"comfy_url": "http://gpu-2:8188", "comfy_shares_gpu": True}, True),
    ],
)
def test_a_comfyui_of_another_machine_leaves_the_gpu_alone(
    tmp_path: Path, choices: dict[str, Any], shares: bool
) -> None:
    floor = Floor(tmp_path, **choices)
    assert ComfyProgram(floor.settings).shares_gpu is shares
    floor.close()
