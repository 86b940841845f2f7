"""One reader for the files that weights come in: safetensors, sharded or not, PyTorch's own, and GGUF.

What is stored is listed with names and shapes first and read one tensor at a time, so that a file can be checked
without reading it and converted without holding it twice. Names lose what files put before them and become diffusers'
names.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from Wan2GP.errors import ModelUnavailable
from Wan2GP.wan_keys import diffusers_name, is_original, without_prefix
from Wan2GP.weights import hunyuan_keys
from Wan2GP.weights.quantised import dequantised

_TORCH_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin")


@dataclass(frozen=True)
class Stored:
    """One tensor in a file: what is known of it without reading it, and how to read it."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    load: Callable[[], torch.Tensor]
    #: of a weight that is stored as float8_e4m3 with a scale: the two as they are (the scale: one number, or one a row)
    eight_bits: Callable[[], tuple[torch.Tensor, torch.Tensor]] | None = None


def read_state_dict(path: Path, dtype: torch.dtype | None = None) -> dict[str, torch.Tensor]:
    """Every tensor by its name in diffusers, scales applied, as `dtype` (None: as stored, float32 when quantised).

    `path` is a file, a folder of shards, or a shard index. Raises ModelUnavailable that names the file.
    """
    return {name: converted(each.load(), dtype) for name, each in stored_tensors(path).items()}


def converted(tensor: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    """The tensor in `dtype`, when it holds fractions and a dtype is given."""
    return tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor


def stored_tensors(path: Path) -> dict[str, Stored]:
    """What a file, a folder of shards or a shard index holds, by diffusers' names, quantisation undone on reading."""
    raw = _raw(path)
    plain = dequantised({_plain(name, raw): stored for name, stored in raw.items()}, path)
    if hunyuan_keys.is_original(plain):
        return hunyuan_keys.in_diffusers_layout(plain)
    if not is_original(plain):
        return plain
    return {diffusers_name(name): stored for name, stored in plain.items()}


def _plain(name: str, names: Mapping[str, Any]) -> str:
    stripped = without_prefix(name)
    wrapped = stripped.startswith("model.") and all(without_prefix(each).startswith("model.") for each in names)
    return without_prefix(stripped.removeprefix("model.")) if wrapped else stripped


def _raw(path: Path) -> dict[str, Stored]:
    if path.is_dir():
        return _folder(path)
    if path.name.endswith(".index.json"):
        return _shards(path)
    try:
        if path.suffix == ".safetensors":
            return _safetensors(path)
        if path.suffix == ".gguf":
            from Wan2GP.weights.gguf_files import gguf_tensors

            return gguf_tensors(path)
        if path.suffix in _TORCH_SUFFIXES:
            return _torch_file(path)
    except (OSError, SafetensorError, RuntimeError, ValueError, IndexError, KeyError, EOFError) as error:
        first_line = (str(error) or type(error).__name__).splitlines()[0]
        raise ModelUnavailable(f"{path} cannot be read ({first_line}); delete it and fetch again") from error
    raise ModelUnavailable(f"{path}: this version reads safetensors, GGUF and PyTorch files, not {path.suffix!r}")


def _folder(path: Path) -> dict[str, Stored]:
    indexes = sorted(path.glob("*.safetensors.index.json"))
    if indexes:
        return _shards(indexes[0])
    files = sorted(path.glob("*.safetensors")) or sorted(path.glob("*.bin"))
    if len(files) != 1:
        raise ModelUnavailable(f"{path}: expected one file of weights or a shard index, found {len(files)} files")
    return _raw(files[0])


def _shards(index: Path) -> dict[str, Stored]:
    try:
        weight_map: Mapping[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    except (OSError, ValueError, KeyError) as error:
        raise ModelUnavailable(f"{index} cannot be read ({error}); delete it and fetch again") from error
    found: dict[str, Stored] = {}
    for shard in sorted(set(weight_map.values())):
        found |= _raw(index.parent / shard)
    if lacking := sorted(set(weight_map) - set(found)):
        raise ModelUnavailable(f"{index}: its shards lack {_some(lacking)}; delete them and fetch again")
    return found


def _safetensors(path: Path) -> dict[str, Stored]:
    # The handle maps the file and lives as long as one of the loaders below.
    opened = safe_open(path, framework="pt")
    found = {}
    for name in opened.keys():  # noqa: SIM118 (not a mapping)
        described = opened.get_slice(name)
        found[name] = Stored(
            tuple(described.get_shape()), _DTYPES[described.get_dtype()], lambda name=name: opened.get_tensor(name)
        )
    return found


def _torch_file(path: Path) -> dict[str, Stored]:
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    for wrapper in ("state_dict", "model", "module"):
        if isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    return {
        name: Stored(tuple(value.shape), value.dtype, lambda value=value: value)
        for name, value in content.items()
        if isinstance(value, torch.Tensor)
    }


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
