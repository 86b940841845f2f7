"""Tiny random-weight Qwen-Image pipelines, built on the spot, saved as diffusers folders. Importable by every test."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tiny_vision import tiny_qwen_vl

#: width of a prompt's states
TEXT_DIM = 32
#: the published scheduler
SCHEDULER = {
    "base_image_seq_len": 256,
    "base_shift": 0.5,
    "max_image_seq_len": 8192,
    "max_shift": 0.9,
    "shift_terminal": 0.02,
    "time_shift_type": "exponential",
    "use_dynamic_shifting": True,
}


def tiny_qwen_image(folder: Path, seed: int = 0) -> Path:
    """Qwen-Image."""
    return _saved(folder, seed, "QwenImagePipeline")


def tiny_qwen_edit(folder: Path, seed: int = 0) -> Path:
    """Qwen-Image-Edit: the same parts and a processor."""
    return _saved(folder, seed, "QwenImageEditPipeline")


def tiny_qwen_edit_plus(folder: Path, seed: int = 0) -> Path:
    """Qwen-Image-Edit-2509."""
    return _saved(folder, seed, "QwenImageEditPlusPipeline")


def tiny_qwen_edit_plus2(folder: Path, seed: int = 0) -> Path:
    """Qwen-Image-Edit-2511, whose pictures are at noise level 0."""
    return _saved(folder, seed, "QwenImageEditPlusPipeline", zero_cond_t=True)


#: architecture -> what builds its tiny model
TINY_QWEN: Mapping[str, Callable[[Path], Path]] = {
    "qwen_image_20B": tiny_qwen_image,
    "qwen_image_edit_20B": tiny_qwen_edit,
    "qwen_image_edit_plus_20B": tiny_qwen_edit_plus,
    "qwen_image_edit_plus2_20B": tiny_qwen_edit_plus2,
}


def tiny_transformer(seed: int = 0, **changes: Any) -> Any:
    """A transformer of about 90,000 parameters."""
    import torch
    from diffusers import QwenImageTransformer2DModel

    torch.manual_seed(seed)
    transformer = QwenImageTransformer2DModel(
        **{
            "patch_size": 2,
            "in_channels": 16,
            "out_channels": 4,
            "num_layers": 2,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "joint_attention_dim": TEXT_DIM,
            "axes_dims_rope": (4, 6, 6),
        }
        | changes
    ).eval()
    with torch.no_grad():
        # Initial weights are too small for prompts and pictures to tell in the result.
        for weights in transformer.parameters():
            if weights.dim() > 1:
                weights.mul_(3)
    return transformer


def _saved(folder: Path, seed: int, pipeline: str, **transformer: Any) -> Path:
    import torch
    from diffusers import AutoencoderKLQwenImage, FlowMatchEulerDiscreteScheduler, QwenImagePipeline
    from diffusers.utils import logging as diffusers_logging
    from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration

    diffusers_logging.disable_progress_bar()
    language = tiny_qwen_vl(folder / "language", seed)
    torch.manual_seed(seed)
    vae = AutoencoderKLQwenImage(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[1.1, 0.9, 1.3, 1.0],
    )
    QwenImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(**SCHEDULER),
        vae=vae.eval(),
        text_encoder=Qwen2_5_VLForConditionalGeneration.from_pretrained(language),
        tokenizer=AutoTokenizer.from_pretrained(language),
        transformer=tiny_transformer(seed, **transformer),
    ).save_pretrained(folder)
    shutil.rmtree(language)
    if pipeline != "QwenImagePipeline":
        _name(folder, pipeline)
    return folder


def _name(folder: Path, pipeline: str) -> None:
    """The folder of an edit pipeline: its processor cannot be made without torchvision, so its files are written."""
    processor = folder / "processor"
    shutil.copytree(folder / "tokenizer", processor)
    (processor / "preprocessor_config.json").write_text('{"image_processor_type": "Qwen2VLImageProcessor"}')
    path = folder / "model_index.json"
    index = json.loads(path.read_text(encoding="utf-8"))
    index |= {"_class_name": pipeline, "processor": ["transformers", "Qwen2VLProcessor"]}
    path.write_text(json.dumps(index), encoding="utf-8")


#: of a LoRA's factors; where a layout writes one, the product is scaled by ALPHA / RANK
RANK, ALPHA = 3, 6.0


def factors(transformer: Any, seed: int = 7) -> dict[str, tuple[Any, Any]]:
    """(down, up) for each linear layer of the blocks."""
    import torch

    noise = torch.Generator().manual_seed(seed)
    layers = {
        name: layer.weight.shape
        for name, layer in transformer.named_modules()
        if isinstance(layer, torch.nn.Linear) and name.startswith("transformer_blocks")
    }
    return {
        name: (torch.randn(RANK, i, generator=noise) * 0.2, torch.randn(o, RANK, generator=noise) * 0.2)
        for name, (o, i) in layers.items()
    }


def lora_file(path: Path, transformer: Any, layout: str = "diffusers") -> Path:
    """A random LoRA for a tiny transformer, in one of LAYOUTS."""
    import torch
    from safetensors.torch import save_file

    spelling, down, up, alpha = LAYOUTS[layout]
    tensors: dict[str, Any] = {}
    for name, (first, second) in factors(transformer).items():
        tensors |= {spelling(name) + down: first.contiguous(), spelling(name) + up: second.contiguous()}
        if alpha:
            tensors[spelling(name) + ".alpha"] = torch.tensor(ALPHA)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    return path


#: layout of a LoRA's file -> how it writes a layer, then its factors, and whether it has an alpha
LAYOUTS: Mapping[str, tuple[Callable[[str], str], str, str, bool]] = {
    "diffusers": (lambda name: f"transformer.{name}", ".lora_A.weight", ".lora_B.weight", False),
    "diffusers, no prefix": (str, ".lora_A.weight", ".lora_B.weight", False),
    "peft": (lambda name: f"base_model.model.{name}", ".lora_A.default.weight", ".lora_B.default.weight", False),
    "Lightning": (str, ".lora_down.weight", ".lora_up.weight", True),
    "comfy": (lambda name: f"diffusion_model.{name}", ".lora_A.weight", ".lora_B.weight", False),
    "comfy, down and up": (lambda name: f"diffusion_model.{name}", ".lora_down.weight", ".lora_up.weight", True),
    "kohya": (
        lambda name: "lora_unet_" + name.replace(".", "_"),
        ".lora_down.weight",
        ".lora_up.weight",
        True,
    ),
    "lycoris": (lambda name: "lycoris_" + name.replace(".", "_"), ".lora_down.weight", ".lora_up.weight", True),
}
