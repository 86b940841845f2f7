"""Judge the tiny models on held-out seeds: `python -m training.tiny_wan.measure --out FOLDER [--seeds 200]`.

Every prompt is drawn with seeds that training never used, through the engine as a task would. Text-to-video: is what
was asked for to be seen. Image-to-video: is the first frame the given one, does the shape go where the prompt says.
VACE: are the kept frames kept, does what lies between go on evenly. Writes `measured.json` and contact sheets.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from training.tiny_wan.judge import Frames, judge
from training.tiny_wan.shapes import ALL_PROMPTS, FRAMES, HELD_OUT, SIDE, draw_scene, prompt, render
from Wan2GP import wgp
from Wan2GP.media import read_frames, write_image, write_video

#: frames of a contact sheet
_SHOWN = (0, 4, 8, 12, 16)


@dataclass(frozen=True)
class Case:
    """One clip to draw, and the true one that its pictures come from."""

    words: tuple[str, str, str]
    seed: int
    truth: Frames


def cases(count: int, first_seed: int = 1_000_000) -> Iterator[Case]:
    """`count` cases, the prompts in turn, scenes by chance."""
    for number in range(count):
        words = ALL_PROMPTS[number % len(ALL_PROMPTS)]
        seed = first_seed + number
        clip = render(draw_scene(np.random.default_rng(seed), words))
        yield Case(words, seed, np.round(clip * 255).astype(np.uint8))


def drawn(model: str, case: Case, folder: Path, **more: Any) -> Frames:
    """The model's clip (F, H, W, 3) uint8, as read back from the file that the call wrote."""
    state: dict[str, Any] = {}
    failures: list[Any] = []
    wgp.configure(save_path=folder, device="cpu")
    wgp.generate_media(
        model_type=model,
        prompt=prompt(*case.words),
        seed=case.seed,
        video_length=FRAMES,
        resolution=f"{SIDE}x{SIDE}",
        state=state,
        send_cmd=lambda command, data=None: failures.append(data) if command == "error" else None,
        **more,
    )
    if failures:
        raise failures[0]
    return np.stack(list(read_frames(Path(state["gen"]["file_list"][-1]))))


def judged(frames: Frames, case: Case) -> dict[str, Any]:
    """Whether each word of the prompt is to be seen, and how much less clear the first frame is, in dB."""
    seen = judge(frames)
    colour, shape, direction = case.words
    return {
        "prompt": prompt(*case.words),
        "held_out": case.words in HELD_OUT,
        "colour": seen.colour == colour,
        "shape": seen.shape == shape,
        "direction": seen.direction == direction,
        "first_frame_gap_db": round(seen.first_frame_gap, 2),
    }


def measure_t2v(case: Case, folder: Path) -> tuple[dict[str, Any], Frames]:
    frames = drawn("tiny_wan_t2v", case, folder)
    return judged(frames, case), frames


def measure_i2v(case: Case, folder: Path) -> tuple[dict[str, Any], Frames]:
    frames = drawn("tiny_wan_i2v", case, folder, image_start=case.truth[0])
    return judged(frames, case) | {"first_frame_ssim": round(ssim(frames[0], case.truth[0]), 4)}, frames


def measure_vace(case: Case, folder: Path) -> tuple[dict[str, Any], Frames]:
    """The first five frames and the last one are kept, as a chained travel keeps them."""
    kept = [*range(5), FRAMES - 1]
    guide, mask = np.full_like(case.truth, 128), np.full_like(case.truth, 255)
    guide[kept], mask[kept] = case.truth[kept], 0
    control = {name: folder / f"{case.seed}_{name}.mp4" for name in ("video_guide", "video_mask")}
    write_video(control["video_guide"], guide, fps=16)
    write_video(control["video_mask"], mask, fps=16)
    frames = drawn("tiny_wan_vace", case, folder, video_prompt_type="VMA", **control)
    errors = [psnr(frames[index], case.truth[index]) for index in kept]
    found = {"kept_psnr_db": round(float(np.mean(errors)), 2), "jump": round(largest_jump(frames), 2)}
    return judged(frames, case) | found, frames


