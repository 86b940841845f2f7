"""Stitching two clips of 320 frames, 832x480, over 16 frames: smart cut against reading everything into memory.

    python benchmarks/stitch.py [--json] [--rounds N]

Both ways use the same reader and the same encoder settings. Each run is a process of its own: its time is that of the
stitch alone, without the start of Python; its memory is the peak of the whole process, and, as a second figure, that
peak above what a process takes which only imports the same modules. The ways take turns; the first round is dropped.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from separate_runs import machine, run_alone

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "samples" / "bbb_832x480_81f.mp4"
NUM_FRAMES, OVERLAP, FPS = 320, 16, 16
sys.path.insert(0, str(ROOT))

from Wan2GP.command_line import Command  # noqa: E402

# The parent imports nothing large: on Linux the memory of a parent counts towards the peak of its children.


def make(folder: Path) -> None:
    """Write the clips: real footage, played forwards and backwards in turn so that it always moves.

    Our writer begins a GOP every 16 frames at 16 fps, so both seams of "a" and "b" lie between GOPs. In "c" and "d" a
    keyframe at frame 8 shifts all later GOPs, so that both seams lie in the middle of one.
    """
    from Wan2GP.media import read_frames, write_video

    frames = list(read_frames(SAMPLE))
    bounce = frames + frames[-2:0:-1]
    for name, first, keyframes in (("a", 0, ()), ("b", 304, ()), ("c", 0, (8,)), ("d", 304, (8,))):
        pictures = (bounce[(first + i) % len(bounce)] for i in range(NUM_FRAMES))
        write_video(folder / f"{name}.mp4", pictures, fps=FPS, keyframes=keyframes)


def smart(first: Path, second: Path, output: Path) -> tuple[int, int]:
    """Our way."""
    from source.media.assemble import Part, assemble
    from source.media.clips import Clip

    before, after = Clip.open(first), Clip.open(second)
    parts = [Part(before, 0, before.num_frames), Part(after, 0, after.num_frames, OVERLAP)]
    report = assemble(parts, output, size=before.size, fps=before.fps)
    return report.num_frames, report.encoded_frames


def load_all(first: Path, second: Path, output: Path) -> tuple[int, int]:
    """The plain way: all frames of both in memory, blended in floating point, everything encoded."""
    import numpy as np

    from source.media.crossfade import weights
    from Wan2GP.media import read_frames, write_video

    before, after = list(read_frames(first)), list(read_frames(second))
    mixed = [
        ((1 - alpha) * a.astype(np.float32) + alpha * b.astype(np.float32)).astype(np.uint8)
        for a, b, alpha in zip(before[-OVERLAP:], after, weights(OVERLAP), strict=False)
    ]
    num_frames = write_video(output, before[:-OVERLAP] + mixed + after[OVERLAP:], fps=FPS).num_frames
    return num_frames, num_frames


def nothing(first: Path, second: Path, output: Path) -> tuple[int, int]:
    """Only import what the others import."""
    from source.media.assemble import assemble

    return (2 * NUM_FRAMES - OVERLAP if assemble else 0), 0


#: name -> (function, first clip, second clip)
WAYS = {
    "smart": (smart, "a", "b"),
    "smart_inside_gops": (smart, "c", "d"),
    "load_all": (load_all, "a", "b"),
    "nothing": (nothing, "a", "b"),
}
COMPARED = ("smart", "smart_inside_gops", "load_all")


def child(way: str, folder: Path) -> None:
    """One run in this process; prints its seconds and the number of frames it encoded."""
    function, first, second = WAYS[way]
    nothing(folder, folder, folder)
    start = time.perf_counter()
    num_frames, encoded = function(folder / f"{first}.mp4", folder / f"{second}.mp4", folder / f"{way}.mp4")
    seconds = time.perf_counter() - start
    if num_frames != 2 * NUM_FRAMES - OVERLAP:
        raise SystemExit(f"{way} made {num_frames} frames instead of {2 * NUM_FRAMES - OVERLAP}")
    print(seconds, encoded)


def measure(way: str, folder: Path) -> dict[str, float]:
    """One run in a new process: its seconds, encoded frames, and peak memory in MB."""
    printed, peak_mb = run_alone(Path(__file__), "--child", way, "--folder", str(folder))
    seconds, encoded = map(float, printed.split())
    return {"seconds": seconds, "encoded_frames": encoded, "peak_mb": peak_mb}


def compare(rounds: int) -> dict[str, Any]:
    """Medians of each way, and how many times more the plain one takes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([sys.executable, __file__, "--child", "make", "--folder", name], check=True)
        base_mb = measure("nothing", folder)["peak_mb"]
        taken = [{way: measure(way, folder) for way in COMPARED} for _ in range(rounds + 1)][1:]
    ways: dict[str, dict[str, Any]] = {}
    for way in COMPARED:
        medians = {key: statistics.median(run[way][key] for run in taken) for key in taken[0][way]}
        spread = [min(run[way]["seconds"] for run in taken), max(run[way]["seconds"] for run in taken)]
        ways[way] = {**medians, "above_imports_mb": medians["peak_mb"] - base_mb, "seconds_min_max": spread}
    plain = ways["load_all"]
    for measured in ways.values():
        measured["ratio"] = {key: plain[key] / measured[key] for key in ("seconds", "peak_mb", "above_imports_mb")}
    return {"machine": machine(), "rounds": rounds, "imports_mb": base_mb, "ways": ways}


def table(result: dict[str, Any]) -> str:
    """The result as Markdown; in brackets, how many times less than the plain way."""
    lines = [
        f"Stitch of 2 x {NUM_FRAMES} frames, 832x480, overlap {OVERLAP}; medians of {result['rounds']} rounds on "
        f"{result['machine']}. Aim: 10x in time and memory.",
        "",
        "| way | encoded frames | seconds (min to max) | peak memory, MB | of that above imports, MB |",
        "|---|---|---|---|---|",
    ]
    for name, way in result["ways"].items():
        low, high = way["seconds_min_max"]
        ratio = way["ratio"]
        lines.append(
            f"| {name} | {way['encoded_frames']:.0f} | {way['seconds']:.2f} ({low:.2f} to {high:.2f}) "
            f"[{ratio['seconds']:.1f}x] | {way['peak_mb']:.0f} [{ratio['peak_mb']:.1f}x] "
            f"| {way['above_imports_mb']:.0f} [{ratio['above_imports_mb']:.1f}x] |"
        )
    return "\n".join(lines)


EXAMPLES = (("python benchmarks/stitch.py", "measure, and print a table"),)
CODES = {0: "measured", 1: "it cannot run here; also a wrong flag"}


def parser() -> Command:
    """The flags."""
    flags = Command("benchmarks/stitch.py", description=__doc__, examples=EXAMPLES, codes=CODES)
    flags.add_argument("--json", action="store_true", help="print JSON instead of a table")
    flags.add_argument("--rounds", type=int, default=3, help="measured rounds after the dropped one (default 3)")
    flags.add_argument("--child", choices=["make", *WAYS], help=argparse.SUPPRESS)
    flags.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    flags.add_version()
    return flags


def main() -> None:
    arguments = parser().parse_args()
    if arguments.child == "make":
        make(arguments.folder)
    elif arguments.child:
        child(arguments.child, arguments.folder)
    else:
        result = compare(arguments.rounds)
        print(json.dumps(result, indent=2) if arguments.json else table(result))


if __name__ == "__main__":
    main()
