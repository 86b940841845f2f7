"""Which LoRA files a run uses, with what multipliers, and what settings they bring. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from Wan2GP.definitions import ModelDefinition
from Wan2GP.engine.lora.accelerators import recognised, settings_for
from Wan2GP.engine.lora.multipliers import split_tokens
from Wan2GP.errors import InvalidInput
from Wan2GP.layout import lora_file_name


@dataclass(frozen=True)
class LoraRequest:
    """The LoRAs of one run, the model's own first."""

    files: tuple[Path, ...] = ()
    #: one token a file
    multipliers: tuple[str, ...] = ()
    #: settings that a recognised acceleration LoRA was made for
    settings: Mapping[str, Any] = field(default_factory=dict)
    #: run the schedule of Wan's own code
    wan_schedule: bool = False
    notes: tuple[str, ...] = ()


def parse_loras(values: Mapping[str, Any], definition: ModelDefinition, root: Path) -> LoraRequest:
    """The model's own LoRAs (unless `skip_model_loras`) and the caller's, found under `root` or where their paths say.

    The model's own bring no settings: its definition holds those; nor does one made for another family. Raises
    InvalidInput that names a LoRA which is not there, or multipliers that do not fit.
    """
    given = _names(values.get("activated_loras"))
    tokens = _tokens(str(values.get("loras_multipliers") or ""), len(given), "loras_multipliers")
    settings, note = settings_for(given, " ".join(tokens))
    if settings.get("sample_solver", "") not in ("", *definition.architecture.solvers):
        # It was made for another family: that its layers fit none here will be said when it is applied.
        settings, note = {}, None
    found = recognised(given, " ".join(tokens)) if settings else None
    own = [] if int(values.get("skip_model_loras") or 0) else _names(definition.model.get("loras"))
    own_tokens = _tokens(_joined(definition.model.get("loras_multipliers")), len(own), "model.loras_multipliers")
    folder = root / definition.architecture.lora_folder
    return LoraRequest(
        files=tuple(_file(name, folder, definition) for name in (*own, *given)),
        multipliers=(*own_tokens, *tokens),
        settings=settings,
        wan_schedule=found is not None and found.sigmas == "wan" and "sample_solver" not in values,
        notes=(note,) if note else (),
    )


def _names(value: Any) -> list[str]:
    if value is None:
        return []
    items = value.split(",") if isinstance(value, str) else value
    return [str(item).strip() for item in items if str(item).strip()]


def _joined(value: Any) -> str:
    return " ".join(str(item) for item in value) if isinstance(value, (list, tuple)) else str(value or "")


def _tokens(text: str, count: int, where: str) -> tuple[str, ...]:
    tokens = split_tokens(text)
    if len(tokens) > count and count:
        raise InvalidInput(f"has {len(tokens)} multipliers for {count} LoRA(s): {text!r:.80}", field=where)
    return tuple([*tokens, *["1"] * (count - len(tokens))][:count])


def _file(name: str, folder: Path, definition: ModelDefinition) -> Path:
    """An absolute path as it is; else a name in the folder of LoRAs; an address means the file it was saved as."""
    local = lora_file_name(name) if "://" in name else name
    path = Path(local) if Path(local).is_absolute() else folder / local
    if not path.is_file():
        raise InvalidInput(
            f"there is no LoRA {path}; put it there, or give an address for the worker to fetch "
            f"({definition.id} looks in {folder})",
            field="activated_loras",
        )
    return path
