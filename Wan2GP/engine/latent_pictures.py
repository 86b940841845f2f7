"""What latents look like, without decoding them: a linear projection of each latent pixel to a colour.

It costs the device some small kernels, and nothing waits for them there: the copy to the host is asynchronous, and who
encodes the picture (`Wan2GP.previews`) waits for it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import torch

from Wan2GP.media.preview import MEDIA_TYPE, MOST_FRAMES, preview_image
from Wan2GP.previews import Preview, Watcher

_PUBLISHED = Path(__file__).parent.parent / "configs" / "preview" / "projections.json"
#: class of a VAE, its latent channels and its first width -> a published projection. A VAE of another width has other
#: latents. Qwen-Image's has those of Wan 2.1, Z-Image's those of FLUX.
_KNOWN = {
    ("AutoencoderKLWan", 16, 96): "wan_2_1",
    ("AutoencoderKLWan", 48, 160): "wan_2_2",
    ("AutoencoderKLQwenImage", 16, 96): "wan_2_1",
    ("AutoencoderKL", 16, 128): "flux",
    ("AutoencoderKLLTXVideo", 128, 128): "ltx",
    ("AutoencoderKLHunyuanVideo", 16, 128): "hunyuan",
}
#: pixels a side of the picture by which an unknown VAE is measured (the first that has latent pixels enough for each
#: channel) and of its patches, and how much of the identity holds the fit down
_CARDS, _PATCH, _ENOUGH, _RIDGE = (128, 256, 512), 16, 4, 1e-3


@dataclass(frozen=True)
class Projection:
    """rgb = latents @ factors + bias, in [-1, 1], of normalised latents."""

    #: (C, 3) and (3,) float32, on the host
    factors: torch.Tensor
    bias: torch.Tensor
    _placed: dict[torch.device, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict, compare=False)

    def pixels(self, latents: torch.Tensor) -> torch.Tensor:
        """(C, F, h, w) -> (F, h, w, 3) uint8, on the same device."""
        if latents.device not in self._placed:
            self._placed[latents.device] = self.factors.to(latents.device), self.bias.to(latents.device)
        factors, bias = self._placed[latents.device]
        colours = torch.einsum("cfhw,cr->fhwr", latents.float(), factors) + bias
        return ((colours.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


_projections: WeakKeyDictionary[torch.nn.Module, Projection] = WeakKeyDictionary()


@torch.inference_mode()
def show(watcher: Watcher | None, step: int, vae: Any, clean: Callable[[], torch.Tensor]) -> None:
    """Show what `clean` gives, if it is time to: normalised latents (1, C, h, w) or (1, C, F, h, w) without noise, as
    far as they are known after the step of that number. Nothing where nobody watches, and nothing of an unknown VAE
    that is not where the latents are."""
    if watcher is None or not watcher.wants:
        return
    latents = clean()[0]
    projection = projection_of(vae, latents.device)
    if projection is None:
        return
    frames = latents[:, None] if latents.ndim == 3 else latents
    stride = -(-frames.shape[1] // MOST_FRAMES)
    arrived = _on_its_way(projection.pixels(frames[:, ::stride]))
    watcher.offer(lambda: Preview(step, MEDIA_TYPE, preview_image(arrived())))


def projection_of(vae: Any, device: torch.device) -> Projection | None:
    """The projection of a VAE's latents: a published one, or one that is fitted to it once, where it is on `device`."""
    if vae not in _projections:
        published = _KNOWN.get(_kind(vae))
        if published is not None:
            _projections[vae] = _read(published)
        elif next(vae.parameters()).device == device:
            _projections[vae] = fitted(vae)
    return _projections.get(vae)


def fitted(vae: Any) -> Projection:
    """The projection by least squares of what the VAE decodes from the latents of a test card."""
    device = next(vae.parameters()).device
    devices = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(devices), torch.no_grad():
        for side in _CARDS:
            raw = _encoded(vae, side)
            if _tells(raw):
                break
        decoded = _decoded(vae, raw).float()
    mean, spread = _statistics(vae, raw)
    latents = ((raw.float() - mean) / spread).flatten(2)[0].T
    height, width = raw.shape[-2:]
    colours = torch.nn.functional.adaptive_avg_pool2d(decoded, (height, width)).flatten(2)[0].T
    return least_squares(latents.double().cpu(), colours.double().cpu())


