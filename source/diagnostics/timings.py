"""Where the time of a task went: queued, prepared, loading, generating, delivered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from source.diagnostics.views import View, seconds_between
from source.ledger import CLAIMED, ClaimLine
from source.reporting import GENERATING
from source.stages import seconds_of
from source.store.types import Event, Task

#: phases of a run, and what they are to somebody who waits for it
_WAITING = frozenset({"queued"})
_LOADING = frozenset({"loading"})
_DELIVERING = frozenset({"publishing", "uploading"})


def timing_view(task: Task, events: Sequence[Event], claims: Sequence[ClaimLine], now: str) -> View:
    """Seconds; None for what has not come about, or is not known.

    queued_s       from when it was added to its first claim
    lost_s         of claims that came to nothing, and the waits after them
    waited_s, loading_s, generating_s, preparing_s, delivering_s   of the latest claim: its turn at the GPU waited for,
                   the model loaded, encoding to saving, the task's own work, publishing
    children_s     a parent's wait for its children
    total_s        from when it was added to its end, or to now
    stages         the phases of the latest claim in their order, [{name, seconds}]
    steps, seconds_per_step   denoising steps that the latest claim made
    gpu_seconds    of a finished task, by activity (docs/operations.md)
    """
    end = task.generation_processed_at if task.terminal else now
    first = next((event.at for event in events if event.name == CLAIMED), None)
    latest = claims[-1].claimed_at if claims else None
    stages = _stages(task, latest, end)
    steps = (task.progress or {}).get("steps_made")
    denoising = stages.get("denoising")
    return {
        "queued_s": seconds_between(task.created_at, first or end),
        "lost_s": seconds_between(first, latest) if len(claims) > 1 else None,
        **_by_kind(stages),
        "children_s": _children_s(events, end),
        "total_s": seconds_between(task.created_at, end),
        "stages": [{"name": name, "seconds": round(seconds, 3)} for name, seconds in stages.items()],
        "steps": steps,
        "seconds_per_step": round(denoising / steps, 3) if steps and denoising else None,
        "gpu_seconds": (task.result_data or {}).get("gpu_seconds"),
    }


def _stages(task: Task, claimed_at: str | None, end: str | None) -> dict[str, float]:
    """The phases of the latest claim as its last report told them; what came after that belongs to the last phase."""
    progress: Mapping[str, Any] = task.progress or {}
    stages = seconds_of(progress)
    since_claim = None if task.waiting else seconds_between(claimed_at, end)
    phase = str(progress.get("phase") or "")
    if since_claim is not None and phase in stages:
        stages[phase] += max(since_claim - sum(stages.values()), 0.0)
    return stages


def _by_kind(stages: Mapping[str, float]) -> View:
    kinds = {"waited_s": _WAITING, "loading_s": _LOADING, "generating_s": GENERATING, "delivering_s": _DELIVERING}
    spent = {kind: [seconds for phase, seconds in stages.items() if phase in phases] for kind, phases in kinds.items()}
    others = [seconds for phase, seconds in stages.items() if not any(phase in each for each in kinds.values())]
    return {kind: round(sum(each), 3) if each else None for kind, each in (spent | {"preparing_s": others}).items()}


def _children_s(events: Sequence[Event], end: str | None) -> float | None:
    fanned_out = next((event.at for event in reversed(events) if event.name == "fanned_out"), None)
    return seconds_between(fanned_out, end)
