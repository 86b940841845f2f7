"""Tasks that name LoRAs by URL, through the whole worker; and several processes that want the same file."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lora_site import LoRASite, lora_bytes, put_lora, serving
from worker_floor import Floor

from headless.generation import ModelInfo
from headless.testing import FakeOrchestrator, Gate
from source.loras import LoRAStore
from source.settings import load_settings
from source.store.types import Status, Task
from source.task_registry import registry
from Wan2GP.media import write_image

LARGE = lora_bytes(2, 1_000_000)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoRASite]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving() as site:
        yield site


@pytest.fixture
def floor(tmp_path: Path) -> Iterator[Floor]:
    floor = Floor(tmp_path, loras_dir=tmp_path / "loras")
    floor.registry = registry()
    yield floor
    floor.close()


def run(floor: Floor, task_type: str, **params: Any) -> Task:
    task = floor.add(task_type, **params)
    assert floor.work() == 0
    return floor.store.get(task)


def direct(floor: Floor, *loras: str, **params: Any) -> Task:
    params = {"model": "fake_t2v", "prompt": "a ball", "num_frames": 5, "activated_loras": list(loras)} | params
    return run(floor, "generate_video", **params)


def test_a_direct_task_generates_with_local_files(floor: Floor, site: LoRASite, tmp_path: Path) -> None:
    mine = put_lora(tmp_path / "loras" / "wan" / "mine.safetensors")
    row = direct(floor, site.add("/style.safetensors", LARGE), "mine.safetensors", loras_multipliers="1;0 0.5")
    assert (row.status, row.error_message) == (Status.COMPLETE, None)
    [call] = floor.engine.calls
    assert call["activated_loras"] == [str(tmp_path / "loras" / "wan" / "style.safetensors"), str(mine)]
    assert call["loras_multipliers"] == "1;0 0.5"
    assert Path(call["activated_loras"][0]).read_bytes() == LARGE
    names = floor.event_names(row.id)
    assert names.index("downloading") < names.index("started")


def test_a_travel_downloads_a_lora_once_for_all_segments(floor: Floor, site: LoRASite, tmp_path: Path) -> None:
    images = []
    for index in range(3):
        path = tmp_path / f"image{index}.png"
        write_image(path, np.full((48, 64, 3), 60 * index, np.uint8))
        images.append(str(path))
    details = {
        "run_id": "run", "model_name": "fake_i2v", "model_type": "i2v", "input_image_paths_resolved": images,
        "segment_frames_expanded": [9, 9], "frame_overlap_expanded": [0], "base_prompts_expanded": ["one", "two"],
        "parsed_resolution_wh": "64x48", "fps_helpers": 12,
        "activated_loras": [site.add("/style.safetensors", LARGE)], "loras_multipliers": "0.8",
    }  # fmt: skip
    row = run(floor, "travel_orchestrator", orchestrator_details=details)
    assert (row.status, row.error_message) == (Status.COMPLETE, None)
    path = tmp_path / "loras" / "wan" / "style.safetensors"
    assert [call["activated_loras"] for call in floor.engine.calls] == [[str(path)]] * 2
    assert path.read_bytes() == LARGE
    assert len(site.requests) == 1


def test_the_file_lies_in_the_folder_of_the_models_family(tmp_path: Path, site: LoRASite) -> None:
    flux = ModelInfo(
        name="fake_flux", architecture="flux", inputs=frozenset({"text", "loras"}), fps=16, lora_folder="flux"
    )
    floor = Floor(tmp_path, FakeOrchestrator([flux]), loras_dir=tmp_path / "loras")
    floor.registry = registry()
    row = direct(floor, site.add("/style.safetensors"), model="fake_flux")
    floor.close()
    assert row.status is Status.COMPLETE
    assert floor.engine.calls[0]["activated_loras"] == [str(tmp_path / "loras" / "flux" / "style.safetensors")]


@pytest.mark.parametrize(
    ("lora", "said"),
    [
        ("file:///etc/hosts", "http"),
        ("/etc/passwd", "LORA_DIRS"),
        ("nowhere.safetensors", "there is no LoRA file"),
        ("{site}/missing.safetensors", "404"),
        ("{site}/page.safetensors", "HTML page"),
    ],
)
def test_a_lora_that_cannot_be_had_fails_the_task_and_says_why(
    floor: Floor, site: LoRASite, lora: str, said: str
) -> None:
    site.add("/page.safetensors", b"<html>" + bytes(1000))
    row = direct(floor, lora.format(site=site.url("")))
    assert (row.status, row.error_class) == (Status.FAILED, "bad_input")
    assert row.error_message is not None
    assert row.error_message.startswith("activated_loras: ")
    assert said in row.error_message
    assert floor.engine.calls == []


def test_nothing_is_downloaded_for_a_model_without_loras(tmp_path: Path, site: LoRASite) -> None:
    plain = ModelInfo(name="fake_plain", architecture="plain", inputs=frozenset({"text"}), fps=16)
    floor = Floor(tmp_path, FakeOrchestrator([plain]), loras_dir=tmp_path / "loras")
    floor.registry = registry()
    row = direct(floor, site.add("/style.safetensors"), model="fake_plain")
    floor.close()
    assert (row.status, row.error_class) == (Status.FAILED, "bad_input")
    assert site.requests == []


def test_the_lora_of_a_running_task_is_not_removed_for_another(tmp_path: Path, site: LoRASite) -> None:
    gate = Gate()
    limit = 1.5 * len(LARGE) / 1024**3
    floor = Floor(tmp_path, FakeOrchestrator(gate=gate), loras_dir=tmp_path / "loras", lora_cache_gb=limit)
    floor.registry = registry()
    store = LoRAStore(floor.settings)
    used = tmp_path / "loras" / "wan" / "used.safetensors"
    common = {"model": "fake_t2v", "prompt": "a ball", "num_frames": 5}
    task = floor.add("generate_video", activated_loras=[site.add("/used.safetensors", LARGE)], **common)
    with floor.working():
        gate.wait_until_held()
        with store.for_task() as other:
            other.resolve(site.add("/other.safetensors", LARGE), "wan")
        assert used.exists()
        gate.open()
        floor.wait_for(task, Status.COMPLETE)
    store.make_room(len(LARGE))
    floor.close()
    assert not used.exists()


def test_a_cancelled_task_stops_downloading(floor: Floor, site: LoRASite) -> None:
    url = site.add("/style.safetensors", LARGE, slow=True)
    task = floor.add("generate_video", model="fake_t2v", prompt="a ball", num_frames=5, activated_loras=[url])
    with floor.working():
        assert site.waiting.wait(10)
        floor.store.cancel(task)
        floor.wait_for(task, Status.CANCELLED)
    assert floor.engine.calls == []


PROCESS = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from source.loras import LoRAStore
from source.settings import load_settings

store = LoRAStore(load_settings(loras_dir=Path(sys.argv[1])))
print("ready", flush=True)
sys.stdin.readline()

def resolve(_):
    with store.for_task() as task:
        return task.resolve(sys.argv[2], "wan")

with ThreadPoolExecutor(4) as pool:
    paths = set(pool.map(resolve, range(4)))
print(*paths)
"""


