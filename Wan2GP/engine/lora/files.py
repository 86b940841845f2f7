"""Reading LoRA files: every layout in use becomes one shape, layers with named parts.

    transformer.blocks.0.attn1.to_q.lora_A.weight          diffusers and PEFT, with or without prefix or adapter name
    diffusion_model.blocks.0.self_attn.q.lora_down.weight  ComfyUI; also lora_A, .alpha, .diff, .diff_b
    blocks.0.self_attn.q.lora_A.weight                     the same without prefix
    lora_unet_blocks_0_self_attn_q.lora_down.weight        musubi and kohya trainers
    (any of these).lokr_w1, .hada_w1_a, .dora_scale        LyCORIS and DoRA

What cannot be applied right is refused by name: tensor-train (Tucker) parts of LyCORIS, OFT, GLoRA and whatever else is
unknown, pickles, damaged files, and whole models that are no LoRA.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from Wan2GP.errors import InvalidInput, Unsupported
from Wan2GP.wan_keys import is_original, without_prefix

FIELD = "activated_loras"

#: tensors by the names in a file -> the same by the names of a model's layers; raises ValueError where it cannot
Rename = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]

#: what flattened names (dots written as underscores) begin with
_FLAT_PREFIXES = ("lora_unet__", "lora_unet_", "lora_transformer_", "lycoris_")
#: layers of text encoders: no engine here applies LoRAs to those
_TEXT_ENCODERS = ("lora_te", "text_encoder.", "text_encoders.", "text_encoder_2.")

_ADAPTER = r"(?:\.[\w-]+)?"
_PARTS: Mapping[str, str] = {
    "down": rf"lora_(?:A|down){_ADAPTER}\.weight|lora\.down\.weight",
    "up": rf"lora_(?:B|up){_ADAPTER}\.weight|lora\.up\.weight",
    "up_bias": rf"lora_B{_ADAPTER}\.bias",
    "alpha": r"alpha",
    "diff": r"diff|w_norm",
    "diff_b": r"diff_b|b_norm",
    "magnitude": rf"dora_scale|lora_magnitude_vector{_ADAPTER}(?:\.weight)?",
    **{name: name for name in ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")},
    **{name: name for name in ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b")},
}
_KEY = re.compile(rf"(?P<layer>.+?)\.(?:{'|'.join(f'(?P<{part}>{pattern})' for part, pattern in _PARTS.items())})")
_TUCKER = re.compile(r".*\.(hada_t[12]|lokr_t2|lora_mid\.weight)")

#: parts that make a file a LoRA; a file with none of them is something else
_LORA_PARTS = frozenset(_PARTS) - {"alpha"}


@dataclass(frozen=True)
class Layer:
    """What a file holds for one layer: tensors by part name, and the factor of their product (alpha over rank)."""

    parts: Mapping[str, Tensor]
    scale: float = 1.0


@dataclass(frozen=True)
class LoraFile:
    """One file, read. `layers` by their names in the file without prefix; `flat` names have underscores for dots."""

    name: str
    layers: Mapping[str, Layer]
    #: the layers are named as in the authors' releases, not as in diffusers
    original: bool
    flat: frozenset[str]
    #: how many weights belong to text encoders and were left out
    text_encoder_weights: int = 0


def read_lora(path: Path, rename: Rename | None = None) -> LoraFile:
    """Read and check a LoRA file; its tensors stay on the CPU, in the file's type.

    `rename` is for models that are not of the Wan family, whose names are known here.

    Raises InvalidInput (missing, damaged, not safetensors, not finite, not a LoRA) or Unsupported (a kind of weight
    that cannot be applied), naming the file and the weight.
    """
    tensors, config = _tensors(path)
    wanted = {key: value for key, value in tensors.items() if not key.startswith(_TEXT_ENCODERS)}
    left_out = len(tensors) - len(wanted)
    if rename is not None:
        wanted = _renamed(wanted, rename, path.name)
    prefixed = rename is None and any(key.startswith("diffusion_model.") for key in wanted)
    parts: dict[str, dict[str, Tensor]] = {}
    flat: set[str] = set()
    for key, value in wanted.items():
        layer, part = _split(key, path.name)
        name, is_flat = _bare(layer)
        if is_flat:
            flat.add(name)
        held = parts.setdefault(name, {})
        if part in held:
            raise Unsupported(f"{path.name}: {key}: the file holds this weight twice (two adapters?)", field=FIELD)
        held[part] = _checked(value, key, path.name)
    if not any(_LORA_PARTS & held.keys() for held in parts.values()):
        raise InvalidInput(f"{path.name} holds no LoRA weights", field=FIELD)
    return LoraFile(
        name=path.name,
        layers={name: Layer(held, _scale(name, held, config, path.name)) for name, held in parts.items()},
        original=prefixed or (rename is None and is_original(parts)),
        flat=frozenset(flat),
        text_encoder_weights=left_out,
    )


def _renamed(tensors: dict[str, Tensor], rename: Rename, file: str) -> dict[str, Tensor]:
    try:
        return dict(rename(tensors))
    except (ValueError, KeyError, NotImplementedError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Unsupported(
            f"{file}: its layers cannot be told ({reason}); use the LoRA's file in diffusers' format", field=FIELD
        ) from error


def _tensors(path: Path) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """Every tensor of the file, and PEFT's configuration of the adapter where the file or its folder holds one."""
    if not path.is_file():
        raise InvalidInput(f"{path}: there is no such LoRA file", field=FIELD)
    if path.suffix.lower() != ".safetensors":
        raise InvalidInput(
            f"{path.name} is not a .safetensors file; pickled formats (.pt, .ckpt, .bin) can run code and are not read",
            field=FIELD,
        )
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
            return tensors, _adapter_config(path, file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise InvalidInput(
            f"{path.name} is damaged or not a safetensors file ({error}); download it again", field=FIELD
        ) from error


def _adapter_config(path: Path, metadata: Mapping[str, str]) -> Mapping[str, Any]:
    beside = path.with_name("adapter_config.json")
    if text := metadata.get("lora_adapter_metadata"):
        config = json.loads(text)
    elif path.name == "adapter_model.safetensors" and beside.is_file():
        config = json.loads(beside.read_text(encoding="utf-8"))
    else:
        return {}
    if not isinstance(config, dict):
        raise ValueError("the adapter's configuration is not a JSON object")
    return {key.removeprefix("transformer."): value for key, value in config.items()}


def _split(key: str, file: str) -> tuple[str, str]:
    if match := _KEY.fullmatch(key):
        return match["layer"], next(part for part in _PARTS if match[part] is not None)
    if _TUCKER.fullmatch(key):
        raise Unsupported(f"{file}: {key}: Tucker-decomposed LoRA weights cannot be applied", field=FIELD)
    if key.endswith((".weight", ".bias")) and "lora" not in key:
        raise InvalidInput(
            f"{file}: {key} is a plain weight: this is a model or a part of one, not a LoRA", field=FIELD
        )
    raise Unsupported(f"{file}: {key}: LoRA weights of this kind cannot be applied", field=FIELD)


def _bare(layer: str) -> tuple[str, bool]:
    """The layer's name without prefix, and whether its dots are written as underscores."""
    for prefix in _FLAT_PREFIXES:
        if layer.startswith(prefix):
            return layer.removeprefix(prefix), True
    return without_prefix(layer), False


def _checked(value: Tensor, key: str, file: str) -> Tensor:
    if not value.is_floating_point() and not key.endswith(".alpha"):
        raise Unsupported(f"{file}: {key} is of type {value.dtype}; quantised LoRAs cannot be applied", field=FIELD)
    if value.numel() == 0:
        raise InvalidInput(f"{file}: {key} is empty; download the file again", field=FIELD)
    readable = value.float() if value.element_size() == 1 else value
    if not bool(torch.isfinite(readable).all()):
        raise InvalidInput(f"{file}: {key} holds values that are not finite; download the file again", field=FIELD)
    return value


def _scale(name: str, parts: Mapping[str, Tensor], config: Mapping[str, Any], file: str) -> float:
    """alpha / rank (Hu et al. 2021, section 4.1), or alpha / sqrt(rank) (Kalajdzievski 2023) where PEFT's
    configuration says so. Without an alpha: 1."""
    rank = _rank(parts)
    if rank is None:
        return 1.0
    if "alpha" in parts:
        return float(parts["alpha"].float().reshape(-1)[0]) / rank
    if "lora_alpha" not in config:
        return 1.0
    try:
        return _configured_alpha(name, config) / (math.sqrt(rank) if config.get("use_rslora") else rank)
    except (AttributeError, TypeError, ValueError, re.error) as error:
        raise InvalidInput(f"{file}: the adapter's configuration has no usable alpha ({error})", field=FIELD) from error


def _configured_alpha(name: str, config: Mapping[str, Any]) -> float:
    """The alpha of the first pattern that ends the layer's name, as PEFT matches them; else the one for all layers."""
    patterns = (config.get("alpha_pattern") or {}).items()
    special = (value for pattern, value in patterns if re.match(rf"(.*\.)?({pattern})$", name))
    return float(next(special, config["lora_alpha"]))


def _rank(parts: Mapping[str, Tensor]) -> int | None:
    for part in ("down", "hada_w1_b", "lokr_w2_b", "lokr_w1_b"):
        if part in parts and parts[part].ndim:
            return parts[part].shape[0]
    return None
