"""What a queue remembers of its runs: how many ended how, and where the seconds went."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import replace

from headless.accounting import Account
from headless.generation import QueueStatistics
from Wan2GP.errors import GenerationCancelled

#: hand-off gaps that are remembered
MAX_GAPS = 1000


class Books:
    """Totals of one queue, and how its latest `history` runs ended. Any thread may call any method."""

    def __init__(self, clock: Callable[[], float], history: int) -> None:
        self.account = Account(clock)
        self._lock = threading.Lock()
        self._totals = QueueStatistics()
        self._gaps: deque[float] = deque(maxlen=MAX_GAPS)
        self._outcomes: OrderedDict[str, str] = OrderedDict()
        self._history = history

    def submitted(self) -> None:
        """A run came in."""
        with self._lock:
            self._totals.submitted += 1

    def loaded(self, model: str, seconds: float) -> None:
        """A model took another's place."""
        with self._lock:
            self._totals.model_loads += 1
            self._totals.load_seconds_by_model[model] = seconds

    def handed_off(self, gap_s: float) -> None:
        """The accelerator's thread came to a waiting run so long after the one before."""
        with self._lock:
            self._gaps.append(gap_s)

    def ended(self, task_id: str, outcome: object) -> None:
        """A run ended with an exception, or well."""
        with self._lock:
            if not isinstance(outcome, Exception):
                self._totals.completed += 1
                text = "completed"
            elif isinstance(outcome, GenerationCancelled):
                self._totals.cancelled += 1
                text = "cancelled"
            else:
                self._totals.failed += 1
                text = f"failed: {outcome}"
            self._outcomes[task_id] = text
            self._outcomes.move_to_end(task_id)
            while len(self._outcomes) > self._history:
                self._outcomes.popitem(last=False)

    def outcome(self, task_id: str) -> str | None:
        """How a recent run ended: "completed", "cancelled" or "failed: why"."""
        with self._lock:
            return self._outcomes.get(task_id)

    def statistics(self) -> QueueStatistics:
        """A copy of the totals, up to now."""
        seconds, uptime_s = self.account.seconds()
        with self._lock:
            return replace(
                self._totals, seconds=seconds, uptime_s=uptime_s, hand_off_seconds=list(self._gaps),
                load_seconds_by_model=dict(self._totals.load_seconds_by_model),
            )  # fmt: skip
