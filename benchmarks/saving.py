#!/usr/bin/env python3
"""How long the accelerator's thread is kept by a finished clip: files written on it, and written beside it.

    python benchmarks/saving.py [--frames 81] [--size 832x480] [--rounds 2] [--json]

The draft model draws frames at once, so nearly all of its run is finishing and encoding. "On it" is a plain call of
`generate_video`, which returns when its file is written; "beside it" is how the worker calls it: the frames go to
another thread, and the next run may begin. The two take turns; medians, the first round is dropped.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from separate_runs import machine

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from Wan2GP import wgp
from Wan2GP.command_line import Command
from Wan2GP.media import Frame

#: what is asked for beside the clip
ASKED: dict[str, dict[str, Any]] = {
    "as it is": {},
    "with film grain": {"film_grain_intensity": 0.3},
}


def picture(seed: int, width: int, height: int) -> Frame:
    """A smooth random picture."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def seconds(values: dict[str, Any], *, later: bool) -> tuple[float, float]:
    """Of the thread that calls, and until the file is written."""
    gen: dict[str, Any] = {}
    began = time.perf_counter()
    if not wgp.generate_media(state={"gen": gen}, plugin_data={"save_later": later}, **values):
        raise SystemExit("the run failed")
    kept = time.perf_counter() - began
    for wait in gen["unsaved"]:
        wait()
    written = time.perf_counter() - began
    for file in gen["file_list"]:
        Path(file).unlink()
    return kept, written


def compare(name: str, frames: int, size: tuple[int, int], rounds: int) -> dict[str, Any]:
    """Both ways in turns; medians."""
    values = {
        "model_type": "draft", "image_start": picture(1, *size), "image_end": picture(2, *size), "seed": 1,
        "resolution": f"{size[0]}x{size[1]}", "video_length": frames, **ASKED[name],
    }  # fmt: skip
    found: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    for _ in range(rounds + 1):
        for later, each in found.items():
            each.append(seconds(values, later=later))
    on = statistics.median(kept for kept, _ in found[False][1:])
    beside = statistics.median(kept for kept, _ in found[True][1:])
    written = statistics.median(end for _, end in found[True][1:])
    return {"clip": name, "on_it_s": round(on, 2), "beside_it_s": round(beside, 2), "written_s": round(written, 2)}


def measure(frames: int, size: tuple[int, int], rounds: int) -> dict[str, Any]:
    """Every clip."""
    with tempfile.TemporaryDirectory() as folder:
        wgp.configure(checkpoints=Path(folder, "ckpts"), save_path=Path(folder, "out"), device="cpu")
        rows = [compare(name, frames, size, rounds) for name in ASKED]
        wgp.release_model()
    return {"benchmark": "saving", "frames": frames, "size": size, "rows": rows, "machine": machine()}


def show(result: dict[str, Any]) -> None:
    """Print a table."""
    table = Table(
        "clip", "thread kept, written on it", "thread kept, written beside it", "file there after", box=box.MARKDOWN
    )
    for row in result["rows"]:
        table.add_row(row["clip"], f"{row['on_it_s']} s", f"{row['beside_it_s']} s", f"{row['written_s']} s")
    width, height = result["size"]
    Console(width=140).print(table, f"{result['frames']} frames of {width}x{height}; {result['machine']}")


EXAMPLES = (("python benchmarks/saving.py", "measure, and print a table"),)
CODES = {0: "measured", 1: "it cannot run here; also a wrong flag"}


def parser() -> Command:
    """The flags."""
    flags = Command("benchmarks/saving.py", description=__doc__, examples=EXAMPLES, codes=CODES)
    flags.add_argument("--frames", type=int, default=81, help="frames of the clip")
    flags.add_argument("--size", default="832x480", help="its width and height")
    flags.add_argument("--rounds", type=int, default=2, help="rounds, of which medians are taken")
    flags.add_argument("--json", action="store_true", help="print JSON instead of a table")
    flags.add_version()
    return flags


def main() -> None:
    """Measure and print."""
    given = parser().parse_args()
    width, height = map(int, given.size.split("x"))
    result = measure(given.frames, (width, height), given.rounds)
    if given.json:
        print(json.dumps(result, indent=2))
    else:
        show(result)


if __name__ == "__main__":
    main()
