"""The debug trail: what a task did with frames, step by step, as structured log records.

Each record has a category and facts; `extra` of the log record carries them for programs, and a log file that ends in
.jsonl holds them. What was expected and did not come about is a warning, in the log and in the task's timeline. Both
are kept without secrets.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import StrEnum
from typing import Any

from source.logs import redact, redact_values

log = logging.getLogger(__name__)

#: name of a warning in the timeline
WARNING = "warning"


class Category(StrEnum):
    """What a record is about."""

    #: frames of one file or array
    FRAME = "FRAME"
    #: a segment's plan
    SEGMENT = "SEGMENT"
    #: what the engine was asked for and gave
    WGP = "WGP"
    #: how a segment or clip joins its neighbour
    CHAIN = "CHAIN"
    #: the plan of a stitch
    STITCH = "STITCH"
    #: what makes the result wrong
    CRITICAL = "CRITICAL"
    #: the finished video against its plan
    STITCH_FINAL_ANALYSIS = "STITCH_FINAL_ANALYSIS"


class Trail:
    """The trail of one run. `remember(name, detail)` adds an entry to the task's timeline."""

    def __init__(self, remember: Callable[[str, str], None]) -> None:
        self._remember = remember

    def note(self, category: Category, what: str, **facts: Any) -> None:
        """A record at DEBUG."""
        _log(logging.DEBUG, category, what, redact_values(facts))

    def warn(self, category: Category, what: str, **facts: Any) -> None:
        """A record at WARNING, and an entry in the timeline."""
        facts = redact_values(facts)
        _log(logging.WARNING, category, what, facts)
        self._remember(WARNING, _text(category, what, facts))

    def frames(self, category: Category, what: str, *, expected: int, actual: int, **facts: Any) -> bool:
        """Hold a number of frames against what was planned; returns whether they are equal."""
        record = self.note if expected == actual else self.warn
        record(category, what, expected=expected, actual=actual, **facts)
        return expected == actual


def _log(level: int, category: Category, what: str, facts: dict[str, Any]) -> None:
    log.log(level, "%s", _text(category, what, facts), extra={"category": str(category), "facts": facts})


def _text(category: Category, what: str, facts: dict[str, Any]) -> str:
    listed = ", ".join(f"{name} {value}" for name, value in facts.items())
    return f"{category}: {redact(what)}" + (f" ({listed})" if listed else "")
