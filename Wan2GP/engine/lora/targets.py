"""Which weights of a transformer the layers of a LoRA file are for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from Wan2GP.engine.lora.deltas import Decomposed, Delta, LowRank, deltas_of
from Wan2GP.engine.lora.files import FIELD, LoraFile
from Wan2GP.errors import InvalidInput
from Wan2GP.wan_keys import diffusers_name, original_name

#: widths of the published Wan models
_SIZES: Mapping[int, str] = {1536: "1.3B", 3072: "5B", 5120: "14B"}
#: layers whose number of input channels differs between models that otherwise share their LoRAs (t2v 16, i2v 36)
_INPUT_LAYERS = ("patch_embedding", "vace_patch_embedding")


@dataclass(frozen=True)
class Matched:
    """What a file does to one transformer: parameter name -> deltas; and the layers that found no place."""

    deltas: Mapping[str, tuple[Delta, ...]]
    skipped: tuple[str, ...]

    @property
    def ranks(self) -> tuple[int, ...]:
        """The ranks of its low-rank products."""
        inner = (d.inner if isinstance(d, Decomposed) else d for deltas in self.deltas.values() for d in deltas)
        return tuple(sorted({d.down.shape[0] for d in inner if isinstance(d, LowRank)}))


def match(file: LoraFile, parameters: Mapping[str, nn.Parameter]) -> Matched:
    """Find the weights that a file is for. Layers that the model lacks are skipped and listed.

    Raises InvalidInput for a layer whose shape is another than the model's: the LoRA is for another model size.
    """
    names = _Names(parameters)
    deltas: dict[str, tuple[Delta, ...]] = {}
    skipped: list[str] = []
    for name, layer in file.layers.items():
        for kind, delta in deltas_of(layer, name, file.name):
            parameter = names.find(name, kind, file)
            if parameter is None or not _fits(delta, parameter, parameters[parameter], name, file.name):
                skipped.append(name)
            else:
                deltas[parameter] = (*deltas.get(parameter, ()), delta)
    return Matched(deltas, tuple(dict.fromkeys(skipped)))


def no_match(file: LoraFile, parameters: Iterable[str]) -> InvalidInput:
    """The error for a file of which no layer is in any transformer."""
    theirs, ours = (", ".join(list(dict.fromkeys(names))[:3]) for names in (file.layers, parameters))
    return InvalidInput(
        f"{file.name}: none of its layers are in this model, so it was made for another one. "
        f"The file has {theirs} …; the model has {ours} …",
        field=FIELD,
    )


class _Names:
    """The names of a transformer's parameters, in every spelling that files use."""

    def __init__(self, parameters: Iterable[str]) -> None:
        self._parameters = frozenset(parameters)
        stems = {name.removesuffix(".weight").removesuffix(".bias") for name in self._parameters}
        self._flat = {spelling(stem).replace(".", "_"): stem for spelling in (str, original_name) for stem in stems}

    def find(self, layer: str, kind: str, file: LoraFile) -> str | None:
        """The parameter of a layer's weight or bias; None when there is none."""
        stem = self._flat.get(layer, layer)
        if layer not in file.flat:
            stem = diffusers_name(layer) if file.original else layer
        if f"{stem}.{kind}" in self._parameters:
            return f"{stem}.{kind}"
        return stem if kind == "weight" and stem in self._parameters else None


def _fits(delta: Delta, parameter: str, weight: Tensor, layer: str, file: str) -> bool:
    """Whether a delta has the weight's shape; False where a difference is usual. Raises InvalidInput for any other."""
    theirs, ours = _squeezed(delta.shape), _squeezed(weight.shape)
    if theirs == ours:
        if isinstance(delta, Decomposed) and not delta.fits(weight):
            raise InvalidInput(
                f"{file}: {layer}: its DoRA magnitude {tuple(delta.magnitude.shape)} does not fit a weight of "
                f"shape {ours}",
                field=FIELD,
            )
        return True
    only_inputs = len(theirs) == len(ours) and theirs[0] == ours[0] and theirs[2:] == ours[2:]
    if parameter.split(".")[0] in _INPUT_LAYERS and only_inputs:
        return False
    raise InvalidInput(
        f"{file}: {layer}: the LoRA changes a weight of shape {theirs}, the model's {parameter} has {ours}. "
        f"It was made for another model size{_sizes(theirs, ours)}; choose the LoRA of this model",
        field=FIELD,
    )


def _squeezed(shape: Iterable[int]) -> tuple[int, ...]:
    """The shape without trailing ones: trainers store linear layers as 1x1 convolutions too."""
    sides = list(shape)
    while len(sides) > 1 and sides[-1] == 1:
        sides.pop()
    return tuple(sides)


def _sizes(theirs: Iterable[int], ours: Iterable[int]) -> str:
    made_for, model = (next((_SIZES[side] for side in shape if side in _SIZES), None) for shape in (theirs, ours))
    if made_for and model and made_for != model:
        return f" ({made_for}, this model is {model})"
    return " (for example 14B, not 1.3B)"
