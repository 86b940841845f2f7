"""Colour match of a frame of 832x480: our 8-bit tables against LAB in floating point.

    python benchmarks/colour_match.py [--json] [--rounds N]

Both ways compute the formula of `source/media/colour_match.py` for the same frames and the same two pictures, whose
statistics both take once beforehand. The plain way keeps float32 arrays throughout and uses OpenCV's float conversions.
The ways take turns in one process, each over all frames; the first round is dropped, and medians are given. How far
apart the results are is measured as well.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from separate_runs import machine

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from source.media.colour_match import KEPT_SATURATION, RATIO_FLOORS, ColourMatch, weights  # noqa: E402
from source.media.images import load_fitted  # noqa: E402
from Wan2GP.command_line import Command  # noqa: E402
from Wan2GP.media import Frame, read_frames  # noqa: E402

CLIP = ROOT / "samples" / "bbb_832x480_81f.mp4"
PICTURES = (ROOT / "samples" / "coffee.jpg", ROOT / "samples" / "astronaut.jpg")
SIZE, NUM_FRAMES = (832, 480), 24
AIM = 8


class FloatMatch:
    """The formula as it is written, in float32."""

    def __init__(self, start: Path, end: Path, num_frames: int) -> None:
        self._targets = [self._statistics(self._lab(_floats(load_fitted(path, SIZE)))) for path in (start, end)]
        self._num_frames = num_frames

    def frame(self, frame: Frame, index: int) -> Frame:
        w_start, w_end, w_own = weights(index, self._num_frames)
        own = _floats(frame)
        faded = self._faded(own)
        start, end = (self._transferred(faded, target) for target in self._targets)
        mixed = w_start * start + w_end * end + w_own * own
        return np.asarray(np.rint(np.clip(mixed, 0, 1) * 255), np.uint8)

    def _faded(self, frame: np.ndarray) -> np.ndarray:
        hsv = cv2.cvtColor(frame, cv2.COLOR_RGB2HSV)
        hsv[..., 1] *= KEPT_SATURATION
        return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)

    def _transferred(self, frame: np.ndarray, target: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        lab = self._lab(frame)
        mean, deviation = self._statistics(lab)
        ratio = np.maximum(target[1] / np.maximum(deviation, 1e-6), RATIO_FLOORS).astype(np.float32)
        return np.clip(cv2.cvtColor((lab - mean) * ratio + target[0], cv2.COLOR_LAB2RGB), 0, 1)

    def _lab(self, frame: np.ndarray) -> np.ndarray:
        return cv2.cvtColor(frame, cv2.COLOR_RGB2LAB)

    def _statistics(self, lab: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return lab.mean(axis=(0, 1)), lab.std(axis=(0, 1))


def _floats(frame: Frame) -> np.ndarray:
    return frame.astype(np.float32) / 255


def run(match: Callable[[Frame, int], Frame], frames: list[Frame]) -> float:
    """Milliseconds a frame."""
    start = time.perf_counter()
    for index, frame in enumerate(frames):
        match(frame, index)
    return (time.perf_counter() - start) * 1000 / len(frames)


def compare(rounds: int) -> dict[str, Any]:
    """Medians of each way, their ratio, and the difference of what they make."""
    frames = list(read_frames(CLIP, 0, NUM_FRAMES))
    tables = ColourMatch(*PICTURES, num_frames=NUM_FRAMES, size=SIZE)
    floats = FloatMatch(*PICTURES, num_frames=NUM_FRAMES)
    ways = {"tables": tables.frame, "float": floats.frame}
    taken = [{name: run(match, frames) for name, match in ways.items()} for _ in range(rounds + 1)][1:]
    medians = {name: statistics.median(one[name] for one in taken) for name in ways}
    off = [np.abs(tables.frame(f, i).astype(int) - floats.frame(f, i)) for i, f in enumerate(frames)]
    return {
        "machine": f"{machine()}, OpenCV {cv2.__version__} with {cv2.getNumThreads()} threads",
        "rounds": rounds,
        "ms_per_frame": medians,
        "ms_min_max": {name: [min(o[name] for o in taken), max(o[name] for o in taken)] for name in ways},
        "ratio": medians["float"] / medians["tables"],
        "aim": AIM,
        "mean_difference": float(np.mean([each.mean() for each in off])),
        "difference_of_99_percent": float(max(np.percentile(each, 99) for each in off)),
    }


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    lines = [
        f"Colour match of {NUM_FRAMES} frames, 832x480; medians of {result['rounds']} rounds on {result['machine']}. "
        f"Aim: {AIM}x.",
        "",
        "| way | ms a frame (min to max) | frames a second | ratio |",
        "|---|---|---|---|",
    ]
    for name, ms in result["ms_per_frame"].items():
        low, high = result["ms_min_max"][name]
        ratio = result["ms_per_frame"]["float"] / ms
        lines.append(f"| {name} | {ms:.1f} ({low:.1f} to {high:.1f}) | {1000 / ms:.0f} | {ratio:.1f}x |")
    lines += [
        "",
        f"The results differ by {result['mean_difference']:.2f} of 255 levels in the mean, and by at most "
        f"{result['difference_of_99_percent']:.0f} in 99 of 100 values of every frame.",
    ]
    return "\n".join(lines)


EXAMPLES = (("python benchmarks/colour_match.py", "measure, and print a table"),)
CODES = {0: "measured", 1: "it cannot run here; also a wrong flag"}


def parser() -> Command:
    """The flags."""
    flags = Command("benchmarks/colour_match.py", description=__doc__, examples=EXAMPLES, codes=CODES)
    flags.add_argument("--json", action="store_true", help="print JSON instead of a table")
    flags.add_argument("--rounds", type=int, default=5, help="measured rounds after the dropped one (default 5)")
    flags.add_version()
    return flags


def main() -> None:
    arguments = parser().parse_args()
    result = compare(arguments.rounds)
    print(json.dumps(result, indent=2) if arguments.json else table(result))


if __name__ == "__main__":
    main()
