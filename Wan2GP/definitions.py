"""Model definitions: rows of data in `defaults/*.json`, and what each architecture takes.

A file holds one `model` object and any setting defaults; its stem is the model's id. Folders given by the user are read
after the shipped one: the same stem overrides property by property, a new stem is a new model. No torch here.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from Wan2GP.errors import InvalidInput, UnknownModel, did_you_mean
from Wan2GP.parameters import PARAMETERS, PLUMBING

DEFAULTS_DIR = Path(__file__).parent / "defaults"

#: other names that users know models by
ALIASES: Mapping[str, str] = MappingProxyType({"i2v_14B": "i2v", "t2v_14B": "t2v", "z_image_img2img": "z_image"})

_MAX_REFERENCES = 10

#: fields of the `model` object, with the types they may have
_MODEL_FIELDS: Mapping[str, tuple[type, ...]] = {
    "name": (str,),
    "architecture": (str,),
    "description": (str,),
    "source": (str,),
    "devices": (list,),
    "visible": (bool,),
    "URLs": (list, str),
    "URLs2": (list, str),
    "modules": (list, str),
    "loras": (list, str),
    "loras_multipliers": (list, str),
    "preload_URLs": (list, str),
    "VAE_URLs": (list, str),
    "text_encoder_URLs": (list, str),
    "text_encoder_folder": (str,),
    "source2": (str,),
    "module_source": (str,),
    "finetune_source_model": (str,),
    "auto_quantize": (bool,),
    "attention": (dict,),
    "compile": (list, bool),
    "group": (str,),
    "image_outputs": (bool,),
    "profiles_dir": (list,),
    "settings_dir": (list,),
    "guidance_max_phases": (int,),
    "lock_guidance_phases": (bool,),
    "configs": (dict,),
    "teacache_coefficients": (list,),
    "magcache_ratios": (list,),
    "resolutions": (list,),
    "resolutions_categories": (list,),
    "frames_minimum": (int,),
    "frames_steps": (int,),
    "fps": (int,),
    "custom_settings": (list,),
    "infos": (str,),
}

#: fields of the `model` object that stand in for what its architecture declares
_DECLARED = {
    "fps": "fps",
    "frames_minimum": "min_frames",
    "frames_steps": "frame_step",
    "image_outputs": "image_output",
    "guidance_max_phases": "phases",
}

#: fields of the `model` object that change the weights in ways that this version cannot follow
_UNREADABLE = ("URLs", "URLs2", "modules", "VAE_URLs", "text_encoder_URLs", "text_encoder_folder", "source2")

_TEXT = frozenset({"text", "loras"})
_IMAGES = _TEXT | {"image_start", "image_end", "video_source"}
_VACE = _TEXT | {"image_start", "control_video", "mask", "references", "video_source"}


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What every model of one architecture takes and gives. Declared, never guessed from a name."""

    #: among text, image_start, image_end, control_video, mask, references, video_source, audio, loras
    inputs: frozenset[str]
    fps: int = 16
    #: a valid length is `frame_step * k + 1` and at least `min_frames`
    frame_step: int = 4
    min_frames: int = 5
    #: both sides are multiples of this
    pixel_block: int = 16
    image_output: bool = False
    #: most guidance phases
    phases: int = 3
    vace: bool = False
    i2v: bool = False
    #: display name of the family
    family: str = "Wan"
    needs_weights: bool = True
    #: the engine's implementation (a key of `engine.families.FAMILIES`); None: not in this version
    engine: str | None = None


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "draft": Architecture(
            inputs=frozenset({"image_start", "image_end", "control_video", "mask"}),
            phases=1,
            family="Draft",
            needs_weights=False,
            engine="draft",
        ),
        "t2v": Architecture(inputs=_TEXT, engine="wan_t2v"),
        "t2v_1.3B": Architecture(inputs=_TEXT, engine="wan_t2v"),
        "t2v_2_2": Architecture(inputs=_TEXT),
        "i2v": Architecture(inputs=_IMAGES, i2v=True),
        "i2v_2_2": Architecture(inputs=_IMAGES, i2v=True),
        "vace_1.3B": Architecture(inputs=_VACE, min_frames=17, vace=True),
        "vace_14B": Architecture(inputs=_VACE, min_frames=17, vace=True),
        "vace_14B_2_2": Architecture(inputs=_VACE, min_frames=17, vace=True),
        "hunyuan": Architecture(inputs=_TEXT, fps=24, phases=1, family="Hunyuan Video"),
        "ltxv_13B": Architecture(
            inputs=_TEXT | {"image_start", "image_end", "control_video", "mask"},
            fps=30,
            frame_step=8,
            min_frames=17,
            pixel_block=32,
            phases=1,
            family="LTX Video",
        ),
        "flux": Architecture(inputs=_TEXT, image_output=True, phases=1, family="Flux"),
    }
)


