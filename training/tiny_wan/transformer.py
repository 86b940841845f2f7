"""Train a tiny Wan transformer: `python -m training.tiny_wan.transformer --variant t2v --data FOLDER --out FOLDER`.

Flow matching as Wan does it: x_s = (1 - s) x + s noise, the model predicts noise - x; s is logit-normal, shifted to the
noisy side. Resumes from its checkpoint. `i2v` starts from the t2v weights with further input channels, `vace` keeps the
t2v weights as they are and trains its control blocks alone, as copies of the first ones.
"""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from training.tiny_wan.run import Run
from training.tiny_wan.shapes import TRAINED, prompt
from training.tiny_wan.words import text_encoder, token_ids, tokenizer

TEMPORAL, SPATIAL = 4, 8
EMPTY_PROMPT_SHARE = 0.1
FLOW_SHIFT = 3.0
#: the first latent frame is one picture in detail, and the only one of its kind
FIRST_FRAME_WEIGHT = 2.0
VACE_LAYERS = [0, 2, 4]


def config(variant: str, channels: int) -> dict[str, Any]:
    """The transformer's configuration; `channels` are the VAE's latent channels."""
    shape: dict[str, Any] = {
        "patch_size": (1, 2, 2),
        "num_attention_heads": 5,
        "attention_head_dim": 32,
        "in_channels": channels + (TEMPORAL + channels if variant == "i2v" else 0),
        "out_channels": channels,
        "text_dim": 64,
        "freq_dim": 128,
        "ffn_dim": 640,
        "num_layers": 6,
        "cross_attn_norm": True,
        "qk_norm": "rms_norm_across_heads",
        "rope_max_seq_len": 128,
    }
    if variant == "vace":
        shape |= {"vace_layers": VACE_LAYERS, "vace_in_channels": 2 * channels + SPATIAL**2}
    return shape


def build(variant: str, channels: int) -> Any:
    from diffusers import WanTransformer3DModel, WanVACETransformer3DModel

    kind = WanVACETransformer3DModel if variant == "vace" else WanTransformer3DModel
    model = kind(**config(variant, channels))
    for name, value in model.named_parameters():
        if name.endswith("proj_out.weight") and "vace" in name:
            torch.nn.init.zeros_(value)
    return model


def begin_from(model: Any, weights: dict[str, torch.Tensor], variant: str) -> None:
    """Put t2v weights into a variant: new input channels start at zero, control blocks as copies of main blocks."""
    own = model.state_dict()
    for name, value in weights.items():
        if own[name].shape == value.shape:
            own[name].copy_(value)
        else:
            own[name].zero_()
            own[name][:, : value.shape[1]].copy_(value)
    if variant == "vace":
        for number, layer in enumerate(VACE_LAYERS):
            for name, value in weights.items():
                if name.startswith(f"blocks.{layer}."):
                    own[name.replace(f"blocks.{layer}.", f"vace_blocks.{number}.", 1)].copy_(value)
    model.load_state_dict(own)


def _shard(path: Path, conditions: bool) -> dict[str, torch.Tensor]:
    if not conditions:
        return torch.load(path, weights_only=True)
    beside = path.with_name(path.name.replace("conditions", "shard"))
    return torch.load(path, weights_only=True) | torch.load(beside, weights_only=True)