def psnr(one: Frames, other: Frames) -> float:
    """In dB, of uint8 pictures."""
    error = float(np.mean((one.astype(np.float64) - other) ** 2))
    return 10 * float(np.log10(255**2 / max(error, 1e-9)))


def ssim(one: Frames, other: Frames) -> float:
    """Structural similarity of the grey pictures, with the usual Gaussian window (Wang et al. 2004)."""
    a, b = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float64) for image in (one, other))
    mean_a, mean_b = _blurred(a), _blurred(b)
    both = _blurred(a * b) - mean_a * mean_b
    spread = _blurred(a * a) - mean_a**2 + _blurred(b * b) - mean_b**2
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    return float(
        (((2 * mean_a * mean_b + c1) * (2 * both + c2)) / ((mean_a**2 + mean_b**2 + c1) * (spread + c2))).mean()
    )


def _blurred(image: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(image, (11, 11), 1.5)


def largest_jump(frames: Frames) -> float:
    """The largest distance in pixels that the shape's centroid goes between two frames."""
    grey = frames.max(axis=3).astype(np.float64) - 40
    weights = np.clip(grey, 0, None)
    rows, columns = np.mgrid[0 : frames.shape[1], 0 : frames.shape[2]]
    total = weights.sum(axis=(1, 2)).clip(1e-6)
    x, y = (weights * columns).sum(axis=(1, 2)) / total, (weights * rows).sum(axis=(1, 2)) / total
    return float(np.hypot(np.diff(x), np.diff(y)).max())


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Shares of right answers and means of the measures; those of the prompts that were never trained apart."""
    kept = [row for row in rows if row["held_out"]]
    found: dict[str, Any] = {"clips": len(rows), "clips_of_held_out_prompts": len(kept)}
    for name in ("colour", "direction", "shape"):
        found[name] = round(float(np.mean([row[name] for row in rows])), 4)
        found[f"{name}_held_out"] = round(float(np.mean([row[name] for row in kept])), 4) if kept else None
    for name in ("first_frame_gap_db", "first_frame_ssim", "kept_psnr_db", "jump"):
        values = [row[name] for row in rows if name in row]
        if values:
            found[name] = {"mean": round(float(np.mean(values)), 3), "worst": _worst(name, values)}
    return found


def _worst(name: str, values: list[float]) -> float:
    return max(values) if name in ("first_frame_gap_db", "jump") else min(values)


def shown(clips: list[Frames], count: int = 24) -> list[Frames]:
    """Some of the clips, of every colour, shape and direction (which change fastest from case to case)."""
    return [clips[(number * 7) % len(clips)] for number in range(min(count, len(clips)))]


def contact_sheet(clips: list[Frames], columns: int = 3) -> Frames:
    """Five frames of each clip in a row, rows side by side."""
    strips = [np.concatenate([clip[index] for index in _SHOWN], axis=1) for clip in clips]
    strips += [np.zeros_like(strips[0])] * (-len(strips) % columns)
    gap = np.full((2, strips[0].shape[1], 3), 90, np.uint8)
    piles = [np.concatenate([part for strip in strips[n::columns] for part in (strip, gap)]) for n in range(columns)]
    bar = np.full((piles[0].shape[0], 6, 3), 90, np.uint8)
    return np.concatenate([part for pile in piles for part in (pile, bar)], axis=1)


MEASURES = {"t2v": measure_t2v, "i2v": measure_i2v, "vace": measure_vace}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--variants", nargs="+", choices=sorted(MEASURES), default=list(MEASURES))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    measured = given.out / "measured.json"
    found = json.loads(measured.read_text(encoding="utf-8")) if measured.exists() else {}
    for variant in given.variants:
        results = [MEASURES[variant](case, given.out / "clips") for case in cases(given.seeds)]
        found[variant] = summary([row for row, _ in results])
        write_image(given.out / f"tiny_wan_{variant}.png", contact_sheet(shown([clip for _, clip in results])))
        measured.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        print(variant, json.dumps(found[variant]), flush=True)


if __name__ == "__main__":
    main()
