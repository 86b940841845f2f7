"""Memory of a stitch at 720p: two clips of 10 s against two of 60 s, by copying and by streaming.

    python benchmarks/stitch_memory.py [--json] [--ways smart stream]

Each run is a process of its own. What counts is how far the peak of its memory lies above that after the imports.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from separate_runs import machine, run_alone

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "samples" / "bbb_832x480_81f.mp4"
FPS, OVERLAP, SIZE, SECONDS = 16, 8, (1280, 720), (10, 60)
LIMIT_MB, SPREAD = 300, 0.10
sys.path.insert(0, str(ROOT))

from Wan2GP.command_line import Command  # noqa: E402

#: way -> how its clips are encoded; packets of MPEG-4 part 2 cannot stand beside ours, so all frames are encoded
WAYS = {"smart": (), "stream": ("-c:v", "mpeg4", "-q:v", "3")}


def make(folder: Path) -> None:
    """Write a clip of 10 s, and repeat it into one of 60 s without decoding it."""
    from Wan2GP.media import ffmpeg_path, read_frames, resize, write_video

    frames = list(read_frames(SAMPLE))
    bounce = frames + frames[-2:0:-1]
    write_video(folder / "ours.mp4", (resize(frame, SIZE) for frame in bounce), fps=FPS, preset="veryfast")
    quiet = [str(ffmpeg_path()), "-nostdin", "-loglevel", "error", "-y"]
    for way, coding in WAYS.items():
        source = folder / f"{way}_10.mp4"
        subprocess.run([*quiet, "-i", str(folder / "ours.mp4"), *(coding or ("-c", "copy")), str(source)], check=True)
        again = ["-stream_loop", "5", "-i", str(source), "-c", "copy", str(folder / f"{way}_60.mp4")]
        subprocess.run([*quiet, *again], check=True)


def child(way: str, seconds: int, folder: Path) -> None:
    """One stitch; prints how it was done, how many frames there are, and the growth in MB."""
    import resource

    from source.media.assemble import Part, assemble
    from source.media.clips import Clip

    unit = 1024**2 if sys.platform == "darwin" else 1024
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    clip = Clip.open(folder / f"{way}_{seconds}.mp4")
    parts = [Part(clip, 0, clip.num_frames), Part(clip, 0, clip.num_frames, OVERLAP)]
    report = assemble(parts, folder / f"out_{way}_{seconds}.mp4", size=clip.size, fps=clip.fps)
    print(report.method, report.num_frames, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit - before)


def measure(ways: list[str]) -> dict[str, Any]:
    """The growth of each of these ways at both lengths."""
    with tempfile.TemporaryDirectory() as name:
        run_alone(Path(__file__), "--child", "make", "--folder", name)
        runs = []
        for way in ways:
            for seconds in SECONDS:
                arguments = ["--child", way, "--seconds", str(seconds), "--folder", name]
                method, frames, grown = run_alone(Path(__file__), *arguments)[0].split()
                if method != way:
                    raise SystemExit(f"the clips for {way!r} were stitched by {method!r}")
                runs.append({"way": way, "seconds": seconds, "frames": int(frames), "grown_mb": float(grown)})
    return {"machine": machine(), "limit_mb": LIMIT_MB, "runs": runs}


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    lines = [
        f"Memory of a stitch of two clips, {SIZE[0]}x{SIZE[1]}, on {result['machine']}. "
        f"Aim: at most {LIMIT_MB} MB above the imports, both lengths within {SPREAD:.0%}.",
        "",
        "| way | each clip | frames of the result | peak above imports, MB |",
        "|---|---|---|---|",
    ]
    lines += [f"| {r['way']} | {r['seconds']} s | {r['frames']} | {r['grown_mb']:.0f} |" for r in result["runs"]]
    return "\n".join(lines)


EXAMPLES = (("python benchmarks/stitch_memory.py", "measure, and print a table"),)
CODES = {0: "measured", 1: "it cannot run here; also a wrong flag"}


def parser() -> Command:
    """The flags."""
    flags = Command("benchmarks/stitch_memory.py", description=__doc__, examples=EXAMPLES, codes=CODES)
    flags.add_argument("--json", action="store_true", help="print JSON instead of a table")
    flags.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS), help="what to measure (all)")
    flags.add_argument("--child", choices=["make", *WAYS], help=argparse.SUPPRESS)
    flags.add_argument("--seconds", type=int, help=argparse.SUPPRESS)
    flags.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    flags.add_version()
    return flags


def main() -> None:
    arguments = parser().parse_args()
    if arguments.child == "make":
        make(arguments.folder)
    elif arguments.child:
        child(arguments.child, arguments.seconds, arguments.folder)
    else:
        result = measure(arguments.ways)
        print(json.dumps(result, indent=2) if arguments.json else table(result))


if __name__ == "__main__":
    main()
