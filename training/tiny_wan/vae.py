"""Train the tiny models' video VAE: `python -m training.tiny_wan.vae --out FOLDER`. Resumes from its checkpoint.

AutoencoderKLWan with Wan 2.2's pixel shuffle: 8x smaller in space, 4x in time, 17 frames of 64x64 -> 5x8x8 latents.
Beside the reconstruction and the KL term the loss pulls the statistics of the first latent frame (which holds one
picture) to those of the others (which hold four): a diffusion model normalises all of them with one mean and deviation.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.tiny_wan.run import Run
from training.tiny_wan.shapes import clip_of

CONFIG: dict[str, Any] = {
    "base_dim": 16,
    "z_dim": 12,
    "dim_mult": [1, 2, 4],
    "num_res_blocks": 1,
    "temperal_downsample": [True, True],
    "patch_size": 2,
    "in_channels": 12,
    "out_channels": 12,
    "scale_factor_spatial": 8,
    "scale_factor_temporal": 4,
}
KL_WEIGHT = 2e-5
FIRST_FRAME_WEIGHT = 0.02
EDGE_WEIGHT = 4.0
#: noise on the latents, as a share of their deviation: the decoder shall forgive what a diffusion model leaves
NOISE = 0.1
REFINING_NOISE = 0.02
STRUCTURE_WEIGHT = 0.05


def build() -> Any:
    from diffusers import AutoencoderKLWan

    return AutoencoderKLWan(**CONFIG)


def batch_of(rng: np.random.Generator, size: int) -> torch.Tensor:
    """Fresh clips: (size, 3, 17, 64, 64) in [-1, 1]."""
    clips = np.stack([clip_of(rng)[1] for _ in range(size)])
    return torch.from_numpy(clips).permute(0, 4, 1, 2, 3).mul_(2).sub_(1)


def edges(x: torch.Tensor) -> torch.Tensor:
    """(N, 1, F, H, W): how much more a pixel of the shape weighs than one of the ground, which is most of a clip."""
    return 1 + EDGE_WEIGHT * (x - x[:, :, :, :1, :1]).abs().amax(1, keepdim=True)


def loss_of(vae: Any, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss of all of the VAE, and the mean squared error of the reconstruction."""
    with torch.autocast("cpu", torch.bfloat16):
        posterior = vae.encode(x).latent_dist
        z = posterior.mean
        y = vae.decode(posterior.sample() + NOISE * z.detach().std() * torch.randn_like(z)).sample.float()
    error = (y - x) ** 2
    reconstruction = (edges(x) * error).mean() + 0.05 * (edges(x) * (y - x).abs()).mean()
    divergence = 0.5 * (z.float() ** 2 + posterior.var.float() - 1 - posterior.logvar.float()).mean()
    first, rest, axes = z[:, :, :1].float(), z[:, :, 1:].float(), (0, 2, 3, 4)
    apart = (first.mean(axes) - rest.mean(axes)) ** 2 + (first.std(axes) - rest.std(axes)) ** 2
    return reconstruction + KL_WEIGHT * divergence + FIRST_FRAME_WEIGHT * apart.mean(), error.detach().mean()


def decoder_loss_of(vae: Any, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss of the decoder alone, from the mean of the latents, and the mean squared error."""
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            z = vae.encode(x).latent_dist.mean
            z = z + REFINING_NOISE * z.std() * torch.randn_like(z)
        y = vae.decode(z).sample.float()
    error = (y - x) ** 2
    loss = error.mean() + 0.5 * (edges(x) * error).mean() + 0.05 * (y - x).abs().mean()
    return loss + STRUCTURE_WEIGHT * (1 - similarity(y / 2, x / 2)), error.detach().mean()


def similarity(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Mean structural similarity (Wang et al. 2004) of clips (N, 3, F, H, W) with a range of 1, in windows of 7x7.

    It sees what the squared error does not: that an even ground stays even.
    """
    a, b = (clip.transpose(1, 2).flatten(0, 1) for clip in (one, other))
    mean_a, mean_b = _pooled(a), _pooled(b)
    both = _pooled(a * b) - mean_a * mean_b
    spread = _pooled(a * a) - mean_a**2 + _pooled(b * b) - mean_b**2
    steady, even = 0.03**2, 0.01**2
    return (
        ((2 * mean_a * mean_b + even) * (2 * both + steady)) / ((mean_a**2 + mean_b**2 + even) * (spread + steady))
    ).mean()


def _pooled(pictures: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.avg_pool2d(pictures, 7, stride=2)


def train(out: Path, minutes: float, batch: int, rate: float) -> None:
    """Train all of it, then write the finished VAE to `out`/vae."""
    torch.manual_seed(0)
    run = Run(build(), out / "vae.pt", minutes, rate, warm=100, decay=0.995, last=0.02)
    _go(run, loss_of, batch, seed=1)
    _write_statistics(run.module, np.random.default_rng(9))
    run.module.save_pretrained(out / "vae")


def refine(out: Path, minutes: float, batch: int, rate: float) -> None:
    """Train the decoder further and write it over the finished VAE. The latents stay as they are, so what was trained
    on them meanwhile fits."""
    from diffusers import AutoencoderKLWan

    vae = AutoencoderKLWan.from_pretrained(out / "vae")
    for name, value in vae.named_parameters():
        value.requires_grad_(name.startswith(("decoder.", "post_quant_conv.")))
    run = Run(vae, out / "decoder.pt", minutes, rate, warm=50, decay=0.995, last=0.02)
    _go(run, decoder_loss_of, batch, seed=7_000)
    vae.save_pretrained(out / "vae")


def _go(
    run: Run, loss_of_batch: Callable[[Any, torch.Tensor], tuple[torch.Tensor, torch.Tensor]], batch: int, seed: int
) -> None:
    """Train to the end of the time; the module then has the averaged weights."""
    rng = np.random.default_rng(seed + run.step)
    for _ in run.steps():
        loss, error = loss_of_batch(run.module, batch_of(rng, batch))
        run.learn(loss)
        run.tell(20, f"loss {float(loss.detach()):.4f}  PSNR {-10 * math.log10(float(error) / 4):.2f} dB")
    run.module.load_state_dict(run.averaged)


@torch.no_grad()
def _write_statistics(vae: Any, rng: np.random.Generator) -> None:
    """The latents' mean and deviation per channel, into the config, where every Wan pipeline looks for them."""
    z = torch.cat([vae.encode(batch_of(rng, 16)).latent_dist.mean for _ in range(16)])
    vae.register_to_config(latents_mean=z.mean((0, 2, 3, 4)).tolist(), latents_std=z.std((0, 2, 3, 4)).tolist())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the folder for the checkpoint and the finished VAE")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--refine", action="store_true", help="train the decoder of the finished VAE further")
    given = parser.parse_args()
    (refine if given.refine else train)(given.out, given.minutes, given.batch, given.rate)


if __name__ == "__main__":
    main()
