"""One claimed task on its way: parse, run, deliver, report. Its thread is not the GPU's."""

from __future__ import annotations

import logging
import random
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from headless.generation import CancelToken
from source.disk import size_of
from source.errors import (
    DISK_FULL,
    DamagedUpload,
    DeviceLost,
    DiskFull,
    Hang,
    InvalidMedia,
    Outcome,
    ShuttingDown,
    StaleClaim,
    StoreError,
    TaskNotFound,
    Verdict,
    verdict,
)
from source.ledger import ENDED, ended, lost_device
from source.logs import task_context
from source.outbox import Parcel, request_digest
from source.reporting import Answer, LostClaim, cancelled_on_request, persist
from source.run_context import RunContext, Stage, Workplace
from source.storage import Staged, publish_together
from source.store.types import Status, Task
from source.task_registry import Done, Spawned
from Wan2GP.parameters import LEAST_MEMORY_PROFILE

log = logging.getLogger(__name__)

MAX_RETRY_DELAY_S = 3600.0
#: the timeline's entry of an engine that stands still
HANG = "hang"
#: where result_data says what the task took of the GPU's time, and that it ran in little memory
GPU_SECONDS, MEMORY_PROFILE = "gpu_seconds", "memory_profile"
#: so many times longer is waited before a task is tried again for which the disk had no room
DISK_PATIENCE = 6
#: where result_data names the published poster
THUMBNAIL = "thumbnail_url"
#: where result_data lists all files of a task that makes several, the output first
OUTPUTS = "outputs"
VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v"})
#: how often a result that arrives damaged is sent
DELIVERIES = 3


