"""Stitching two clips of 320 frames, 832x480, over 16 frames: smart cut against reading everything into memory.

    python benchmarks/stitch.py [--json] [--rounds N]

Both ways use the same reader and the same encoder settings. Each run is a process of its own: its time is that of the
stitch alone, without the start of Python; its memory is the peak of the whole process, and, as a second figure, that
peak above what a process takes which only imports the same modules. The ways take turns; the first round is dropped.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "samples" / "bbb_832x480_81f.mp4"
NUM_FRAMES, OVERLAP, FPS = 320, 16, 16
sys.path.insert(0, str(ROOT))

# The parent imports nothing large: on Linux the memory of a parent counts towards the peak of its children.


def make(folder: Path) -> None:
    """Write the two clips: real footage, played forwards and backwards in turn so that it always moves."""
    from Wan2GP.media import read_frames, write_video

    frames = list(read_frames(SAMPLE))
    bounce = frames + frames[-2:0:-1]
    for name, first in (("a", 0), ("b", NUM_FRAMES - OVERLAP)):
        pictures = (bounce[(first + i) % len(bounce)] for i in range(NUM_FRAMES))
        # As a travel does: the writer knows where the overlaps will be.
        write_video(folder / f"{name}.mp4", pictures, fps=FPS, keyframes={OVERLAP, NUM_FRAMES - OVERLAP})


def smart(first: Path, second: Path, output: Path) -> int:
    """Our way."""
    from source.media.stitch import stitch

    return stitch([first, second], [OVERLAP], output).num_frames


def load_all(first: Path, second: Path, output: Path) -> int:
    """The plain way: all frames of both in memory, blended in floating point, everything encoded."""
    import numpy as np

    from source.media.crossfade import weights
    from Wan2GP.media import read_frames, write_video

    before, after = list(read_frames(first)), list(read_frames(second))
    mixed = [
        ((1 - alpha) * a.astype(np.float32) + alpha * b.astype(np.float32)).astype(np.uint8)
        for a, b, alpha in zip(before[-OVERLAP:], after, weights(OVERLAP), strict=False)
    ]
    return write_video(output, before[:-OVERLAP] + mixed + after[OVERLAP:], fps=FPS).num_frames


def nothing(first: Path, second: Path, output: Path) -> int:
    """Only import what the others import."""
    from source.media.stitch import stitch

    return 2 * NUM_FRAMES - OVERLAP if stitch else 0


WAYS = {"smart": smart, "load_all": load_all, "nothing": nothing}


def child(way: str, folder: Path) -> None:
    """One run in this process; prints its seconds."""
    nothing(folder, folder, folder)
    start = time.perf_counter()
    num_frames = WAYS[way](folder / "a.mp4", folder / "b.mp4", folder / f"{way}.mp4")
    seconds = time.perf_counter() - start
    if num_frames != 2 * NUM_FRAMES - OVERLAP:
        raise SystemExit(f"{way} made {num_frames} frames instead of {2 * NUM_FRAMES - OVERLAP}")
    print(seconds)


def measure(way: str, folder: Path) -> tuple[float, float]:
    """(seconds, peak memory in MB) of one run in a new process."""
    command = [sys.executable, __file__, "--child", way, "--folder", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        printed = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"the run {way!r} failed with code {process.returncode}")
    unit = 1024**2 if sys.platform == "darwin" else 1024
    return float(printed), usage.ru_maxrss / unit


def compare(rounds: int) -> dict[str, object]:
    """Medians of both ways and their ratios."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([sys.executable, __file__, "--child", "make", "--folder", name], check=True)
        base_mb = measure("nothing", folder)[1]
        runs: dict[str, list[tuple[float, float]]] = {"smart": [], "load_all": []}
        for _ in range(rounds + 1):
            for way in runs:
                runs[way].append(measure(way, folder))
    ways = {}
    for way, taken in runs.items():
        seconds = statistics.median(run[0] for run in taken[1:])
        peak_mb = statistics.median(run[1] for run in taken[1:])
        ways[way] = {"seconds": seconds, "peak_mb": peak_mb, "above_imports_mb": peak_mb - base_mb}
    ratios = {key: ways["load_all"][key] / ways["smart"][key] for key in ways["smart"]}
    machine = f"{os.cpu_count()} CPUs, {platform.machine()}, {platform.system()}, Python {platform.python_version()}"
    return {"machine": machine, "cpu": cpu_model(), "rounds": rounds, "imports_mb": base_mb, **ways, "ratio": ratios}


def cpu_model() -> str:
    """The processor's name, as well as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def table(result: dict[str, object]) -> str:
    """The result as Markdown."""
    lines = [
        f"Stitch of 2 x {NUM_FRAMES} frames, 832x480, overlap {OVERLAP}; medians of {result['rounds']} rounds on "
        f"{result['machine']} ({result['cpu']})",
        "",
        "| | seconds | peak memory, MB | of that above imports, MB |",
        "|---|---|---|---|",
    ]
    for name, key in (("smart cut", "smart"), ("load all", "load_all"), ("ratio (aim 10)", "ratio")):
        row = result[key]
        assert isinstance(row, dict)
        lines.append(f"| {name} | {row['seconds']:.2f} | {row['peak_mb']:.1f} | {row['above_imports_mb']:.1f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--rounds", type=int, default=3, help="measured rounds after the dropped one (default 3)")
    parser.add_argument("--child", choices=["make", *WAYS], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child == "make":
        make(arguments.folder)
    elif arguments.child:
        child(arguments.child, arguments.folder)
    else:
        result = compare(arguments.rounds)
        print(json.dumps(result, indent=2) if arguments.json else table(result))


if __name__ == "__main__":
    main()
