"""A folder that a worker takes for ComfyUI, workflows for it, and what it was asked."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from worker_floor import Floor

from source.store.types import Task
from source.task_registry import registry

SERVER = Path(__file__).with_name("comfy_server.py")
QUICK_STEPS = ("Work", {"steps": 3, "seconds": 0.01})
LONG = ("Work", {"steps": 600, "seconds": 0.1})


def comfy_folder(folder: Path) -> Path:
    """COMFY_PATH: `comfy_server.py` under the name that ComfyUI's program has."""
    folder.mkdir()
    (folder / "main.py").write_text(
        f"import runpy\nrunpy.run_path({str(SERVER)!r}, run_name='__main__')\n", encoding="utf-8"
    )
    return folder


def workflow(*between: tuple[str, dict[str, Any]], save: tuple[str, dict[str, Any]] | None = None) -> dict[str, Any]:
    """Load a video as node 1, do what is between as 2, 3 …, save it."""
    nodes = [("VHS_LoadVideo", {"video": "example.mp4"}), *between, save or ("SaveVideo", {"video": ["1", 0]})]
    return {
        str(number): {"class_type": kind, "inputs": inputs, "_meta": {"title": f"the {kind}"}}
        for number, (kind, inputs) in enumerate(nodes, start=1)
    }


def asked(folder: Path, what: str) -> list[dict[str, Any]]:
    """What a `comfy_server.py` of that folder was asked, in order."""
    log = folder / "requests.jsonl"
    lines = log.read_text().splitlines() if log.exists() else []
    return [entry for entry in map(json.loads, lines) if entry["what"] == what]


def running(folder: Path) -> bool:
    """Whether the ComfyUI of that folder lives."""
    pid = int((folder / "pid").read_text())
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z (zombie)" not in Path(f"/proc/{pid}/status").read_text()


def new_floor(tmp_path: Path, folder: Path, **choices: Any) -> Floor:
    floor = Floor(tmp_path, **{"comfy_path": folder, "comfy_port": 0} | choices)
    floor.registry.register(registry().get("comfy"))
    return floor


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
