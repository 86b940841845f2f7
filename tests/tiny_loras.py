"""Tiny Wan transformers, and random LoRAs for them in every layout of files. Importable by every test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from Wan2GP.wan_keys import original_name

#: of the factors; of the transformers' layers
RANK, DIM, FFN = 3, 24, 32
#: where a layout writes one: the product is scaled by alpha / rank
ALPHA = 6.0

Tensors = dict[str, Tensor]


def transformer(kind: str = "t2v", seed: int = 0) -> nn.Module:
    """A transformer of about 50,000 parameters, random but the same for the same seed."""
    from diffusers import WanTransformer3DModel, WanVACETransformer3DModel

    torch.manual_seed(seed)
    settings = {
        "patch_size": (1, 2, 2), "num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 16,
        "out_channels": 16, "text_dim": 32, "freq_dim": 32, "ffn_dim": FFN, "num_layers": 2, "cross_attn_norm": True,
        "qk_norm": "rms_norm_across_heads", "rope_max_seq_len": 32,
    }  # fmt: skip
    if kind == "vace":
        return WanVACETransformer3DModel(**settings, vace_layers=[0, 1], vace_in_channels=96).eval()
    if kind == "i2v":
        settings |= {"in_channels": 36, "image_dim": 20, "added_kv_proj_dim": DIM, "pos_embed_seq_len": 6}
    return WanTransformer3DModel(**settings).eval()


def predict(model: nn.Module) -> Tensor:
    """One forward pass of a t2v model on fixed inputs."""
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        return model(
            hidden_states=torch.randn(1, 16, 2, 8, 8, generator=noise),
            timestep=torch.tensor([500]),
            encoder_hidden_states=torch.randn(1, 5, 32, generator=noise),
            return_dict=False,
        )[0]


def linears(model: nn.Module, within: tuple[str, ...] = ("blocks", "vace_blocks")) -> list[str]:
    return [n for n, m in model.named_modules() if isinstance(m, nn.Linear) and n.split(".")[0] in within]


def factors(model: nn.Module, names: list[str], seed: int = 7) -> dict[str, tuple[Tensor, Tensor]]:
    """(down, up) for each linear layer."""
    noise = torch.Generator().manual_seed(seed)
    shapes = {name: model.get_submodule(name).weight.shape for name in names}
    return {
        name: (torch.randn(RANK, i, generator=noise) * 0.2, torch.randn(o, RANK, generator=noise) * 0.2)
        for name, (o, i) in shapes.items()
    }


def write(folder: Path, tensors: Tensors, name: str = "mine.safetensors", **metadata: str) -> Path:
    folder.mkdir(exist_ok=True)
    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / name, metadata=metadata or None)
    return folder / name


def named(spell: Callable[[str], str], down: str, up: str, alpha: str | None = None):
    """A writer of one layout: layer names by `spell`, then the suffixes of its tensors."""

    def layout(lora: dict[str, tuple[Tensor, Tensor]]) -> Tensors:
        tensors: Tensors = {}
        for name, (d, u) in lora.items():
            tensors |= {spell(name) + down: d, spell(name) + up: u}
            if alpha:
                tensors[spell(name) + alpha] = torch.tensor(ALPHA)
        return tensors

    return layout


def comfy(name: str) -> str:
    return f"diffusion_model.{original_name(name)}"


def musubi(name: str) -> str:
    return "lora_unet_" + original_name(name).replace(".", "_")


LAYOUTS = {
    "diffusers": named(lambda n: f"transformer.{n}", ".lora_A.weight", ".lora_B.weight"),
    "diffusers, no prefix": named(str, ".lora_A.weight", ".lora_B.weight"),
    "peft": named(lambda n: f"base_model.model.{n}", ".lora_A.default.weight", ".lora_B.default.weight"),
    "old diffusers": named(lambda n: f"transformer.{n}", ".lora.down.weight", ".lora.up.weight"),
    "comfy": named(comfy, ".lora_down.weight", ".lora_up.weight", ".alpha"),
    "comfy, A and B": named(comfy, ".lora_A.weight", ".lora_B.weight"),
    "bare original": named(original_name, ".lora_A.weight", ".lora_B.weight", ".alpha"),
    "musubi": named(musubi, ".lora_down.weight", ".lora_up.weight", ".alpha"),
    "flattened diffusers": named(lambda n: "lycoris_" + n.replace(".", "_"), ".lora_down.weight", ".lora_up.weight"),
}
