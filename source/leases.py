"""Two threads beside the worker's: one renews leases, one looks for changes that others made."""

from __future__ import annotations

import logging
import math
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Self

from headless.device_memory import device_memory
from source.errors import InvalidInput, StoreError, TaskNotFound
from source.running import Run
from source.settings import Settings
from source.store.base import TaskStore
from source.store.types import Status

log = logging.getLogger(__name__)

Runs = Callable[[], list[Run]]

#: what a worker's row says while it works
ACTIVE = "active"

#: the wait before a failed heartbeat is repeated, and the longest that it grows to while rows are held
RETRY_S, LONGEST_RETRY_S = 1.0, 5.0
#: how long one look for changes lasts, and so how long leaving takes at most. (What the store does meanwhile is its
#: own: a database file gives no sign of a change, so it is looked at; a project is asked now and then.)
LOOK_S = 0.5


class Watchful(ABC):
    """A daemon thread that does one thing again and again until it is left."""

    name: str

    def __init__(self) -> None:
        self._leaving = threading.Event()
        self._woken = threading.Event()
        self._thread = threading.Thread(target=self._main, name=self.name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._leaving.set()
        self.wake()
        self._thread.join()

    def wake(self) -> None:
        """End the pause that the thread makes."""
        self._woken.set()

    def _pause(self, timeout_s: float | None) -> None:
        """Until somebody wakes the thread, or it is left, or so long."""
        self._woken.wait(timeout_s)
        self._woken.clear()

    @abstractmethod
    def _main(self) -> None:
        """Runs until `_leaving` is set."""


def repeat_after_s(failures: int, heartbeat_s: float, *, holds: bool) -> float:
    """Seconds until a heartbeat that failed so often is repeated. Where each is a call that costs, a storm of them
    helps nobody; but who holds rows should be back soon after the database is, before others rescue them."""
    longest = min(LONGEST_RETRY_S, heartbeat_s) if holds else heartbeat_s
    return min(RETRY_S * 2.0 ** min(failures - 1, 16), longest)


class Leases(Watchful):
    """Renews the leases of the running tasks, and stops those that were lost or are to be cancelled.

    A database that is out of reach is asked again; the thread goes on.
    """

    name = "heartbeat"

    def __init__(
        self, store: TaskStore, worker_id: str, settings: Settings, runs: Runs, loaded_model: Callable[[], str | None],
        facts: Callable[[], Mapping[str, Any]] = dict, status: Callable[[], str] = lambda: ACTIVE,
        sample: Callable[[], Mapping[str, Any] | None] = lambda: None,
    ) -> None:  # fmt: skip
        """`facts` and `status`: what whoever looks at the worker is told beside its model; `sample`: how it is doing,
        which goes along as often as HEARTBEAT_S says."""
        super().__init__()
        self._store = store
        self._worker_id = worker_id
        self._settings = settings
        self._runs = runs
        self._loaded_model = loaded_model
        self._facts = facts
        self._status = status
        self._sample = sample
        self._sampled_at = -math.inf
        self._reached_at = time.monotonic()

    def _main(self) -> None:
        delay_s = 0.0
        failures = 0
        while not self._leaving.wait(delay_s):
            delay_s = self._settings.heartbeat_s
            try:
                self.beat()
                if failures:
                    log.info("heartbeats reach the database again")
                failures = 0
            except (StoreError, InvalidInput) as error:
                level = logging.DEBUG if failures else logging.WARNING
                log.log(level, "the heartbeat did not reach the database: %s", error)
                failures += 1
                delay_s = repeat_after_s(failures, delay_s, holds=bool(self._runs()))
        if not failures:
            self._say_goodbye()

    def catch_up(self) -> None:
        """Renew the leases now when that is overdue: this process stood still, or the database was out of reach. Else
        the worker's next claim could rescue, and burn an attempt of, rows that it runs itself. Raises StoreError."""
        if time.monotonic() - self._reached_at > self._settings.heartbeat_s:
            self.beat()

    def beat(self) -> None:
        """One heartbeat for all running tasks. Raises StoreError."""
        runs = {run.task.id: run for run in self._runs()}
        reply = self._store.heartbeat(
            self._worker_id,
            [run.claim for run in runs.values()],
            lease_s=self._settings.lease_s,
            current_model=self._loaded_model(),
            status=self._status(),
            metadata=_device_facts() | dict(self._facts()),
            sample=self._sample_when_due(),
        )
        self._reached_at = time.monotonic()
        for task_id in reply.lost:
            runs[task_id].lose()
        for task_id in reply.cancel_requested:
            runs[task_id].cancel()

    def _sample_when_due(self) -> Mapping[str, Any] | None:
        """Heartbeats come more often where others change the table."""
        now = time.monotonic()
        if now - self._sampled_at < 0.9 * self._settings.heartbeat_s:
            return None
        self._sampled_at = now
        return self._sample()

    def _say_goodbye(self) -> None:
        try:
            self._store.heartbeat(self._worker_id, [], lease_s=self._settings.lease_s, status="stopped")
        except StoreError as error:
            log.debug("the last heartbeat did not reach the database: %s", error)


def _device_facts() -> dict[str, Any]:
    memory = device_memory()
    return {} if memory is None else {"vram_total_mb": memory.total_mb, "vram_used_mb": memory.used_mb}


class Changes(Watchful):
    """Wakes the worker when others wrote to the table, and notices cancellations: within a second where that costs
    nothing, else with one heartbeat (`beat`) a change, and only while something runs (an idle worker's claims look
    for themselves, and cost no more): it is to be woken when something begins.

    Only a hint: without it, polling and heartbeats find out the same later.
    """

    name = "changes"

    def __init__(self, store: TaskStore, runs: Runs, wake: Callable[[], None], beat: Callable[[], None]) -> None:
        super().__init__()
        self._store = store
        self._runs = runs
        self._wake = wake
        self._look = self.look_at_claims if store.local else beat

    def _main(self) -> None:
        while not self._leaving.is_set():
            if not self._store.local and not self._runs():
                self._pause(None)
                continue
            try:
                if self._store.wait_for_change(LOOK_S):
                    self._wake()
                    if self._runs():
                        self._look()
            except (StoreError, InvalidInput) as error:
                log.debug("could not look for changes: %s", error)
                self._leaving.wait(RETRY_S)

    def look_at_claims(self) -> None:
        """Stop the runs whose row was taken away or whose cancellation was asked for. Raises StoreError."""
        for run in self._runs():
            try:
                row = self._store.get(run.task.id)
            except TaskNotFound:
                run.lose()
                continue
            if row.claim != run.claim or row.status is not Status.IN_PROGRESS:
                run.lose()
            elif row.cancel_requested:
                run.cancel()
