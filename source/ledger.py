"""How each claim of a task ended, and why: read from its timeline.

The store's own entries say that a claim ended; a worker adds `ended` before a bad end, with the class of the error and
what the claim took of the GPU's time. That of a good one stands in result_data.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headless.accounting import in_words
from source.store.types import Event

#: the worker's entry before a bad end
ENDED = "ended"
#: the entry with which a claim begins
CLAIMED = "claimed"
#: entries of the store with which a claim ends -> how
_ENDS = {
    "complete": "complete",
    "failed": "failed",
    "cancelled": "cancelled",
    "retry": "retry",
    "released": "released",
    "requeued": "requeued",
    "rescued": "rescued (death)",
    "fanned_out": "fanned out",
}
_DEVICE_LOST = "device_lost"
#: the store's entry of a claim whose answer never reached its worker
_UNANSWERED = "unanswered"
_WORDS = re.compile(r"(?P<error_class>\w+)(?:, GPU (?P<seconds>[\d.]+) s)?[^;]*(?:; (?P<phases>.*))?")


def ended(error_class: str, gpu_seconds: Mapping[str, float], phases: str = "") -> str:
    """The detail of the entry ENDED: "engine, GPU 12.5 s: load 2.0, denoise 10.5; preparing 0.4, loading 2.0, …"."""
    spent = f", GPU {in_words(gpu_seconds)}" if gpu_seconds else ""
    return f"{error_class}{spent}{f'; {phases}' if phases else ''}"


def lost_device(event: Event) -> bool:
    """Whether an entry ENDED says that the GPU was lost at work on this claim."""
    error_class, seconds, _ = _read(event.detail)
    return error_class == _DEVICE_LOST and seconds is not None


@dataclass(frozen=True)
class ClaimLine:
    """One claim of a task."""

    number: int
    worker_id: str | None
    claimed_at: str | None
    #: None while it lasts, or where nobody recorded it
    ended_at: str | None
    #: complete, failed: CLASS, retry: CLASS, released, rescued (death), requeued, cancelled, fanned out; running while
    #: it lasts; stale where a later claim came and nobody recorded an end
    end: str
    gpu_seconds: float | None
    #: of one that ended badly: what its phases took, in words
    phases: str | None = None


def claim_lines(events: Sequence[Event], result_data: Mapping[str, Any] | None = None) -> list[ClaimLine]:
    """One line a claim, the first one first. `events`: the timeline of one task, oldest first. A row that ended before
    anybody claimed it has entries with number 0."""
    claims: dict[int, list[Event]] = {}
    for event in events:
        if event.claim_number:
            claims.setdefault(event.claim_number, []).append(event)
    made_by = _made_by(claims)
    made_in = _total((result_data or {}).get("gpu_seconds"))
    latest = max(claims, default=0)
    return [
        _line(number, own, number == latest, made_in if number == made_by else None)
        for number, own in sorted(claims.items())
    ]


def _line(number: int, events: Sequence[Event], latest: bool, made_in: float | None) -> ClaimLine:
    claimed = next((event for event in events if event.name == CLAIMED), None)
    last = next((event for event in reversed(events) if event.name in _ENDS), None)
    said = next((event for event in reversed(events) if event.name == ENDED), None)
    error_class, seconds, phases = _read(said.detail if said else None)
    return ClaimLine(
        number=number,
        worker_id=events[0].worker_id,
        claimed_at=claimed.at if claimed else None,
        ended_at=last.at if last else None,
        end=_end(last, error_class or _known_by({event.name for event in events}), latest),
        gpu_seconds=made_in if seconds is None else seconds,
        phases=phases,
    )


def _known_by(names: set[str]) -> str | None:
    """The class of an end that the store itself brought about."""
    if {"rescued", "failed"} <= names:
        return "poison"
    return _UNANSWERED if _UNANSWERED in names else None


def _end(last: Event | None, error_class: str | None, latest: bool) -> str:
    if last is None:
        return "running" if latest else "stale"
    how = _ENDS[last.name]
    if error_class is None or last.name in ("complete", "cancelled", "fanned_out"):
        return how
    return f"{how}: {error_class}"


def _made_by(claims: Mapping[int, Sequence[Event]]) -> int | None:
    """The claim that made the result: the completing one, or, where that only delivered it, the last that generated."""
    generated = [number for number, own in claims.items() if any(event.name == "started" for event in own)]
    completed = any(event.name == "complete" for own in claims.values() for event in own)
    return max(generated, default=None) if completed else None


def _read(detail: str | None) -> tuple[str | None, float | None, str | None]:
    """The class of the error, the seconds of the GPU, and the phases."""
    found = _WORDS.match(detail or "")
    if found is None:
        return None, None, None
    seconds = found["seconds"]
    return found["error_class"], None if seconds is None else float(seconds), found["phases"]


def _total(seconds: Any) -> float | None:
    return round(sum(seconds.values()), 3) if isinstance(seconds, Mapping) and seconds else None