def least_squares(latents: torch.Tensor, colours: torch.Tensor) -> Projection:
    """(N, C) and (N, 3) -> ridge regression."""
    known = torch.cat([latents, torch.ones(len(latents), 1, dtype=latents.dtype)], dim=1)
    weights = _RIDGE * len(latents) * torch.eye(known.shape[1], dtype=known.dtype)
    found = torch.linalg.solve(known.T @ known + weights, known.T @ colours).float()
    return Projection(found[:-1].clone(), found[-1].clone())


def _tells(raw: torch.Tensor) -> bool:
    """Whether there are latent pixels enough to fit a plane."""
    return raw.shape[-2] * raw.shape[-1] >= _ENOUGH * raw.shape[1]


def _encoded(vae: Any, side: int) -> torch.Tensor:
    """Latents (1, C, h, w) or (1, C, 1, h, w), as they are decoded, of a test card of so many pixels a side."""
    card = _test_card(side).to(next(vae.parameters()).device, vae.dtype)
    found: torch.Tensor = vae.encode(card if _is_still(vae) else card[:, :, None]).latent_dist.mode()
    return found


def _test_card(side: int) -> torch.Tensor:
    """(1, 3, H, W) in [-1, 1]: patches of every colour, always the same."""
    patches = side // _PATCH
    colours = np.random.default_rng(0).uniform(-1, 1, (1, 3, patches, patches)).astype(np.float32)
    return torch.nn.functional.interpolate(torch.from_numpy(colours), size=(side, side), mode="nearest")


def _decoded(vae: Any, raw: torch.Tensor) -> torch.Tensor:
    """(1, 3, H, W) of one latent frame."""
    needs_moment = bool(getattr(vae.config, "timestep_conditioning", False))
    moment = (torch.zeros(1, device=raw.device, dtype=raw.dtype),) if needs_moment else ()
    found: torch.Tensor = vae.decode(raw, *moment, return_dict=False)[0]
    return found if found.ndim == 4 else found[:, :, 0]


def _is_still(vae: Any) -> bool:
    """Whether its pictures have no axis of time."""
    return type(vae).__name__ == "AutoencoderKL"


def _statistics(vae: Any, raw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and spread of what it encodes, for (1, C, …): the loops work on latents less the one, through the other."""
    config, shape = vae.config, (1, -1, *(1,) * (raw.ndim - 2))
    scale = float(getattr(config, "scaling_factor", None) or 1.0)
    means = _listed(vae, "latents_mean", getattr(config, "shift_factor", None) or 0.0)
    spreads = _listed(vae, "latents_std", 1.0)
    return means.to(raw.device).reshape(shape), spreads.to(raw.device).reshape(shape) / scale


def _listed(vae: Any, name: str, missing: float) -> torch.Tensor:
    """A statistic of each channel: a buffer, a list of the configuration, or one number."""
    found = dict(vae.named_buffers(recurse=False)).get(name, getattr(vae.config, name, None))
    return torch.as_tensor(missing if found is None else found, dtype=torch.float32)


def _kind(vae: Any) -> tuple[str, int, int]:
    config = vae.config
    channels = getattr(config, "z_dim", None) or config.latent_channels
    width = getattr(config, "base_dim", None) or config.block_out_channels[0]
    return type(vae).__name__, int(channels), int(width)


def _read(name: str) -> Projection:
    found = json.loads(_PUBLISHED.read_text(encoding="utf-8"))[name]
    return Projection(torch.tensor(found["factors"]), torch.tensor(found["bias"]))


def _on_its_way(pixels: torch.Tensor) -> Callable[[], npt.NDArray[np.uint8]]:
    """A copy on the host, and a wait for it that another thread can do."""
    copied = pixels.to("cpu", non_blocking=True)
    if pixels.device.type != "cuda":
        return copied.numpy
    event = torch.cuda.Event()
    event.record()

    def arrived() -> npt.NDArray[np.uint8]:
        event.synchronize()
        return copied.numpy()

    return arrived
