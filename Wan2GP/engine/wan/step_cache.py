"""The step cache: steps of a run that hold the velocity of the step before, and ask no transformer for another.

What is held is the guided velocity, one tensor of the latents' size, so a held step costs nothing, whatever the model
consists of: VACE's blocks, a second pass without the prompt and the passes of a third guidance are all left out. Which
steps hold is decided before the run, from how much the velocity is expected to change at each:

    tea   by the change of the transformer's own time embedding (Liu et al. 2024, "Timestep embedding tells: it's time
          to cache for video diffusion model", arXiv 2411.19108), through the polynomial that its definition has as
          `teacache_coefficients` (the highest power first, as its authors publish them), else as it is
    mag   by the ratio of the magnitudes of the blocks' residuals from step to step (Ma et al. 2025, "MagCache",
          arXiv 2506.09045), as its authors measured them for Wan 2.1

The expected changes since the last step that was predicted add up, and the least threshold for the sum is taken with
which the run is as fast as was asked.
"""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import accumulate, pairwise
from types import MappingProxyType

import numpy as np
import torch

from Wan2GP.engine.request import GenerationRequest
from Wan2GP.engine.sampling import LEAST_CACHED_STEPS
from Wan2GP.engine.wan.guidance import Guidance
from Wan2GP.engine.wan.parts import WanParts
from Wan2GP.engine.wan.steps import Step
from Wan2GP.errors import InvalidInput, Unsupported
from Wan2GP.weights.configs import CONFIGS_DIR

_FIELD = "skip_steps_cache_type"
#: steps in a row that hold the same velocity, at most
MOST_IN_A_ROW = 2
#: share of the steps, at the beginning, that never hold: they decide what is seen. That of mag is its authors'
ALWAYS_PREDICTED: Mapping[str, float] = MappingProxyType({"tea": 0.1, "mag": 0.2})

#: architecture -> the model whose magnitudes were measured that it is made from
_MAGNITUDES_OF: Mapping[str, str] = MappingProxyType(
    {
        "t2v": "t2v",
        "t2v_1.3B": "t2v_1.3B",
        "i2v": "i2v",
        "fun_inp": "i2v",
        "vace_14B": "t2v",
        "vace_1.3B": "t2v_1.3B",
        "phantom_14B": "t2v",
        "phantom_1.3B": "t2v_1.3B",
    }
)


def check_step_cache(request: GenerationRequest) -> None:
    """Raises Unsupported for a kind that is not there, or not for the model, InvalidInput for what its definition says
    of it."""
    wanted = request.sampling.step_cache
    if wanted is None:
        return
    if wanted.kind not in ALWAYS_PREDICTED:
        raise Unsupported(
            f"there is no step cache {wanted.kind!r} for {request.definition.id}; choose tea or mag, or leave it empty",
            field=_FIELD,
        )
    if wanted.kind == "tea":
        _numbers(request, "teacache_coefficients")
    if wanted.kind == "mag" and not _magnitudes(request):
        raise Unsupported(
            f"the magnitudes of {request.definition.id} were never measured; use tea, or give its definition "
            "magcache_ratios",
            field=_FIELD,
        )


def held_steps(
    parts: WanParts, request: GenerationRequest, steps: Sequence[Step], schedules: Sequence[Sequence[float]]
) -> frozenset[int]:
    """The steps of a window that hold the velocity of the one before; none without a step cache.

    `schedules`: each LoRA's multiplier at each step. A step of another expert, guidance or multiplier than the one
    before is always predicted, as are the first ones and the last one.
    """
    wanted = request.sampling.step_cache
    if wanted is None or len(steps) < LEAST_CACHED_STEPS:
        return frozenset()
    total = len(steps)
    guidance = Guidance(request.sampling)
    kinds = [
        (
            (step.expert, step.phase, step.guidance, guidance.waits(step), guidance.skips_layers(step)),
            [schedule[step.index] for schedule in schedules],
        )
        for step in steps
    ]
    first = max(math.ceil(wanted.start * total), math.ceil(ALWAYS_PREDICTED[wanted.kind] * total), 1)
    free = [number >= first and kinds[number] == kinds[number - 1] for number in range(total - 1)]
    changes = _ratios_at(_magnitudes(request), total) if wanted.kind == "mag" else _expected(request, parts, steps)
    return choose_held([*free, False], changes, wanted.kind, wanted.speed_up)


