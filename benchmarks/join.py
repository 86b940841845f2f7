"""Joining ten 720p clips: assembled once from the originals against re-encoding all that is joined so far at each join.

    python benchmarks/join.py [--json] [--rounds N] [--frames N]

The clips come from two encoders in turn: our writer, and x264 as many tools set it up (another preset, longer GOPs);
neighbours fade into each other over 8 frames. Each run is a process of its own: its time is that of the joining alone,
its memory the peak of the whole process, also given above that of a process which only imports the same modules. After
each run every frame outside the fades is decoded and compared with its original by hash; fewer equal ones than were
copied end it with an error.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from separate_runs import machine, run_alone

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "samples" / "bbb_832x480_81f.mp4"
NUM_CLIPS, FADE, FPS, SIZE = 10, 8, 16, (1280, 720)
sys.path.insert(0, str(ROOT))

from Wan2GP.command_line import Command  # noqa: E402


def make(folder: Path, num_frames: int) -> None:
    """Write the clips: real footage scaled up, played forwards and backwards in turn so that it always moves."""
    from Wan2GP.media import Frame, ffmpeg_path, read_frames, resize, write_video

    frames = list(read_frames(SAMPLE))
    bounce = frames + frames[-2:0:-1]

    def pictures(first: int) -> Iterator[Frame]:
        return (resize(bounce[(first + i) % len(bounce)], SIZE) for i in range(num_frames))

    for number in range(NUM_CLIPS):
        path = folder / f"{number}.mp4"
        write_video(path, pictures(number * (num_frames - FADE)), fps=FPS)
        if number % 2:
            ours = path.rename(folder / "ours.mp4")
            coding = ["-c:v", "libx264", "-preset", "veryfast", "-crf", "17", "-g", "24", "-threads", "1"]
            quiet = ["-nostdin", "-loglevel", "error", "-y"]
            subprocess.run([str(ffmpeg_path()), *quiet, "-i", str(ours), *coding, str(path)], check=True)


def clips(folder: Path) -> list[Path]:
    return [folder / f"{number}.mp4" for number in range(NUM_CLIPS)]


def assembled(folder: Path, output: Path) -> int:
    """Our way: one assembly from the originals. Returns the number of frames it encoded."""
    from source.media.assemble import Part, assemble
    from source.media.clips import Clip

    views = [Clip.open(path) for path in clips(folder)]
    parts = [Part(view, 0, view.num_frames, FADE if number else 0) for number, view in enumerate(views)]
    return assemble(parts, output, size=views[0].size, fps=views[0].fps).encoded_frames


def accumulated(folder: Path, output: Path) -> int:
    """The other way: each join decodes what is joined so far and the next clip, blends, and encodes everything."""
    import numpy as np

    from source.media.crossfade import weights
    from Wan2GP.media import read_frames, write_video

    joined, encoded = clips(folder)[0], 0
    for number, path in enumerate(clips(folder)[1:], 1):
        before, after = list(read_frames(joined)), list(read_frames(path))
        mixed = [
            ((1 - alpha) * a.astype(np.float32) + alpha * b.astype(np.float32)).astype(np.uint8)
            for a, b, alpha in zip(before[-FADE:], after, weights(FADE), strict=False)
        ]
        target = output if number == NUM_CLIPS - 1 else folder / f"joined_{number}.mp4"
        encoded += write_video(target, before[:-FADE] + mixed + after[FADE:], fps=FPS).num_frames
        joined = target
    return encoded


def nothing(folder: Path, output: Path) -> int:
    """Only import what the others import."""
    from source.media.assemble import assemble

    return 0 if assemble else 1


WAYS = {"assembled": assembled, "accumulated": accumulated, "nothing": nothing}
COMPARED = ("assembled", "accumulated")


def untouched(folder: Path, output: Path) -> tuple[int, int, int]:
    """(frames in all, frames outside fades, those of them that decode to the very pixels of their original)."""
    made = _hashes(output)
    originals = [_hashes(path) for path in clips(folder)]
    outside = same = begun = 0
    for number, original in enumerate(originals):
        span = range(FADE if number else 0, len(original) - (FADE if number < NUM_CLIPS - 1 else 0))
        outside += len(span)
        same += sum(made[begun + frame] == original[frame] for frame in span)
        begun += len(original) - FADE
    return len(made), outside, same


def _hashes(path: Path) -> list[bytes]:
    import hashlib

    from Wan2GP.media import decode, index_video

    index = index_video(path)
    return [hashlib.sha256(f.to_ndarray().tobytes()).digest() for f in decode(index, 0, index.info.num_frames)]


def child(way: str, folder: Path) -> None:
    """One run in this process; prints its seconds and the number of frames it encoded."""
    nothing(folder, folder)
    start = time.perf_counter()
    encoded = WAYS[way](folder, folder / f"{way}.mp4")
    print(time.perf_counter() - start, encoded)


def measure(way: str, folder: Path) -> dict[str, float]:
    """One run of a way in a new process, and the comparison of its result in another."""
    printed, peak_mb = run_alone(Path(__file__), "--child", way, "--folder", str(folder))
    seconds, encoded = map(float, printed.split())
    if way == "nothing":
        return {"peak_mb": peak_mb}
    found, _ = run_alone(Path(__file__), "--child", "untouched", "--folder", str(folder), "--way", way)
    frames, outside, same = map(int, found.split())
    copied = max(frames - encoded, 0)
    if same < copied:
        raise SystemExit(f"{way}: {copied:.0f} frames were copied, but only {same} decode to their originals")
    counts = {
        "frames": frames, "encoded_frames": encoded, "copied_frames": copied,
        "outside_fades": outside, "identical_frames": same,
    }  # fmt: skip
    return {"seconds": seconds, "peak_mb": peak_mb, **counts}


def compare(rounds: int, num_frames: int) -> dict[str, Any]:
    """Medians of each way, and how many times more the accumulating one takes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run_alone(Path(__file__), "--child", "make", "--folder", name, "--frames", str(num_frames))
        base_mb = measure("nothing", folder)["peak_mb"]
        taken = [{way: measure(way, folder) for way in COMPARED} for _ in range(rounds)]
    ways: dict[str, dict[str, Any]] = {}
    for way in COMPARED:
        medians = {key: statistics.median(run[way][key] for run in taken) for key in taken[0][way]}
        ways[way] = {**medians, "above_imports_mb": medians["peak_mb"] - base_mb}
    other = ways["accumulated"]
    for measured in ways.values():
        measured["ratio"] = {key: other[key] / measured[key] for key in ("seconds", "peak_mb", "above_imports_mb")}
    return {"machine": machine(), "rounds": rounds, "clip_frames": num_frames, "imports_mb": base_mb, "ways": ways}


