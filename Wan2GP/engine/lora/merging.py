"""LoRAs on the transformers of one run: merged into the weights while they count, and taken out exactly afterwards.

A merged weight is W = W0 + sum(multiplier * delta), computed in float32 from the kept original W0 and then rounded to
the weight's type. Nothing is ever subtracted again: a change of multipliers starts from W0, so a LoRA that is off
leaves W0 itself, bit for bit, and so does the end of the run. Merged LoRAs cost nothing per step.

A weight in 8 bits (`Wan2GP.weights.fp8`) stays as it is, for rounding would take most of a LoRA away again: the factors
of all LoRAs together stand beside it, and their small products are computed in each step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor, nn

from Wan2GP.engine.lora.deltas import Delta, LowRank
from Wan2GP.engine.lora.files import FIELD, LoraFile, Rename, read_lora
from Wan2GP.engine.lora.targets import Matched, match, no_match
from Wan2GP.engine.residency.standby import packed, settle
from Wan2GP.errors import EngineError, Unsupported
from Wan2GP.weights.fp8 import Fp8Linear

#: types of weights that a LoRA can be added to; quantised ones would lose it in rounding or hold no plain numbers
_MERGEABLE = (torch.float32, torch.bfloat16, torch.float16, torch.float64)

#: (position of the LoRA, its multiplier) of the LoRAs that are in a weight
_Recipe = tuple[tuple[int, float], ...]


class LoraSet:
    """The LoRAs of one run. Use it as a context manager, or call `remove` when the run has ended, however it ended.

    `transformers` are the models by name ("transformer", "transformer_2"), `files` the LoRA files, `schedules` the
    multiplier of each file at each step. `expert_of_step` says which transformer runs at each step: a LoRA is merged
    only into the one that does; without it, into all. `renamed` gives the tensors of a file the names of this model's
    layers, for models other than Wan. Reading and checking happen here, before any weight is touched.

    Raises InvalidInput or Unsupported, naming the file, for one that cannot be read, is for another model or model
    size, or whose weights cannot be applied to this model.
    """

    def __init__(
        self,
        transformers: Mapping[str, nn.Module],
        files: Sequence[Path],
        schedules: Sequence[tuple[float, ...]],
        *,
        expert_of_step: Sequence[str] | None = None,
        renamed: Rename | None = None,
    ) -> None:
        if len(files) != len(schedules) or len({len(schedule) for schedule in schedules}) > 1:
            raise EngineError(f"{len(files)} LoRAs with {len(schedules)} schedules, or schedules of several lengths")
        used = dict.fromkeys(transformers if expert_of_step is None else expert_of_step)
        self._schedules = tuple(schedules)
        self._expert_of_step = expert_of_step
        self._models = {name: _Merged(transformers[name]) for name in transformers if name in used}
        if files:
            for name in self._models:
                settle(transformers[name])
        #: what was applied and what was left out, one line per file and transformer
        self.notes = tuple(
            note for i, path in enumerate(files) for note in self._add(i, read_lora(Path(path), renamed))
        )

    def at_step(self, step: int) -> None:
        """Make the multipliers of a step effective on the transformer that runs at it. Cheap when nothing changed."""
        if not self._schedules:
            return
        if not 0 <= step < len(self._schedules[0]):
            raise EngineError(f"there are LoRA multipliers for {len(self._schedules[0])} steps, none for step {step}")
        multipliers = tuple(schedule[step] for schedule in self._schedules)
        running = self._models if self._expert_of_step is None else (self._expert_of_step[step],)
        for name in running:
            self._models[name].merge(multipliers)

    def remove(self) -> None:
        """Give every transformer its own weights back, bit for bit. May be called again, and LoRAs merged again."""
        for model in self._models.values():
            model.restore()

    def __enter__(self) -> LoraSet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def _add(self, position: int, file: LoraFile) -> Iterator[str]:
        matched = {name: model.add(position, file) for name, model in self._models.items()}
        if matched and not any(one.deltas for one in matched.values()):
            raise no_match(file, next(iter(self._models.values())).parameters)
        for name, one in matched.items():
            yield _note(file, name, one)


class _Merged:
    """One transformer, the deltas for its parameters, and the originals of those that were changed."""

    def __init__(self, module: nn.Module) -> None:
        self.parameters: Mapping[str, nn.Parameter] = dict(module.named_parameters())
        self._eight_bits = {
            f"{name}.weight": part for name, part in module.named_modules() if isinstance(part, Fp8Linear)
        }
        self._deltas: dict[str, list[tuple[int, Delta]]] = {}
        self._originals: dict[str, Tensor] = {}
        self._recipes: dict[str, _Recipe] = {}

    def add(self, position: int, file: LoraFile) -> Matched:
        """Take up what a file does to this transformer; nothing is merged yet."""
        matched = match(file, self.parameters)
        for name, deltas in matched.deltas.items():
            if name in self._eight_bits:
                _require_factors(deltas, name, file.name)
            else:
                _require_plain(self.parameters[name], name, file.name)
            self._deltas.setdefault(name, []).extend((position, delta) for delta in deltas)
        return matched

    @torch.no_grad()
    def merge(self, multipliers: Sequence[float]) -> None:
        """Bring every weight to these multipliers, one per LoRA. Weights that are there already are left alone."""
        recipes = {
            name: tuple((position, multipliers[position]) for position, _ in deltas if multipliers[position])
            for name, deltas in self._deltas.items()
        }
        changed = {name: recipe for name, recipe in recipes.items() if recipe != self._recipes.get(name, ())}
        self._keep([name for name in changed if name not in self._originals and name not in self._eight_bits])
        for name, recipe in changed.items():
            self._set(name, recipe, multipliers)

    @torch.no_grad()
    def restore(self) -> None:
        """Put back the original of every weight that was changed, and let the originals go."""
        for name, original in self._originals.items():
            self.parameters[name].copy_(original)
        for layer in self._eight_bits.values():
            layer.beside = None
        self._originals.clear()
        self._recipes.clear()

    def _keep(self, names: Sequence[str]) -> None:
        """Copies of weights in host memory; page-locked where they are on an accelerator, for a fast way back."""
        parameters = [self.parameters[name] for name in names]
        copies = packed(parameters, pin=any(each.is_cuda for each in parameters))
        for name, parameter, copy in zip(names, parameters, copies, strict=True):
            self._originals[name] = copy.copy_(parameter)

    def _set(self, name: str, recipe: _Recipe, multipliers: Sequence[float]) -> None:
        if name in self._eight_bits:
            self._stand_beside(name, multipliers)
            self._recipes[name] = recipe
            return
        parameter, original = self.parameters[name], self._originals[name]
        # an interrupted copy leaves neither the old recipe nor the new one
        self._recipes.pop(name, None)
        parameter.copy_(self._sum(name, original, multipliers, parameter.device) if recipe else original)
        self._recipes[name] = recipe

    def _sum(self, name: str, original: Tensor, multipliers: Sequence[float], device: torch.device) -> Tensor:
        base = original.to(device=device, dtype=torch.promote_types(original.dtype, torch.float32))
        total = base
        for position, delta in self._deltas[name]:
            if multipliers[position]:
                total = torch.add(total, delta.of(base), alpha=multipliers[position])
        return total

    def _stand_beside(self, name: str, multipliers: Sequence[float]) -> None:
        """The factors of all LoRAs of a layer that count, as one pair, their multipliers in the second."""
        counted = [(delta, multipliers[at]) for at, delta in self._deltas[name] if multipliers[at]]
        pairs = [(delta.down, delta.up, delta.scale * by) for delta, by in counted if isinstance(delta, LowRank)]
        layer = self._eight_bits[name]
        layer.beside = None
        if pairs:
            down = torch.cat([down.float().flatten(1) for down, _, _ in pairs])
            layer.put_beside(down, torch.cat([up.float().flatten(1) * by for _, up, by in pairs], dim=1))


def _require_plain(parameter: nn.Parameter, name: str, file: str) -> None:
    if type(parameter) is nn.Parameter and parameter.dtype in _MERGEABLE and not parameter.is_meta:
        return
    what = f"is quantised ({type(parameter).__name__}, {parameter.dtype}): use the model's 16-bit weights"
    if parameter.is_meta:
        what = "is not in memory: load the model without sequential offloading"
    raise Unsupported(f"{file}: it cannot be merged because the model's {name} {what}", field=FIELD)


def _require_factors(deltas: Sequence[Delta], name: str, file: str) -> None:
    other = next((delta for delta in deltas if not isinstance(delta, LowRank)), None)
    if other is not None:
        raise Unsupported(
            f"{file}: what it adds to {name} ({type(other).__name__}) is no product of two small matrices, and a model "
            "in fp8 takes no other LoRA; start the worker with --wgp-transformer-quantization bf16 for it",
            field=FIELD,
        )


def _note(file: LoraFile, transformer: str, matched: Matched) -> str:
    ranks = f", rank {'/'.join(map(str, matched.ranks))}" if matched.ranks else ""
    text = f"{file.name}: {len(matched.deltas)} weights of {transformer}{ranks}"
    if matched.skipped:
        text += f"; {len(matched.skipped)} layer(s) left out that do not fit this model ({matched.skipped[0]} …)"
    if file.text_encoder_weights:
        text += f"; {file.text_encoder_weights} text encoder weights left out"
    return text
