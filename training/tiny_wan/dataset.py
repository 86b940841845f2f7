"""Encode fresh clips into latents, in shards: `python -m training.tiny_wan.dataset --vae FOLDER --out FOLDER`.

One shard holds, for 256 clips: `words` (the number of the prompt) and `latents` (N, z, 5, 8, 8). With `--conditions` a
second file beside it holds what the variants learn from, made as the engine makes it: `image` (the clip's first frame,
sometimes also its last, the rest grey) with `image_frames` (N, 17) marking what was given, and `control` (the frames
that VACE keeps, the rest grey) with `kept_frames` (N, 17). `grey.pt` holds the latents of a grey clip. All latents are
normalised by the VAE's mean and deviation.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.tiny_wan.shapes import FRAMES, SIDE, TRAINED, clip_of

SHARD = 256
END_IMAGE_SHARE = 0.4


def load_vae(folder: Path) -> Any:
    from diffusers import AutoencoderKLWan

    return AutoencoderKLWan.from_pretrained(folder, dtype=torch.float32).eval()


def normalised(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    mean = torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1, 1)
    return (latents - mean) / torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1)


@torch.no_grad()
def encoded(vae: Any, clips: torch.Tensor, at_once: int = 16) -> torch.Tensor:
    """(N, 3, 17, 64, 64) in [-1, 1] -> (N, z, 5, 8, 8), normalised."""
    return torch.cat([normalised(vae, vae.encode(part).latent_dist.mean) for part in clips.split(at_once)])


def image_frames(rng: np.random.Generator) -> np.ndarray:
    """Which frames an image-to-video model is given: the first, and sometimes the last."""
    given = np.zeros(FRAMES, dtype=bool)
    given[0] = True
    given[-1] = rng.random() < END_IMAGE_SHARE
    return given


def kept_frames(rng: np.random.Generator) -> np.ndarray:
    """Which frames VACE is given: the ways in which travels, joins and windows use it."""
    kept = np.zeros(FRAMES, dtype=bool)
    kind = rng.choice(
        ["none", "first", "last", "both", "head", "both heads", "some"], p=[0.08, 0.15, 0.05, 0.3, 0.17, 0.15, 0.1]
    )
    if kind in ("first", "both"):
        kept[0] = True
    if kind in ("last", "both"):
        kept[-1] = True
    if kind in ("head", "both heads"):
        kept[: int(rng.choice([4, 5, 8, 9]))] = True
    if kind == "both heads":
        kept[-int(rng.choice([1, 4, 5])) :] = True
    if kind == "some":
        kept[rng.choice(FRAMES, size=int(rng.integers(1, 6)), replace=False)] = True
    return kept


def shard_of(vae: Any, seed: int, conditions: bool) -> dict[str, torch.Tensor]:
    """One shard's clips, or the conditions of the same clips: a seed gives the same clips again."""
    rng = np.random.default_rng(seed)
    words = [TRAINED[int(rng.integers(len(TRAINED)))] for _ in range(SHARD)]
    clips = torch.from_numpy(np.stack([clip_of(rng, w)[1] for w in words])).permute(0, 4, 1, 2, 3) * 2 - 1
    given = torch.from_numpy(np.stack([image_frames(rng) for _ in words]))
    kept = torch.from_numpy(np.stack([kept_frames(rng) for _ in words]))
    if not conditions:
        return {"words": torch.tensor([TRAINED.index(w) for w in words]), "latents": encoded(vae, clips)}
    return {
        "image": encoded(vae, clips * given[:, None, :, None, None]),
        "image_frames": given,
        "control": encoded(vae, clips * kept[:, None, :, None, None]),
        "kept_frames": kept,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--conditions", action="store_true", help="the conditions of shards that are there")
    parser.add_argument("--first", type=int, default=0, help="number of the first shard")
    parser.add_argument("--shards", type=int, default=48)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    vae = load_vae(given.vae)
    if not (given.out / "grey.pt").exists():
        torch.save(encoded(vae, torch.zeros(1, 3, FRAMES, SIDE, SIDE)), given.out / "grey.pt")
    for number in range(given.first, given.first + given.shards):
        path = given.out / f"{'conditions' if given.conditions else 'shard'}{number:03d}.pt"
        if path.exists():
            continue
        torch.save(shard_of(vae, 1000 + number, given.conditions), path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)


if __name__ == "__main__":
    main()