def table(result: dict[str, Any]) -> str:
    """The result as Markdown; in brackets, how many times less than the accumulating way."""
    lines = [
        f"Join of {NUM_CLIPS} clips of {result['clip_frames']} frames, {SIZE[0]}x{SIZE[1]}, from two encoders in turn, "
        f"fades of {FADE}; medians of {result['rounds']} rounds on {result['machine']}.",
        "",
        "| way | frames | encoded | copied | outside fades: identical to the original | seconds | peak memory, MB "
        "| of that above imports, MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, way in result["ways"].items():
        ratio = way["ratio"]
        lines.append(
            f"| {name} | {way['frames']:.0f} | {way['encoded_frames']:.0f} | {way['copied_frames']:.0f} "
            f"| {way['identical_frames']:.0f} of {way['outside_fades']:.0f} "
            f"| {way['seconds']:.1f} [{ratio['seconds']:.1f}x] | {way['peak_mb']:.0f} [{ratio['peak_mb']:.1f}x] "
            f"| {way['above_imports_mb']:.0f} [{ratio['above_imports_mb']:.1f}x] |"
        )
    return "\n".join(lines)


EXAMPLES = (("python benchmarks/join.py", "measure, and print a table"),)
CODES = {0: "measured", 1: "it cannot run here; also a wrong flag"}


def parser() -> Command:
    """The flags."""
    flags = Command("benchmarks/join.py", description=__doc__, examples=EXAMPLES, codes=CODES)
    flags.add_argument("--json", action="store_true", help="print JSON instead of a table")
    flags.add_argument("--rounds", type=int, default=1, help="rounds of both ways (default 1; each takes minutes)")
    flags.add_argument("--frames", type=int, default=81, help="frames of each clip (default 81)")
    flags.add_argument("--child", choices=["make", "untouched", *WAYS], help=argparse.SUPPRESS)
    flags.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    flags.add_argument("--way", help=argparse.SUPPRESS)
    flags.add_version()
    return flags


def main() -> None:
    arguments = parser().parse_args()
    if arguments.child == "make":
        make(arguments.folder, arguments.frames)
    elif arguments.child == "untouched":
        print(*untouched(arguments.folder, arguments.folder / f"{arguments.way}.mp4"))
    elif arguments.child:
        child(arguments.child, arguments.folder)
    else:
        result = compare(arguments.rounds, arguments.frames)
        print(json.dumps(result, indent=2) if arguments.json else table(result))


if __name__ == "__main__":
    main()
