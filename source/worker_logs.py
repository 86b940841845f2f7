"""Log lines on their way to the database: kept in memory until a heartbeat takes them along."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from source.abbreviation import ShortValues
from source.logs import TaskIdFilter, redact

Entry = dict[str, Any]

#: lines kept while none can be sent; the oldest go first
CAPACITY = 1000
#: lines that one heartbeat takes along, so that it stays small
BATCH = 100
LONGEST = 4000

_LEVELS = (
    (logging.CRITICAL, "CRITICAL"), (logging.ERROR, "ERROR"), (logging.WARNING, "WARNING"), (logging.INFO, "INFO"),
)  # fmt: skip


class WorkerLogs(logging.Handler):
    """Add it to the root logger. What sends the lines must say nothing about that at INFO or above, line by line."""

    def __init__(self, secrets: Iterable[str] = (), *, capacity: int = CAPACITY) -> None:
        super().__init__(logging.INFO)
        self._secrets = tuple(secret for secret in secrets if secret)
        self._waiting: deque[Entry] = deque()
        self._capacity = capacity
        self._dropped = 0
        #: lines that nobody got, since the start
        self.dropped = 0
        self._plain = logging.Formatter()
        self.addFilter(TaskIdFilter())
        self.addFilter(ShortValues(self._secrets))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._keep([self._entry(record)])
        except Exception:  # noqa: BLE001 - as every handler of the standard library: a line must not end its task
            self.handleError(record)

    @property
    def waiting(self) -> int:
        """Lines that no heartbeat has taken yet."""
        return len(self._waiting)

    def take(self, limit: int = BATCH) -> list[Entry]:
        """The oldest lines, which are the caller's from now on; first of all how many had to be dropped."""
        with self._locked():
            taken = [self._waiting.popleft() for _ in range(min(limit, len(self._waiting)))]
            if self._dropped:
                text = f"{self._dropped} older log lines were dropped: they could not be sent in time"
                taken.insert(0, {"timestamp": _iso(datetime.now(UTC)), "level": "WARNING", "message": text})
                self._dropped = 0
        return taken

    def put_back(self, entries: Sequence[Entry]) -> None:
        """They were not sent."""
        with self._locked():
            self._waiting.extendleft(reversed(entries))
            self._drop_oldest()

    def _keep(self, entries: Sequence[Entry]) -> None:
        with self._locked():
            self._waiting.extend(entries)
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        while len(self._waiting) > self._capacity:
            self._waiting.popleft()
            self._dropped += 1
            self.dropped += 1

    def _locked(self) -> Any:
        assert self.lock is not None
        return self.lock

    def _entry(self, record: logging.LogRecord) -> Entry:
        entry = {
            "timestamp": _iso(datetime.fromtimestamp(record.created, UTC)),
            "level": next((name for level, name in _LEVELS if record.levelno >= level), "DEBUG"),
            "message": redact(self._plain.format(record), self._secrets)[:LONGEST],
            "metadata": {"logger": record.name, "thread": record.threadName},
        }
        task_id = getattr(record, "task", "-")
        return entry if task_id == "-" else entry | {"task_id": task_id}


def _iso(moment: datetime) -> str:
    """As the databases write times."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
