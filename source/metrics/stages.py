"""What the phases of a run's progress are called in metrics, where they are few and fixed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from source.stages import seconds_of

OTHER = "other"
STAGES = ("prepare", "queue", "load", "encode", "denoise", "decode", "save", "upload", OTHER)

_STAGE_OF = {
    "preparing": "prepare", "downloading": "prepare", "starting": "prepare", "queued": "queue", "loading": "load",
    "encoding": "encode", "denoising": "denoise", "generating": "denoise", "decoding": "decode", "saving": "save",
    "finishing": "save", "publishing": "upload", "uploading": "upload",
}  # fmt: skip


class Spent:
    """What one claim has spent in each stage, by its latest progress (`source.stages`)."""

    def __init__(self, now: float) -> None:
        self._heard_at = now
        self._phase = "preparing"
        self._seconds: dict[str, float] = {}

    def hear(self, progress: Mapping[str, Any], now: float) -> None:
        """The progress that was stored: its phase, and what those before it took."""
        self._heard_at = now
        self._phase = str(progress.get("phase", self._phase))
        self._seconds = seconds_of(progress)

    def seconds(self, now: float) -> dict[str, float]:
        """By stage, up to now."""
        phases = dict(self._seconds)
        phases[self._phase] = phases.get(self._phase, 0.0) + max(now - self._heard_at, 0.0)
        spent: dict[str, float] = {}
        for phase, each in phases.items():
            stage = _STAGE_OF.get(phase, OTHER)
            spent[stage] = spent.get(stage, 0.0) + each
        return spent
