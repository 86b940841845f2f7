"""Workflows of ComfyUI, run by a worker with a program that follows ComfyUI's interface."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from comfy_shop import asked, comfy_folder, running, workflow
from PIL import Image
from same_media import same_media
from worker_floor import Floor

from headless.testing import FakeOrchestrator, Gate
from source.comfy.program import ComfyProgram
from source.store.types import Status, Task
from source.task_registry import registry

QUICK_STEPS = ("Work", {"steps": 3, "seconds": 0.01})
LONG = ("Work", {"steps": 600, "seconds": 0.1})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return comfy_folder(tmp_path / "comfy")


@pytest.fixture
def floor(tmp_path: Path, folder: Path) -> Iterator[Floor]:
    floor = new_floor(tmp_path, folder)
    yield floor
    floor.close()


def new_floor(tmp_path: Path, folder: Path, **choices: Any) -> Floor:
    floor = Floor(tmp_path, **{"comfy_path": folder, "comfy_port": 0} | choices)
    floor.registry.register(registry().get("comfy"))
    return floor


@pytest.fixture
def video(samples: Path) -> Path:
    return samples / "bbb_320x180_keyframes.mp4"


def add(floor: Floor, video: Path, *between: tuple[str, dict[str, Any]], **changes: Any) -> str:
    given = {"workflow": workflow(*between), "video_url": str(video), "video_node_id": "1"}
    return floor.add("comfy", **given | changes)


def worked(floor: Floor, task: str) -> Task:
    floor.work()
    return floor.store.get(task)


@contextmanager
def living_comfy(folder: Path) -> Iterator[str]:
    """The URL of a ComfyUI that somebody else started."""
    with closing(socket.socket()) as asked_for:
        asked_for.bind(("127.0.0.1", 0))
        port = asked_for.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, str(folder / "main.py"), "--listen", "127.0.0.1", "--port", str(port)],
        cwd=folder,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.communicate()


def until(holds: Callable[[], bool], timeout_s: float = 20) -> float:
    """Look again and again; returns the time at which it held."""
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while not holds():
        assert time.monotonic() < deadline, "it did not happen"
        pause.wait(0.02)
    return time.monotonic()


# -- a workflow


def test_the_workflow_gets_the_uploaded_video_and_what_it_saves_is_published(
    floor: Floor, folder: Path, video: Path
) -> None:
    row = worked(floor, task := add(floor, video, QUICK_STEPS))
    assert row.status is Status.COMPLETE, row.error_message
    [prompt], [upload] = asked(folder, "prompt"), asked(folder, "upload")
    assert prompt["prompt"]["1"]["inputs"]["video"] == upload["name"]
    assert upload["name"].endswith("_bbb_320x180_keyframes.mp4")
    assert same_media(floor.output(task), video)
    assert row.result_data == {"prompt_id": prompt["prompt_id"]}
    assert floor.leftovers() == []


def test_every_file_is_published_and_the_first_is_the_output(floor: Floor, samples: Path) -> None:
    picture = samples / "coffee.jpg"
    nodes = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "x.png"}},
        "2": {"class_type": "SaveImages", "inputs": {"images": ["1", 0], "count": 3}},
    }
    task = floor.add("comfy", workflow=json.dumps(nodes), inputs=[{"url": str(picture), "node_id": "1"}])
    row = worked(floor, task)
    assert row.status is Status.COMPLETE, row.error_message
    names = [f"files/{task}_picture_{number}.png" for number in range(3)]
    assert (row.output_location, (row.result_data or {})["outputs"]) == (names[0], names)
    for name in names:
        assert same_media(floor.settings.public_dir / name, picture)


def test_progress_of_the_nodes_arrives_in_the_row(tmp_path: Path, folder: Path, video: Path) -> None:
    floor = new_floor(tmp_path, folder)
    seen = []
    task = add(floor, video, ("Work", {"steps": 8, "seconds": 0.15}))
    with floor.working():
        floor.wait_until(lambda: bool(seen.append(floor.store.get(task).progress)) or floor.store.get(task).terminal)
    steps = {(each["step"], each["total"]) for each in seen if each and each["text"] == "2 (the Work)"}
    assert {total for _, total in steps} >= {8} and len(steps) >= 3
    assert floor.store.get(task).generation_started_at is not None
    floor.close()


def test_files_that_are_too_large_together_are_refused(tmp_path: Path, folder: Path, samples: Path) -> None:
    """Three pictures of 0.45 MB with room for one MB."""
    picture = tmp_path / "large.png"
    noise = np.random.default_rng(5).integers(0, 255, (390, 390, 3)).astype(np.uint8)
    Image.fromarray(noise).save(picture)
    floor = new_floor(tmp_path, folder, max_download_mb=1)
    nodes = workflow(save=("SaveImages", {"images": ["1", 0], "count": 3}))
    nodes["1"] = {"class_type": "LoadImage", "inputs": {"image": "x.png"}}
    task = floor.add("comfy", workflow=nodes, inputs=[{"url": str(picture), "node_id": "1"}])
    row = worked(floor, task)
    assert "is larger than what is left of 1 MB (setting max_download_mb)" in (row.error_message or "")
    assert floor.published() == [] and floor.leftovers() == []
    floor.close()


# -- what is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"workflow": workflow(("Sampler", {}))}, r"workflow: ComfyUI refuses it: .*a node is missing\. Sampler"),
        (
            {"workflow": workflow(save=("SaveVideo", {}))},
            r"node 2 \(the SaveVideo\), input 'video': Required input is missing",
        ),
        ({"video_node_id": "7"}, r"video_node_id: the workflow has no node '7'.* 'video' is an input of: 1, 2"),
        (
            {"video_input_field": "file"},
            r"video_node_id: node 1 \(the VHS_LoadVideo\) has no input 'file'; it has video",
        ),
        ({"workflow": {"nodes": [], "links": []}}, r"workflow: .*Export \(API\)"),
        ({"workflow": "{"}, r"workflow: the workflow is not JSON"),
        ({"video_node_id": None}, r"video_url and video_node_id go together"),
        ({"video_url": "/nowhere.mp4"}, r"video_url: the file /nowhere.mp4 does not exist"),
    ],
)
def test_a_workflow_that_cannot_run_fails_at_once_and_says_where(
    floor: Floor, video: Path, changes: dict[str, Any], message: str
) -> None:
    row = worked(floor, add(floor, video, **changes))
    assert (row.status, row.error_class, row.attempts) == (Status.FAILED, "bad_input", 1)
    assert re.search(message, row.error_message or ""), row.error_message


def test_a_node_that_fails_is_named(tmp_path: Path, folder: Path, video: Path) -> None:
    floor = new_floor(tmp_path, folder, max_attempts=1)
    row = worked(floor, add(floor, video, ("Fail", {"message": "no such sampler"})))
    assert (row.status, row.error_class) == (Status.FAILED, "engine")
    assert "node 2 (the Fail) failed: ValueError: no such sampler" in (row.error_message or "")
    floor.close()


def test_without_a_comfyui_the_task_says_what_to_set(tmp_path: Path, video: Path) -> None:
    floor = new_floor(tmp_path, tmp_path / "nowhere")
    row = worked(floor, add(floor, video))
    assert (row.status, row.error_class) == (Status.FAILED, "program_unavailable")
    assert "COMFY_PATH" in (row.error_message or "") and "COMFY_URL" in (row.error_message or "")
    floor.close()


# -- cancelling


def test_cancelling_interrupts_within_a_second_and_harms_no_neighbour(
    tmp_path: Path, folder: Path, video: Path
) -> None:
    with living_comfy(folder) as url:
        floor = new_floor(tmp_path, folder, comfy_url=url)
        neighbour = {"2": {"class_type": "Work", "inputs": {"steps": 3, "seconds": 0.05}}}
        task = add(floor, video, LONG)
        with floor.working():
            floor.wait_until(lambda: (floor.store.get(task).progress or {}).get("total") == 600)
            other = requests.post(
                f"{url}/prompt", json={"prompt": neighbour, "client_id": "somebody"}, timeout=5
            ).json()
            asked_at = time.monotonic()
            floor.store.cancel(task)
            interrupted_at = until(lambda: bool(asked(folder, "interrupt")))
            floor.wait_for(task, Status.CANCELLED)
        [interrupt], [prompt, *_] = asked(folder, "interrupt"), asked(folder, "prompt")
        assert interrupt["prompt_id"] == prompt["prompt_id"]
        assert interrupted_at - asked_at < 1.3
        history = f"{url}/history/{other['prompt_id']}"
        until(lambda: bool(requests.get(history, timeout=5).json()))
        ended = requests.get(history, timeout=5).json()[other["prompt_id"]]
        assert ended["status"]["status_str"] == "success"
        floor.close()


def test_a_program_that_does_not_stop_is_ended_and_the_next_task_gets_a_new_one(
    tmp_path: Path, folder: Path, video: Path
) -> None:
    floor = new_floor(tmp_path, folder, comfy_stop_s=0.3)
    task = add(floor, video, ("Deaf", {"seconds": 600}))
    with floor.working():
        floor.wait_until(lambda: (floor.store.get(task).progress or {}).get("text") == "2 (the Deaf)")
        deaf = int((folder / "pid").read_text())
        floor.store.cancel(task)
        floor.wait_for(task, Status.CANCELLED)
        floor.wait_for(add(floor, video), Status.COMPLETE)
        assert int((folder / "pid").read_text()) != deaf
    floor.close()


def test_a_prompt_that_waits_behind_others_is_taken_out_of_the_queue(tmp_path: Path, folder: Path, video: Path) -> None:
    with living_comfy(folder) as url:
        floor = new_floor(tmp_path, folder, comfy_url=url)
        neighbour = {"2": {"class_type": "Work", "inputs": {"steps": 1000, "seconds": 0.05}}}
        requests.post(f"{url}/prompt", json={"prompt": neighbour, "client_id": "somebody"}, timeout=5)
        task = add(floor, video, LONG)
        with floor.working():
            until(lambda: len(asked(folder, "prompt")) == 2)
            floor.store.cancel(task)
            floor.wait_for(task, Status.CANCELLED)
        queue = requests.get(f"{url}/queue", timeout=5).json()
        assert queue["queue_pending"] == [] and len(queue["queue_running"]) == 1
        assert asked(folder, "interrupt") == []
        floor.close()


# -- the program


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