def batches(folder: Path, size: int, seed: int, conditions: bool) -> Iterator[dict[str, torch.Tensor]]:
    """Shuffled batches for ever; shards that appear while training runs are taken up at the next round."""
    chance = torch.Generator().manual_seed(seed)
    while True:
        shards = [
            _shard(path, conditions) for path in sorted(folder.glob("conditions*.pt" if conditions else "shard*.pt"))
        ]
        whole = {name: torch.cat([shard[name] for shard in shards]) for name in shards[0]}
        order = torch.randperm(len(whole["words"]), generator=chance)
        for chosen in order[: len(order) // size * size].split(size):
            yield {name: value[chosen] for name, value in whole.items()}


def frame_mask(given: torch.Tensor, side: int) -> torch.Tensor:
    """(N, 17) bool -> (N, 4, 5, side, side): which of a latent frame's pictures are given, as Wan's i2v wants it."""
    marks = given.float()
    marks = torch.cat([marks[:, :1].repeat(1, TEMPORAL), marks[:, 1:]], dim=1)
    return marks.view(len(given), -1, TEMPORAL).transpose(1, 2)[..., None, None].expand(-1, -1, -1, side, side)


def control_mask(kept: torch.Tensor, frames: int, side: int) -> torch.Tensor:
    """(N, 17) bool -> (N, 64, frames, side, side): 1 where VACE draws, sampled in time as the engine samples it."""
    drawn = (~kept).float()[:, None, :, None, None]
    drawn = functional.interpolate(drawn, size=(frames, 1, 1), mode="nearest-exact")
    return drawn.expand(-1, SPATIAL**2, -1, side, side)


def inputs_of(variant: str, noisy: torch.Tensor, batch: dict[str, torch.Tensor], grey: torch.Tensor) -> dict[str, Any]:
    frames, side = noisy.shape[2], noisy.shape[3]
    if variant == "i2v":
        return {"hidden_states": torch.cat([noisy, frame_mask(batch["image_frames"], side), batch["image"]], dim=1)}
    if variant == "vace":
        mask = control_mask(batch["kept_frames"], frames, side)
        control = torch.cat([batch["control"], grey.expand(len(noisy), -1, -1, -1, -1), mask], dim=1)
        return {"hidden_states": noisy, "control_hidden_states": control}
    return {"hidden_states": noisy}


class Trainee(torch.nn.Module):
    """The text encoder and the transformer as one thing to train."""

    def __init__(self, variant: str, channels: int) -> None:
        super().__init__()
        self.words = tokenizer()
        self.text = text_encoder(len(self.words))
        self.transformer = build(variant, channels)
        self.variant = variant
        prompts = [prompt(*words) for words in TRAINED] + [""]
        self.ids, self.mask = token_ids(self.words, prompts)

    def encode(self, numbers: torch.Tensor) -> torch.Tensor:
        """Prompt numbers -> (N, MAX_TOKENS, 64), zero after the end of the text, as the engine pads."""
        needed, back = torch.unique(numbers, return_inverse=True)
        mask = self.mask[needed]
        states = self.text(self.ids[needed], mask).last_hidden_state
        return (states * mask[..., None])[back]

    def loss(self, batch: dict[str, torch.Tensor], grey: torch.Tensor) -> torch.Tensor:
        latents = batch["latents"]
        count = len(latents)
        level = torch.sigmoid(torch.randn(count))
        level = FLOW_SHIFT * level / (1 + (FLOW_SHIFT - 1) * level)
        noise = torch.randn_like(latents)
        weight = level.view(-1, 1, 1, 1, 1)
        noisy = (1 - weight) * latents + weight * noise
        numbers = batch["words"].where(torch.rand(count) >= EMPTY_PROMPT_SHARE, torch.tensor(len(TRAINED)))
        # The fused attention's backward pass is many times slower than plain products for so few tokens on a CPU.
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            seen = self.transformer(
                **inputs_of(self.variant, noisy, batch, grey),
                timestep=level * 1000,
                encoder_hidden_states=self.encode(numbers),
                return_dict=False,
            )[0]
        error = (seen.float() - (noise - latents)) ** 2
        return (error.mean() + (FIRST_FRAME_WEIGHT - 1) * error[:, :, 0].mean() / error.shape[2]).float()


def trainee_for(given: argparse.Namespace, channels: int) -> Trainee:
    """What a run trains; variants begin with the t2v weights and share its text encoder as it is."""
    trainee = Trainee(given.variant, channels)
    if given.begin is None:
        return trainee
    kept = torch.load(given.begin, weights_only=True)["averaged"]
    trainee.text.load_state_dict(_part(kept, "text."))
    begin_from(trainee.transformer, _part(kept, "transformer."), given.variant)
    trainee.text.requires_grad_(False)
    if given.variant == "vace":
        for name, value in trainee.transformer.named_parameters():
            value.requires_grad_("vace" in name)
    return trainee


def _part(weights: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def train(given: argparse.Namespace) -> None:
    """Train one variant to the end of the time; its checkpoint holds the averaged weights."""
    torch.manual_seed(given.seed)
    sample = torch.load(next(iter(sorted(given.data.glob("shard*.pt")))), weights_only=True)
    grey = torch.load(given.data / "grey.pt", weights_only=True) if given.variant == "vace" else torch.zeros(1)
    trainee = trainee_for(given, sample["latents"].shape[1])
    run = Run(trainee, given.out, given.minutes, given.rate, warm=200, decay=0.998, last=0.03)
    source = batches(given.data, given.batch, given.seed + run.step, given.variant != "t2v")
    recent: deque[float] = deque(maxlen=50)
    for _ in run.steps():
        loss = trainee.loss(next(source), grey)
        run.learn(loss)
        recent.append(float(loss.detach()))
        run.tell(50, f"loss {sum(recent) / len(recent):.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", choices=("t2v", "i2v", "vace"), required=True)
    parser.add_argument("--data", type=Path, required=True, help="the folder of shards")
    parser.add_argument("--out", type=Path, required=True, help="the checkpoint, also read to resume")
    parser.add_argument("--begin", type=Path, help="the t2v checkpoint that a variant begins with")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
