"""The models of a checkout: rows of its `defaults/` and `finetunes/`, read as text.

What a model takes is declared by its architecture, in our own table (`Wan2GP/architectures.py`) where it is there. Of
any other one nothing is known here: it takes every kind of input, and the checkout judges.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from headless.checkout import WanCheckout
from headless.generation import ModelInfo
from Wan2GP.architecture import Architecture
from Wan2GP.architectures import ARCHITECTURES
from Wan2GP.errors import InvalidInput, UnknownModel, did_you_mean

FOLDERS = ("defaults", "finetunes")
#: fields of `model` that name weights
_WEIGHTS = ("URLs", "URLs2", "modules", "loras", "preload_URLs", "VAE_URLs", "text_encoder_URLs")
_MAX_REFERENCES = 10

_UNKNOWN = Architecture(
    inputs=frozenset({
        "text", "image_start", "image_end", "control_video", "mask", "references", "video_source", "audio", "loras",
    }),
    image_too=True,
)  # fmt: skip


@dataclass(frozen=True)
class CheckoutModel:
    """One row: the `model` object, and the files that it was read from."""

    name: str
    model: Mapping[str, Any]
    files: tuple[Path, ...] = field(default=())

    @property
    def architecture(self) -> Architecture:
        """Ours of that name, with what the row says of itself."""
        known = ARCHITECTURES.get(str(self.model.get("architecture")), _UNKNOWN)
        said = {"fps": "fps", "frames_steps": "frame_step", "frames_minimum": "min_frames"}
        numbers = {ours: self.model[theirs] for theirs, ours in said.items() if isinstance(self.model.get(theirs), int)}
        return replace(known, **numbers, image_output=bool(self.model.get("image_outputs", known.image_output)))

    @property
    def info(self) -> ModelInfo:
        """What callers may plan with. SVI 2 Pro and answers in text are not among a checkout's parameters."""
        info = ModelInfo.of(self.name, str(self.model.get("architecture")), self.architecture)
        return replace(info, svi=False, text_output=False)


class CheckoutModels:
    """Every model of a checkout by its id: the stem of its file. Raises InvalidInput for a file that is no row."""

    def __init__(self, checkout: WanCheckout) -> None:
        self._checkout = checkout
        rows: dict[str, CheckoutModel] = {}
        for folder in FOLDERS:
            for path in sorted((checkout.path / folder).glob("*.json")):
                before = rows.get(path.stem)
                model = _read(path)
                if before is not None:  # the same name overrides property by property
                    model = {**before.model, **model}
                if "architecture" in model:
                    rows[path.stem] = CheckoutModel(path.stem, model, (*(before.files if before else ()), path))
        if not rows:
            raise InvalidInput(f"no file in {checkout.path}/defaults describes a model", field="wan_dir")
        self._rows = rows

    def __getitem__(self, name: str) -> CheckoutModel:
        """Raises UnknownModel, naming the nearest."""
        if name not in self._rows:
            hint = did_you_mean(name, self._rows) or f" It has {len(self._rows)}, from its defaults and finetunes."
            raise UnknownModel(f"the checkout {self._checkout.path} has no model {name!r}.{hint}", field="model")
        return self._rows[name]

    def infos(self) -> list[ModelInfo]:
        return [row.info for row in self._rows.values()]

    def weight_files(self, name: str) -> tuple[Path, ...]:
        """The row's own file when it is the user's, and each file there that it may be loaded from."""
        row = self[name]
        own = [path for path in row.files if path.parent.name == "finetunes"]
        named = {str(url).partition("|")[0].rsplit("/", 1)[-1] for url in self._urls(name, _MAX_REFERENCES)}
        found = (folder / file for folder in self._checkpoints() for file in sorted(named))
        return (*own, *(path for path in found if path.is_file()))

    def _urls(self, name: str, depth: int) -> Iterator[str]:
        row = self._rows.get(name)
        for key in _WEIGHTS if row is not None and depth else ():
            yield from self._named(row.model.get(key), depth - 1) if row is not None else ()

    def _named(self, value: Any, depth: int) -> Iterator[str]:
        """File names and URLs; a text that is the id of a model stands for that model's."""
        if isinstance(value, str):
            yield from self._urls(value, depth) if value in self._rows else (value,)
        elif isinstance(value, (list, tuple)):
            for each in value:
                yield from self._named(each, depth)
        elif isinstance(value, Mapping):
            yield from self._named(list(value.values()), depth)

    def _checkpoints(self) -> list[Path]:
        listed = self._checkout.config.get("checkpoints_paths")
        names = listed if isinstance(listed, list) and listed else ["ckpts"]
        return [self._checkout.path / str(name) for name in names]


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{path}: not valid JSON: {error}", field="wan_dir") from None
    model = document.get("model", {}) if isinstance(document, dict) else None
    if not isinstance(model, dict):
        raise InvalidInput(f"{path}: must hold an object with an object `model`", field="wan_dir")
    return model
