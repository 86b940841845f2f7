"""What a running task tells the database: its progress, throttled, and its end, repeated until it is acknowledged."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, sleep_using_event, wait_exponential_jitter
from tenacity.stop import stop_when_event_set

from headless.generation import CancelToken, Progress
from source.errors import (
    NO_ROOM,
    GenerationCancelled,
    RefusedWrite,
    StaleClaim,
    StorageUnavailable,
    StoreError,
    TaskNotFound,
)
from source.settings import Settings
from source.stages import StageTimes
from source.store.base import TaskStore
from source.store.types import Claim
from Wan2GP.previews import Preview, Watcher

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

#: phases in which the engine, or another program for it ("generating"), makes something: what is billed
GENERATING = frozenset({"encoding", "denoising", "decoding", "saving", "generating"})
#: phases that leave no entry in the timeline
UNRECORDED = GENERATING | {"queued"}


class LostClaim(StaleClaim, GenerationCancelled):
    """Another worker has this task by now, or it was ended from outside; this run stops and writes nothing."""


def cancelled_on_request() -> GenerationCancelled:
    return GenerationCancelled("the task was cancelled on request")


def persist(ask: Callable[[], Answer], closing: threading.Event) -> Answer:
    """Ask the database, the storage or the disk, again and again while one is out of reach or the last is full, until
    `closing` is set: what was generated is not thrown away for that.

    Raises what a healthy database raises, StaleClaim among it, and StoreError or OSError when it was closing time.
    """
    return Retrying(
        retry=retry_if_exception(_passes),
        wait=wait_exponential_jitter(multiplier=0.1, max=10, jitter=0.1),
        stop=stop_when_event_set(closing),
        sleep=sleep_using_event(closing),
        before_sleep=_say_so,
        reraise=True,
    )(ask)


def _passes(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno in NO_ROOM
    return isinstance(error, StoreError) and not isinstance(error, StaleClaim | TaskNotFound | RefusedWrite)


def _say_so(state: RetryCallState) -> None:
    failure = state.outcome.exception() if state.outcome else None
    place = "storage" if isinstance(failure, StorageUnavailable) else "database"
    what = "the disk is full" if isinstance(failure, OSError) else f"the {place} is out of reach"
    log.warning("%s, trying again (%d): %s", what, state.attempt_number, failure)


class ProgressReport:
    """Stores the progress of one run, at most every `interval_s` seconds, and learns of a cancel on the way.

    The first report of each phase is always stored and makes an entry in the timeline; generating makes one entry,
    "started", of the store's own. A database that is out of reach is no reason to stop: that report is left out.
    Each carries what the phases before it took (`stages`), and the last one stays in the row.
    """

    def __init__(self, store: TaskStore, claim: Claim, token: CancelToken, *, interval_s: float) -> None:
        self._store = store
        self._claim = claim
        self._token = token
        self._interval_s = interval_s
        self._next_at = 0.0
        self._phases: set[str] = set()
        self._started = False
        self._stages = StageTimes()

    def __call__(self, progress: Progress) -> None:
        self._stages.hear(progress)
        new = progress.phase not in self._phases
        if not new and time.monotonic() < self._next_at:
            return
        self._phases.add(progress.phase)
        self._next_at = time.monotonic() + self._interval_s
        try:
            self._store_it(progress, progress.phase if new and progress.phase not in UNRECORDED else None)
        except StaleClaim:
            self._token.cancel(LostClaim())
        except StoreError as error:
            log.debug("progress was not stored: %s", error)

    def enter(self, phase: str) -> None:
        """The time from now on, until a report says more, is that of `phase`; nothing is stored for it."""
        self._stages.enter(phase)

    def phases(self) -> str:
        """What the phases took until now: "preparing 0.5, loading 2.1, denoising 10.5, 7 steps"."""
        return self._stages.in_words()

    def _store_it(self, progress: Progress, event: str | None) -> None:
        if progress.phase in GENERATING and not self._started:
            self._store.generation_started(self._claim)
            self._started = True
        if self._store.progress(self._claim, as_json(progress) | self._stages.as_json(), event=event):
            self._token.cancel(cancelled_on_request())


def watcher_of(store: TaskStore, claim: Claim, settings: Settings) -> Watcher | None:
    """Who keeps what a run looks like with its row; None where the settings want none. It does so on a thread of its
    own: a slow database delays nothing but the next picture, and one that is out of reach has none."""

    def show(preview: Preview) -> None:
        try:
            store.show(claim, preview.image, media_type=preview.media_type, step=preview.step)
        except StoreError as error:
            log.debug("a preview was not stored: %s", error)

    return Watcher(show, interval_s=settings.show_interval_s) if settings.previews else None


def as_json(progress: Progress) -> dict[str, str | int | float]:
    """What the `progress` column holds; what is not known is left out."""
    row: dict[str, str | int | float] = {
        "phase": progress.phase,
        "step": progress.step,
        "total": progress.total,
        "fraction": round(progress.fraction, 4),
        "text": progress.text,
    }
    if progress.windows:
        row |= {"window": progress.window, "windows": progress.windows}
    if progress.seconds_per_step is not None:
        row["seconds_per_step"] = round(progress.seconds_per_step, 3)
    if progress.eta_s is not None:
        row["eta_s"] = round(progress.eta_s, 1)
    return row


def steps_in_words(progress: Mapping[str, Any]) -> str:
    """What people read beside the phase: "7/12, window 2 of 3, 1.4 s a step, 0:42 left"; "" when nothing is counted."""
    words = [f"{progress.get('step', 0)}/{progress['total']}"] if progress.get("total") else []
    if progress.get("windows", 0) > 1:
        words.append(f"window {progress['window']} of {progress['windows']}")
    if progress.get("seconds_per_step") is not None:
        step_s = progress["seconds_per_step"]
        words.append(f"{step_s:.0f} s a step" if step_s >= 10 else f"{step_s:.2g} s a step")
    if progress.get("eta_s") is not None:
        words.append(f"{_clock_time(progress['eta_s'])} left")
    return ", ".join(words)


def _clock_time(seconds: float) -> str:
    """0:42, 12:05 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