def choose_held(free: Sequence[bool], changes: Sequence[float], kind: str, speed_up: float) -> frozenset[int]:
    """Of the steps that are free to hold (never the first), those that do.

    The least threshold is taken with which 1 / `speed_up` of all steps, or fewer, are predicted; where there is none,
    as many hold as can.
    """
    most_predicted = math.floor(len(free) / speed_up)
    low, high = 0.0, _drift(kind, changes)
    for _ in range(40):
        middle = (low + high) / 2
        enough = len(free) - len(_held_below(middle, free, changes, kind)) <= most_predicted
        low, high = (low, middle) if enough else (middle, high)
    return _held_below(high, free, changes, kind)


def _held_below(threshold: float, free: Sequence[bool], changes: Sequence[float], kind: str) -> frozenset[int]:
    held, last = set(), 0
    for number, may_hold in enumerate(free):
        drift = _drift(kind, changes[last + 1 : number + 1])
        if may_hold and number - last <= MOST_IN_A_ROW and drift <= threshold:
            held.add(number)
        else:
            last = number
    return frozenset(held)


def _drift(kind: str, changes: Sequence[float]) -> float:
    """How far a held velocity is expected to be off. Changes are distances (tea) or ratios of magnitudes (mag)."""
    if kind == "tea":
        return sum(changes)
    return sum(abs(1 - ratio) for ratio in accumulate(changes, operator.mul))


def _expected(request: GenerationRequest, parts: WanParts, steps: Sequence[Step]) -> list[float]:
    """How much the velocity is expected to change at each step; 0 at the first."""
    changes, coefficients = time_changes(parts, steps), _numbers(request, "teacache_coefficients")
    if not coefficients:
        return changes
    return [0.0, *(abs(float(np.polyval(coefficients, change))) for change in changes[1:])]


@torch.inference_mode()
def time_changes(parts: WanParts, steps: Sequence[Step]) -> list[float]:
    """The relative change (L1) of the time embedding at each step from the one before; 0 at the first."""
    return list(_distances([_time_embedding(parts, step) for step in steps]))


def _distances(embeddings: Sequence[torch.Tensor]) -> Iterator[float]:
    yield 0.0
    for before, after in pairwise(embeddings):
        yield float((after - before).abs().mean() / before.abs().mean())


def _time_embedding(parts: WanParts, step: Step) -> torch.Tensor:
    """(1, D) float32 on the CPU, computed where the weights of the step's expert lie: nothing is moved for it."""
    embedder = parts.experts[step.expert].condition_embedder
    weight = next(embedder.time_embedder.parameters())
    moment = torch.tensor([step.timestep], device=weight.device)
    found: torch.Tensor = embedder.time_embedder(embedder.timesteps_proj(moment).to(weight.dtype))
    return found.float().cpu()


def _magnitudes(request: GenerationRequest) -> tuple[float, ...]:
    """The ratio at each step of a full schedule; the definition's own, else those measured; empty where none are."""
    own = _numbers(request, "magcache_ratios")
    return own or _measured_magnitudes().get(_MAGNITUDES_OF.get(request.definition.architecture_name, ""), ())


def _numbers(request: GenerationRequest, name: str) -> tuple[float, ...]:
    """What the definition has under that name; empty for nothing. Raises InvalidInput."""
    try:
        found = tuple(map(float, request.definition.model.get(name) or ()))
    except (TypeError, ValueError):
        found = (math.nan,)
    if not all(map(math.isfinite, found)):
        raise InvalidInput(f"{name} in the definition of {request.definition.id} must be numbers", field=_FIELD)
    return found


def _ratios_at(measured: Sequence[float], total: int) -> list[float]:
    """The measured ratios at `total` steps. The magnitude itself is what is read at other steps, so that a schedule of
    half as many has ratios of twice the distance."""
    magnitudes = np.log(np.cumprod(measured))
    at = np.linspace(0, len(measured) - 1, total)
    logs = np.interp(at, np.arange(len(measured)), magnitudes)
    return [1.0, *np.exp(np.diff(logs)).tolist()]


@cache
def _measured_magnitudes() -> dict[str, tuple[float, ...]]:
    """Of the passes with a prompt, as the authors publish them (github.com/Zehong-Ma/MagCache, Apache-2.0)."""
    document = json.loads((CONFIGS_DIR / "magnitudes" / "wan.json").read_text(encoding="utf-8"))
    return {name: tuple(ratios) for name, ratios in document.items()}
