"""Workflows of ComfyUI, run by a worker with a program that follows ComfyUI's interface."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
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
    until,
    worked,
    workflow,
)
from PIL import Image
from same_media import same_media
from worker_floor import Floor

from source.store.types import Status


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
    assert row.result_data is not None
    assert row.result_data == {"prompt_id": prompt["prompt_id"], "gpu_seconds": row.result_data["gpu_seconds"]}
    assert set(row.result_data["gpu_seconds"]) <= {"encode", "lent"}
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


def test_news_of_another_form_cost_nothing_but_the_progress(floor: Floor, video: Path) -> None:
    odd = [
        {"value": "half", "max": [2]},
        {"value": float("nan"), "max": float("inf")},
        {"node": {"id": 2}},
        {"max": {}},
    ]
    kinds = ("progress", "executing", "execution_cached", "status")
    news = [[kind, data | {"nodes": [["1"], None, 2]}] for kind in kinds for data in odd]
    work = {"steps": 5, "seconds": 0.1, "news": json.dumps(news)}
    row = worked(floor, add(floor, video, ("Work", work)))
    assert (row.status, row.attempts) == (Status.COMPLETE, 0), row.error_message


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
