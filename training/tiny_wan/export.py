"""Put trained parts into what ships: `python -m training.tiny_wan.export --run FOLDER --out Wan2GP/tiny_wan`.

`base` is a whole diffusers folder with the text-to-video transformer; `i2v` holds a transformer alone, `vace` the
control blocks alone, which the loader lays over the base's transformer. Weights are rounded to half precision.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from training.tiny_wan.dataset import load_vae
from training.tiny_wan.transformer import build, config
from training.tiny_wan.words import text_encoder, tokenizer

_INDEX = {
    "_class_name": "WanPipeline",
    "scheduler": [None, None],
    "text_encoder": ["transformers", "UMT5EncoderModel"],
    "tokenizer": ["transformers", "T5Tokenizer"],
    "transformer": ["diffusers", "WanTransformer3DModel"],
    "vae": ["diffusers", "AutoencoderKLWan"],
}
_WEIGHTS = "diffusion_pytorch_model.safetensors"


def averaged(checkpoint: Path, part: str) -> dict[str, torch.Tensor]:
    """The running mean of one part's weights, rounded to half precision."""
    kept = torch.load(checkpoint, weights_only=True)["averaged"]
    return {name[len(part) + 1 :]: value.half() for name, value in kept.items() if name.startswith(f"{part}.")}


def export_base(run: Path, out: Path) -> None:
    words = tokenizer()
    words.save_pretrained(out / "tokenizer")
    encoder = text_encoder(len(words))
    encoder.load_state_dict(averaged(run / "t2v.pt", "text"))
    encoder.half().save_pretrained(out / "text_encoder")
    vae = load_vae(run / "vae")
    vae.half().save_pretrained(out / "vae")
    export_transformer("t2v", run, out / "transformer", vae.config.z_dim)
    (out / "model_index.json").write_text(json.dumps(_INDEX, indent=2) + "\n", encoding="utf-8")


def export_transformer(variant: str, run: Path, folder: Path, channels: int) -> None:
    """The transformer with its config; of VACE only what the base does not hold."""
    weights = averaged(run / f"{variant}.pt", "transformer")
    if variant == "vace":
        weights = {name: value for name, value in weights.items() if "vace" in name}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / _WEIGHTS, metadata={"format": "pt"})
    written: dict[str, Any] = {"_class_name": type(build(variant, channels)).__name__, **config(variant, channels)}
    (folder / "config.json").write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="the folder of checkpoints and the VAE")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--variants", nargs="+", default=["t2v", "i2v", "vace"])
    given = parser.parse_args()
    channels = load_vae(given.run / "vae").config.z_dim
    for variant in given.variants:
        if variant == "t2v":
            export_base(given.run, given.out / "base")
        else:
            export_transformer(variant, given.run, given.out / variant, channels)


if __name__ == "__main__":
    main()
