"""A folder that a worker takes for ComfyUI, workflows for it, and what it was asked."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

SERVER = Path(__file__).with_name("comfy_server.py")


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