@dataclass(frozen=True, kw_only=True)
class ModelDefinition:
    """One row: a model and its setting defaults."""

    #: the file's stem: what callers write as `model_type`
    id: str
    name: str
    architecture_name: str
    architecture: Architecture
    description: str
    #: a diffusers repository on the Hugging Face hub, or a local folder in that format; None: not known
    source: str | None
    #: the model whose weights these are: itself, or the one that `URLs` refers to
    weights_of: str
    #: devices that can run it; empty: any
    devices: tuple[str, ...]
    #: parameter name -> default
    settings: Mapping[str, Any]
    #: the `model` object as written
    model: Mapping[str, Any]

    def folder(self, checkpoints: Path) -> Path | None:
        """Where the weights belong: the local source folder, or a folder of the model's id under `checkpoints`."""
        if self.source is None:
            return None
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
    return Definitions({name: _definition(name, documents, origins[name]) for name in documents})


def availability(definition: ModelDefinition, checkpoints: Path, device: str | None = None) -> str | None:
    """Why this model cannot run on this machine and what to do about it; None when it can."""
    if definition.architecture.engine is None:
        return (
            f"{definition.id}: this version of the engine has no implementation of the architecture "
            f"{definition.architecture_name!r} yet."
        )
    if unreadable := [name for name in _UNREADABLE if _names_files(definition.model.get(name))]:
        fields = ", ".join(f"model.{name}" for name in unreadable)
        return (
            f"{definition.id}: this version loads whole diffusers folders only and cannot use {fields}; "
            "leave that out and let model.source name a diffusers repository or folder."
        )
    reasons = (_missing_device(definition, device), _missing_weights(definition, checkpoints))
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
    folder = definition.folder(checkpoints)
    if folder is None:
        return f'{definition.id} has no "source" (a diffusers repository or folder) in its definition.'
    missing = _missing_part(folder)
    if missing is None:
        return None
    return f"{definition.id}: {missing} is missing or damaged. {how_to_fetch(definition, folder)}"


def how_to_fetch(definition: ModelDefinition, folder: Path) -> str:
    """A sentence that says how the weights come into `folder`."""
    if Path(str(definition.source)).expanduser().is_absolute():
        return f"The definition names the local folder {folder}; put a whole diffusers folder there."
    return f"Fetch the weights with: hf download {definition.source} --local-dir {shlex.quote(str(folder))}"


def _missing_part(folder: Path) -> Path | None:
    """The first file or folder that a diffusers folder lacks; None when it is whole."""
    index = folder / "model_index.json"
    parts = _json_object(index)
    if parts is None:
        return index
    for part, kind in parts.items():
        if part.startswith("_") or not isinstance(kind, list) or kind[0] is None:
            continue
        if not (folder / part).is_dir() or not any((folder / part).iterdir()):
            return folder / part
        if (folder / part / "config.json").is_file() and not _has_weights(folder / part):
            return folder / part / "*.safetensors"
        for shards in (folder / part).glob("*.safetensors.index.json"):
            listed = (_json_object(shards) or {}).get("weight_map")
            if not listed:
                return shards
            for file in sorted(set(listed.values())):
                if not (folder / part / file).is_file():
                    return folder / part / file
    return None


