"""Whether the weights on disk are whole and fit their model, found out from headers and without a network's memory."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import diffusers

from Wan2GP.definitions import ModelDefinition
from Wan2GP.errors import ModelUnavailable
from Wan2GP.layout import Layout
from Wan2GP.weights.configs import transformer_config
from Wan2GP.weights.reader import stored_tensors
from Wan2GP.weights.transformers import check_fit
from Wan2GP.wheel_files import package, wheel_files

#: architectures whose transformers have layers that diffusers' class has no place for
_WITH_OWN_LAYERS = frozenset({"recam_1.3B"})
_SHA256 = re.compile(r"[0-9a-f]{64}")
_BLOCK_BYTES = 1 << 22


def check_weights(definition: ModelDefinition, places: Layout) -> Iterator[str]:
    """Check every part and yield a line about each. Raises ModelUnavailable at the first that is not sound."""
    whole = bool(definition.architecture.folder_files)
    for path in sorted(places.folder.rglob("*.safetensors")):
        if whole or path.parent not in (places.transformer, places.transformer_2):
            yield f"{path}: {len(stored_tensors(path))} tensors"
    if whole:
        # Names and shapes are compared when the model is loaded: its library knows which old names stand for which.
        yield from _hashes(places.folder)
        yield from _of_wheel(definition, places.folder)
        return
    experts = [(places.transformer, places.modules)]
    if places.transformer_2 is not None:
        experts.append((places.transformer_2, places.modules_2))
    for transformer, modules in experts:
        yield _transformer(definition, transformer, modules)
    yield from _hashes(places.folder)
    for weight in places.files:
        yield from _hashes(weight.path.parent, f"{weight.path.name}.metadata")


def _of_wheel(definition: ModelDefinition, folder: Path) -> Iterator[str]:
    for file in wheel_files(definition, folder.parent):
        if not file.is_there:
            raise ModelUnavailable(f"{file.path} is not the file of {package(definition)}; fetch it again")
        yield f"{file.path}: SHA-256 as published"


def _transformer(definition: ModelDefinition, transformer: Path, modules: tuple[Path, ...]) -> str:
    config = transformer_config(definition.architecture_name, [transformer, *modules])
    # What a module adds in layers of its own (a projector of sound) is the family's to fit; here it must be readable.
    merged = modules if definition.architecture.vace else ()
    for module in modules:
        stored_tensors(module)
    if definition.architecture_name in _WITH_OWN_LAYERS:
        return f"{transformer}: {len(stored_tensors(transformer))} tensors, to be fitted by the engine"
    count = check_fit([transformer, *merged], config=config, cls=getattr(diffusers, config["_class_name"]))
    laid_over = f" with {', '.join(module.name for module in merged)}" if merged else ""
    return f"{transformer}{laid_over}: all {count} tensors fit {config['_class_name']}"


def _hashes(root: Path, name: str = "*.metadata") -> Iterator[str]:
    """Compare files with the SHA-256 that the hub gave for them when they were fetched, where it did."""
    records = root / ".cache" / "huggingface" / "download"
    for record in sorted(records.rglob(name)):
        lines = record.read_text(encoding="utf-8").splitlines()
        file = root / record.relative_to(records).with_suffix("")
        if len(lines) < 2 or not _SHA256.fullmatch(lines[1]) or not file.is_file():
            continue
        if _sha256(file) != lines[1]:
            raise ModelUnavailable(
                f"{file} is not what the hub published (SHA-256 {lines[1]}); delete it and fetch again"
            )
        yield f"{file}: SHA-256 as published"


def _sha256(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            found.update(block)
    return found.hexdigest()