@contextmanager
def waiting_process(root: Path, loras: Path, url: str) -> Iterator[subprocess.Popen[str]]:
    """A process that resolves the URL on four threads when `go` lets it; gone at the end of the block."""
    with subprocess.Popen(
        [sys.executable, "-c", PROCESS, str(loras), url], cwd=root, text=True, stdin=-1, stdout=-1
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_two_processes_share_one_download(tmp_path: Path, site: LoRASite, root: Path) -> None:
    url = site.add("/style.safetensors", LARGE)
    path = tmp_path / "loras" / "wan" / "style.safetensors"
    with (
        waiting_process(root, tmp_path / "loras", url) as one,
        waiting_process(root, tmp_path / "loras", url) as other,
    ):
        go(one)
        go(other)
        assert [process.communicate(timeout=60)[0] for process in (one, other)] == [f"{path}\n"] * 2
    assert path.read_bytes() == LARGE
    assert len(site.requests) == 1


def test_a_process_that_is_killed_in_its_download_blocks_nobody(tmp_path: Path, site: LoRASite, root: Path) -> None:
    url = site.add("/style.safetensors", LARGE, stuck=True)
    with waiting_process(root, tmp_path / "loras", url) as process:
        go(process)
        bookkeeping = tmp_path / "loras" / "wan" / ".downloads"
        while sum(part.stat().st_size for part in bookkeeping.glob("*.part")) < len(LARGE) // 4:
            assert process.poll() is None
            threading.Event().wait(0.01)
    site.files["/style.safetensors"].stuck = False
    with LoRAStore(load_settings(loras_dir=tmp_path / "loras")).for_task() as task:
        assert task.resolve(url, "wan").read_bytes() == LARGE
    assert 0 < site.requests[1].sent < len(LARGE)