class Run:
    """One claimed task. Call it once, on a thread that may be busy with it for long."""

    def __init__(self, workplace: Workplace, task: Task, *, after: Run | None = None) -> None:
        self.task = task
        self.claim = task.claim
        self.token = CancelToken()
        self.ended = threading.Event()
        #: how it ended, when not well
        self.outcome: Outcome | None = None
        self._after = after
        self._claimed_at = time.monotonic()
        self._reporting = False
        self._workplace = workplace
        self._store = workplace.store
        self._context = RunContext(workplace, task, self.token)

    @property
    def stage(self) -> Stage:
        """A task that uses no GPU has it behind it from the start, until it generates after all."""
        registry, stage = self._workplace.registry, self._context.stage
        uses_gpu = self.task.task_type in registry and registry.get(self.task.task_type).uses_gpu
        return stage if uses_gpu or stage is Stage.GENERATING else Stage.AFTER

    @property
    def age_s(self) -> float:
        """Seconds since the claim."""
        return time.monotonic() - self._claimed_at

    def __call__(self) -> None:
        started_at = time.monotonic()
        with task_context(self.task.id, self.task.params):
            log.info("%s started, claim %d", self.task.task_type, self.task.claim_number)
            try:
                result = self._work()
                log.info("%s %s in %.1f s", self.task.task_type, result, time.monotonic() - started_at)
            except Exception as error:  # noqa: BLE001 - one of the two boundaries of the architecture
                self._end(self.token.reason if self._stopped_for(error) else error)
            finally:
                self._tidy()
                self._workplace.watch(self.task, None)
                self.ended.set()

    def lose(self) -> None:
        """The claim is somebody else's: stop. A run that reports its end learns that from the database."""
        if not self._reporting and not self.token.cancelled:
            log.warning("task %s: the claim is lost; its run stops", self.task.id)
            self.token.cancel(LostClaim())

    def cancel(self) -> None:
        """Somebody asked for cancellation."""
        self.token.cancel(cancelled_on_request())

    def hang(self, reason: Hang) -> None:
        """The engine stands still."""
        log.error("task %s: %s", self.task.id, reason)
        self.token.cancel(reason)
        self._context.remember(HANG, str(reason))

    def give_up(self) -> None:
        """The engine does not heed the token: report the end in the place of the run, which never returns."""
        with task_context(self.task.id, self.task.params):
            self._end(self.token.reason)

    # ---- the work

    def _work(self) -> str:
        """Returns how it ended, in words."""
        if self._after is not None:
            self._after.ended.wait()
        kind = self._workplace.registry.get(self.task.task_type)
        params = self._params()
        request = request_digest(self.task, params)
        if parcel := self._workplace.outbox.find(self.task, request):
            log.info("the result of claim %d is here and is delivered", parcel.manifest.claim_number)
            self._context.without_gpu()
            self._context.report("publishing")
            return self._deliver(parcel)
        parsed = kind.parse(params, self._workplace.options_class)
        if parsed.unknown:
            log.warning("ignored parameters that nothing knows: %s", ", ".join(parsed.unknown))
        result = kind.run(parsed.params, self._context)
        self.token.raise_if_cancelled()
        if isinstance(result, Spawned):
            self._write(lambda: self._store.fan_out(self.claim, result.children, final_child=result.final_child))
            return f"created {len(result.children)} tasks"
        return self._deliver(self._packed(result, request))

    def _params(self) -> Mapping[str, Any]:
        """The row's parameters. A child without its orchestrator's details gets them from its orchestrator's row."""
        raw = self.task.params
        parent = raw.get("orchestrator_task_id_ref")
        if not isinstance(parent, str) or "orchestrator_details" in raw or "full_orchestrator_payload" in raw:
            return raw
        try:
            details = persist(lambda: self._store.get(parent), self._workplace.closing).params.get(
                "orchestrator_details"
            )
        except TaskNotFound:
            return raw
        return {**raw, "orchestrator_details": details} if details else raw

    # ---- the result

    def _packed(self, done: Done, request: str) -> Parcel:
        """The result in the outbox, each file with the record of how it was made."""
        if done.output is not None:
            self._context.report("publishing")
        done = self._with_account(self._with_poster(done))
        record = self._context.record() if done.output is not None else ""
        put = partial(self._workplace.outbox.put, self.task, request, done, record)
        parcel = persist(self._unless_stopped(put), self._workplace.closing)
        if not self._context.keeps_intermediates:
            self._context.drop(path for path in (done.output, *done.extra, done.poster) if path is not None)
        return parcel

    def _with_poster(self, done: Done) -> Done:
        """With the first frame of a video, where front ends expect one."""
        wanted = self._workplace.storage.wants_posters and done.poster is None and done.output is not None
        if not wanted or done.output is None or done.output.suffix.lower() not in VIDEO_SUFFIXES:
            return done
        from source.media.poster import poster

        try:
            return replace(done, poster=poster(done.output, self._context.scratch / f"{done.output.stem}_poster.jpg"))
        except InvalidMedia as error:
            log.warning("the result goes out without a poster: %s", error)
            return done

    def _with_account(self, done: Done) -> Done:
        """With what it took of the GPU's time, where it took any."""
        spent = {activity: round(seconds, 3) for activity, seconds in self._context.spent.items()}
        told: dict[str, Any] = {GPU_SECONDS: spent} if spent else {}
        if self._context.ran_out:
            told[MEMORY_PROFILE] = LEAST_MEMORY_PROFILE
        return replace(done, result_data={**(done.result_data or {}), **told}) if told else done

    def _deliver(self, parcel: Parcel) -> str:
        """Send and complete; what did not arrive as it was sent is sent again. Returns how it ended, in words."""
        for _ in range(DELIVERIES - 1):
            try:
                return self._send(parcel)
            except DamagedUpload as error:
                self._reporting = False
                log.warning("the result is sent again: %s", error)
        return self._send(parcel)

    def _send(self, parcel: Parcel) -> str:
        """The output last: who sees it sees the rest too."""
        data = dict(parcel.manifest.result_data or {})
        with ExitStack() as staging:
            stage = partial(self._stage, staging=staging)
            poster = [stage(parcel.poster)] if parcel.poster else []
            extra = [stage(path) for path in parcel.extra]
            output = [stage(parcel.output)] if parcel.output else []
            if extra:
                data[OUTPUTS] = [each.location for each in (*output, *extra)]
            for each in poster:
                data[THUMBNAIL] = each.location
            location = output[0].location if output else None
            publish = partial(publish_together, (*extra, *poster, *output)) if output else None
            self._stop_if_unwanted()
            self._write(lambda: self._store.complete(self.claim, location, result_data=data or None, publish=publish))
        if location and parcel.output:
            self._workplace.storage.keep(location, parcel.output)
        self._workplace.outbox.remove(parcel)
        return f"complete: {location}" if location else "complete"

    def _stage(self, path: Path, *, staging: ExitStack) -> Staged:
        """Where it will be published; what is not published when `staging` ends is dropped."""
        sent = self._context.sending(path.name)
        stage = partial(self._workplace.storage.stage, self.task, path, on_sent=sent, on_stop=self.token.on_cancel)
        staged = persist(self._unless_stopped(stage), self._workplace.closing)
        staging.callback(staged.discard)
        return staged

    def _unless_stopped(self, ask: Callable[[], Answer]) -> Callable[[], Answer]:
        """`ask`, unless nobody wants the result any more: what is tried again for long must hear of a cancel."""

        def asked() -> Answer:
            self._stop_if_unwanted()
            return ask()

        return asked

    def _stop_if_unwanted(self) -> None:
        """Raises what asked the run to stop. A shutdown leaves the time to hand in what is made."""
        if not isinstance(self.token.reason, ShuttingDown):
            self.token.raise_if_cancelled()

    def _write(self, write: Callable[[], object]) -> None:
        """The write that ends the run."""
        self._reporting = True
        persist(write, self._workplace.closing)

    # ---- a bad end

    def _stopped_for(self, error: Exception) -> bool:
        """Whether what was asked of the run (cancel, shutdown, lost claim) explains its failure."""
        return self.token.cancelled and not isinstance(error, DeviceLost | StaleClaim)

    def _end(self, error: BaseException | None) -> None:
        assert error is not None
        decided = self._decide(error)
        self.outcome = decided.outcome
        message = str(error) or type(error).__name__
        if decided.error_class == DISK_FULL:
            message = message if isinstance(error, DiskFull) else self._workplace.disk.explained(error, message)
            self._context.remember(DISK_FULL, message)
        if decided.error_class == "internal":
            message = f"internal error: {type(error).__name__}: {message}"
        self._log_end(decided, message, error)
        if decided.outcome not in (Outcome.ABANDON, Outcome.RELEASE):
            phases = self._context.progress_report.phases()
            self._context.remember(ENDED, ended(decided.error_class, self._context.spent, phases))
        try:
            self._write(lambda: self._report(decided, message))
        except StaleClaim:
            log.warning("the claim was lost before the end was reported; nothing was stored")
        except StoreError as failure:
            log.error("the end was not reported; the task runs again when its lease expires: %s", failure)

    def _decide(self, error: BaseException) -> Verdict:
        decided = verdict(error)
        if decided.error_class == DISK_FULL and self._disk_is_short():
            return Verdict(Outcome.RELEASE, DISK_FULL)
        tried = self._context.last_try or self.task.error_class == "out_of_memory"
        if decided.error_class == "out_of_memory" and tried:
            return Verdict(Outcome.FAIL, decided.error_class)
        return decided

    def _disk_is_short(self) -> bool:
        """Whether there is too little room even without what this run made: it is not the task's fault, and nothing is
        claimed here until there is more."""
        made = size_of(self._context.scratch) if "scratch" in vars(self._context) else 0
        short = self._workplace.disk.shortage(given_back=made)
        return short is not None and not short.delivers

    def _report(self, decided: Verdict, message: str) -> None:
        match decided.outcome:
            case Outcome.FAIL:
                self._store.fail(self.claim, message, error_class=decided.error_class)
            case Outcome.RETRY:
                self._retry(decided, message)
            case Outcome.CANCEL:
                self._store.cancelled(self.claim)
            case Outcome.RELEASE:
                self._store.release(self.claim)
            case Outcome.EXIT:
                self._lose_device(message)
            case Outcome.ABANDON:
                return

    def _lose_device(self, message: str) -> None:
        """Back into the queue as it was, unless it is this task that takes the device away from every worker."""
        losses = sum(lost_device(entry) for entry in self._context.entries(ENDED))
        if losses < self._workplace.settings.max_attempts:
            self._store.release(self.claim)
            return
        message = f"the GPU was lost {losses} times while it ran this task; the last time: {message}"
        self._store.fail(self.claim, message, error_class="poison")

    def _retry(self, decided: Verdict, message: str) -> None:
        first_s = self._workplace.settings.retry_delay_s
        if decided.error_class == DISK_FULL:
            first_s *= DISK_PATIENCE
        delay_s = retry_delay_s(first_s, self.task.attempts)
        status = self._store.retry_later(self.claim, message, error_class=decided.error_class, delay_s=delay_s)
        if status is Status.QUEUED:
            log.info("attempt %d failed; it is tried again in %.0f s", self.task.attempts + 1, delay_s)

    def _log_end(self, decided: Verdict, message: str, error: BaseException) -> None:
        if decided.outcome in (Outcome.CANCEL, Outcome.RELEASE, Outcome.ABANDON):
            log.info("%s stopped: %s", self.task.task_type, message)
        else:
            trace = error if decided.error_class in ("internal", "engine") else None
            log.error("%s failed (%s): %s", self.task.task_type, decided.error_class, message, exc_info=trace)

    def _tidy(self) -> None:
        self._context.release()
        try:
            self._workplace.checkpoints.settle(self.task, self._store)
            self._workplace.outbox.settle(self.task, self._store)
        except StoreError as failure:
            log.debug("whether the task is at its end is not known: %s", failure)
        if "scratch" in vars(self._context) and not self._context.keeps_intermediates:
            shutil.rmtree(self._context.scratch, ignore_errors=True)


def retry_delay_s(first_s: float, attempts: int) -> float:
    """Doubled with each attempt, within a quarter at random so that many tasks do not come back at once."""
    return min(first_s * 2.0 ** min(attempts, 32), MAX_RETRY_DELAY_S) * random.uniform(0.75, 1.25)