def _json_object(path: Path) -> dict[str, Any] | None:
    """What a file of the weights holds; None when it is missing or damaged, as after a broken download."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _has_weights(part: Path) -> bool:
    return any(path.suffix in (".safetensors", ".bin", ".pt") for path in part.iterdir())


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
        _check_field(path, key, value)
    for key, value in document.items():
        if key != "model":
            _check_setting(path, key, value)
    return document


def _check_field(path: Path, key: str, value: Any) -> None:
    if key not in _MODEL_FIELDS:
        raise InvalidInput(f"{path}: model.{key}: there is no such field.{did_you_mean(key, _MODEL_FIELDS)}")
    if not isinstance(value, _MODEL_FIELDS[key]):
        kinds = " or ".join(kind.__name__ for kind in _MODEL_FIELDS[key])
        raise InvalidInput(f"{path}: model.{key}: must be {kinds}, not {type(value).__name__}")
    if key in _DECLARED and key != "image_outputs" and (isinstance(value, bool) or value < 1):
        raise InvalidInput(f"{path}: model.{key}: must be a whole number from 1, not {value!r}")


def _check_setting(path: Path, key: str, value: Any) -> None:
    if key not in PARAMETERS or key in PLUMBING:
        known = set(PARAMETERS) - PLUMBING
        raise InvalidInput(f"{path}: {key}: there is no such setting.{did_you_mean(key, known)}")
    default = PARAMETERS[key].default
    number = isinstance(default, (int, float))
    if number and (isinstance(value, bool) or not isinstance(value, (int, float))):
        raise InvalidInput(f"{path}: {key}: must be a number, not {value!r}")
    if isinstance(default, str) and not isinstance(value, str):
        raise InvalidInput(f"{path}: {key}: must be text, not {value!r}")


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    return {**base, **changes, "model": {**base.get("model", {}), **changes.get("model", {})}}


def _definition(name: str, documents: Mapping[str, Mapping[str, Any]], path: Path) -> ModelDefinition:
    model = documents[name]["model"]
    for key in ("name", "architecture"):
        if key not in model:
            raise InvalidInput(f"{path}: model.{key}: is missing")
    architecture = model["architecture"]
    if architecture not in ARCHITECTURES:
        hint = did_you_mean(architecture, ARCHITECTURES) or f" There are: {', '.join(ARCHITECTURES)}."
        raise InvalidInput(f"{path}: model.architecture: there is no architecture {architecture!r}.{hint}")
    owner = _weights_owner(name, documents, path)
    settings = {key: value for key, value in documents[name].items() if key != "model"}
    return ModelDefinition(
        id=name,
        name=model["name"],
        architecture_name=architecture,
        architecture=replace(
            ARCHITECTURES[architecture], **{ours: model[key] for key, ours in _DECLARED.items() if key in model}
        ),
        description=model.get("description", ""),
        source=model.get("source") or documents[owner]["model"].get("source"),
        weights_of=name if "source" in model else owner,
        devices=tuple(model.get("devices", ())),
        settings=MappingProxyType(settings),
        model=MappingProxyType(dict(model)),
    )


def _weights_owner(name: str, documents: Mapping[str, Mapping[str, Any]], path: Path) -> str:
    """Follow `URLs: "<id>"` to the model that owns the weights."""
    owner = name
    for _ in range(_MAX_REFERENCES):
        reference = documents[owner]["model"].get("URLs")
        if not isinstance(reference, str):
            return owner
        if reference not in documents:
            hint = did_you_mean(reference, documents)
            raise InvalidInput(f"{path}: model.URLs: refers to {reference!r}, which is no model.{hint}")
        owner = reference
    raise InvalidInput(f"{path}: model.URLs: more than {_MAX_REFERENCES} references in a row; do they form a circle?")
