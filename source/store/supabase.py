"""`SupabaseStore`: the tasks table of a Supabase project, through its Edge Functions.

The rules live in the database (supabase/migrations); this is the wire. Ids there are UUIDs.
"""

from __future__ import annotations

import base64
import json
import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from typing import Any, Protocol, TypeVar

from source.edge_functions import NoAnswer
from source.errors import InvalidInput, StoreError, TaskNotFound
from source.store import supabase_rows as rows
from source.store.base import TaskStore, whole_bucket
from source.store.circumstances import Circumstances
from source.store.encoding import check_preview, encoded
from source.store.supabase_values import json_of, storable, text, uuid_of
from source.store.types import (
    DEFAULT_PROJECT_ID,
    USUAL_AFFINITY,
    AffinityBound,
    Claim,
    Event,
    HeartbeatReply,
    LogFilter,
    LogLine,
    NewTask,
    Preview,
    QueueDepth,
    Status,
    Task,
    TaskFilter,
    ThroughputBucket,
    WorkerRow,
    WorkerSample,
)
from source.worker_logs import WorkerLogs

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

#: the functions hand out no more at once
MOST_CLAIMED, MOST_LISTED, MOST_SAMPLES = 100, 1000, 10_000
#: of letters
LONGEST_ID = 36


class Functions(Protocol):
    """Who answers: the project's Edge Functions, or what calls the same SQL functions in a test."""

    def call(self, function: str, body: Mapping[str, Any], *, repeat: bool = True) -> Any:
        """The JSON that the function answers. `repeat`: it may be asked again when it does not answer."""

    def close(self) -> None:
        """No more questions."""


class SupabaseStore(TaskStore):
    """The store behind a project's functions.

    What the worker's main loop asks, and what it does as it leaves, is asked once: the loop asks again by itself, and
    hears in between that it is to stop.

    look_s: shortest time between two questions whether others changed anything, 0 for never. logs: lines to send with
    heartbeats. uuid_of: the UUID that an id is there; raises InvalidInput.
    """

    local = False

    def __init__(
        self, functions: Functions, *, max_attempts: int = 3, look_s: float = 5.0,
        logs: WorkerLogs | None = None, uuid_of: Callable[[str], str] = uuid_of,
    ) -> None:  # fmt: skip
        self._functions = functions
        self._logs = logs
        self._id = uuid_of
        self._max_attempts = max_attempts
        self._look_s = look_s
        self._next_look = 0.0
        #: the newest event that a look has seen
        self._seen: int | None = None
        self._closed = threading.Event()

    @property
    def functions(self) -> Functions:
        """For what else asks the project."""
        return self._functions

    # -- adding -----------------------------------------------------------------------------------------------------

    def add_many(self, tasks: Sequence[NewTask]) -> list[str]:
        entries = [self._entry(task) for task in tasks]
        return self._call("create-task", lambda answer: rows.texts(answer["task_ids"]), tasks=entries)

    # -- reading ----------------------------------------------------------------------------------------------------

    def get(self, task_id: str) -> Task:
        return self._ask("get_task", rows.task, task_id=self._known(task_id))

    def tasks(self, *, status: Status | None = None, task_type: str | None = None, limit: int = 50) -> list[Task]:
        if limit <= 0:
            return []
        most = min(limit, MOST_LISTED)
        return self._ask("list_tasks", rows.tasks, status=status, task_type=task_type, limit=most)

    def select(
        self, chosen: TaskFilter, *, limit: int = MOST_LISTED, newest_first: bool = False, after: str | None = None
    ) -> list[Task]:
        if limit <= 0:
            return []
        return self._ask(
            "select_tasks", rows.tasks, **chosen.given(), limit=min(limit, MOST_LISTED), newest=newest_first,
            after=after and self._known(after),
        )  # fmt: skip

    def ids_like(self, prefix: str, *, limit: int = 10) -> list[str]:
        if limit <= 0 or not prefix or len(prefix) > LONGEST_ID:
            return []
        return self._ask("task_ids_like", rows.texts, prefix=prefix, limit=min(limit, MOST_LISTED))

    def child_counts(self, parent_ids: Sequence[str]) -> dict[str, dict[Status, int]]:
        if not parent_ids:
            return {}
        # a test's ids are made UUIDs by a rule of its own: what comes back has the caller's names again
        names = {self._id(each): each for each in parent_ids}
        return self._ask(
            "count_children", lambda found: {names[each]: rows.counts(numbers) for each, numbers in found.items()},
            parent_ids=list(names),
        )  # fmt: skip

    def children(self, parent_id: str) -> list[Task]:
        return self._ask("task_children", rows.tasks, parent_id=self._id(parent_id))

    def dependencies(self, task_id: str) -> list[Task]:
        return self._ask("task_dependencies", rows.tasks, task_id=self._id(task_id))

    def events(self, task_id: str) -> list[Event]:
        return self._ask("task_timeline", rows.events, task_id=self._id(task_id))

    def preview(self, task_id: str) -> Preview | None:
        return self._ask("task_preview", rows.preview, task_id=self._id(task_id))

    def counts(self) -> dict[Status, int]:
        return self._ask("count_tasks", rows.counts)

    def workers(self) -> list[WorkerRow]:
        return self._ask("list_workers", rows.workers)

    def logs(self, chosen: LogFilter, *, limit: int = 200) -> list[LogLine]:
        levels = chosen.levels
        try:
            task_id = chosen.task_id and self._id(chosen.task_id)
        except InvalidInput:
            return []  # no task has such an id, so no line names it
        if limit <= 0:
            return []
        return self._ask(
            "list_logs", rows.logs, task_id=task_id, worker_id=chosen.worker_id, since_s=chosen.since_s,
            levels=None if levels is None else list(levels), text=chosen.text and text(chosen.text),
            limit=min(limit, MOST_LISTED),
        )  # fmt: skip

    def samples(
        self, *, worker_id: str | None = None, since_s: float = 3600.0, limit: int = 2000
    ) -> list[WorkerSample]:
        if limit <= 0:
            return []
        return self._ask(
            "list_samples", rows.samples, worker_id=worker_id, since_s=since_s, limit=min(limit, MOST_SAMPLES)
        )

    def throughput(self, *, since_s: float, bucket_s: float) -> list[ThroughputBucket]:
        span_s = whole_bucket(since_s, bucket_s)
        return self._ask("throughput", rows.throughput, since_s=since_s, bucket_s=span_s)

    def queue_depths(self) -> list[QueueDepth]:
        return self._ask("queue_depths", rows.queue_depths)

    def circumstances(self, task_id: str) -> Circumstances:
        return self._ask("task_circumstances", rows.circumstances, task_id=self._known(task_id))

    def now(self) -> datetime:
        return self._ask("installation", lambda found: datetime.fromisoformat(found["now"]))

    def open_tasks(self) -> int:
        return self._ask("open_tasks", int, repeat=False)

    # -- claiming ---------------------------------------------------------------------------------------------------

    def claim(
        self, worker_id: str, *, lease_s: float, limit: int = 1, loaded_model: str | None = None,
        task_types: Collection[str] | None = None, affinity: AffinityBound = USUAL_AFFINITY,
    ) -> list[Task]:  # fmt: skip
        """Never repeated: rows of an answer that got lost are queued again when their lease ends."""
        if limit <= 0:
            return []
        if self._seen is None and self._look_s:
            self._look()
        try:
            return self._call(
                "claim-next-task", lambda answer: rows.tasks(answer["tasks"]),
                worker_id=worker_id, lease_s=lease_s, limit=min(limit, MOST_CLAIMED),
                loaded_model=loaded_model, task_types=None if task_types is None else list(task_types),
                max_attempts=self._max_attempts, affinity_tasks=affinity.tasks, affinity_wait_s=affinity.wait_s,
            )  # fmt: skip
        except NoAnswer as error:
            raise NoAnswer(f"{error}; a task that it claimed is queued again within {lease_s:g} s") from error

    def rescue(self) -> int:
        return self._ask("rescue_tasks", int, repeat=False, max_attempts=self._max_attempts)

    # -- the claimed task's writes ----------------------------------------------------------------------------------

    def heartbeat(
        self, worker_id: str, claims: Sequence[Claim], *, lease_s: float, current_model: str | None = None,
        status: str = "active", metadata: Mapping[str, Any] | None = None, sample: Mapping[str, Any] | None = None,
    ) -> HeartbeatReply:  # fmt: skip
        """Takes log lines along. Those of a beat that failed go with a later one."""
        held = [{"task_id": self._id(claim.task_id), "claim_number": claim.claim_number} for claim in claims]
        beat: dict[str, Any] = {
            "worker_id": worker_id, "claims": held, "lease_s": lease_s, "current_model": current_model,
            "status": status, "metadata": None if metadata is None else json_of(metadata, "metadata"),
            "sample": None if sample is None else json_of(sample, "sample"),
        }  # fmt: skip
        logs = self._logs.take() if self._logs else []
        try:
            return self._call("heartbeat", rows.reply, **beat, logs=[self._line(entry) for entry in logs] or None)
        except InvalidInput as error:
            if not logs:
                raise
            log.warning("%d log lines were refused and are dropped: %s", len(logs), error)
            return self._call("heartbeat", rows.reply, **beat)
        except StoreError:
            if self._logs:
                self._logs.put_back(logs)
            raise

    def generation_started(self, claim: Claim) -> None:
        self._ask("generation_started", rows.nothing, **self._held(claim))

    def progress(self, claim: Claim, progress: Mapping[str, Any], *, event: str | None = None) -> bool:
        """Asked once: the next report says more."""
        stored = json_of(progress, "progress")
        return self._ask("task_progress", bool, repeat=False, **self._held(claim), progress=stored, event=event)

    def show(self, claim: Claim, image: bytes, *, media_type: str, step: int) -> None:
        check_preview(image, media_type)
        shown = {"step": step, "media_type": media_type, "image": base64.b64encode(image).decode("ascii")}
        self._ask("show_preview", rows.nothing, repeat=False, **self._held(claim), **shown)

    def note(self, claim: Claim, name: str, detail: str) -> None:
        self._ask("task_note", rows.nothing, **self._held(claim), name=name, detail=text(detail))

    def fan_out(self, claim: Claim, children: Sequence[NewTask], *, final_child: str) -> list[str]:
        entries, final = [self._entry(child) for child in children], self._id(final_child)
        return self._ask("fan_out_task", rows.texts, **self._held(claim), children=entries, final_child=final)

    def complete(
        self, claim: Claim, output_location: str | None, *, result_data: Mapping[str, Any] | None = None,
        publish: Callable[[], None] | None = None,
    ) -> None:  # fmt: skip
        """The output is published before the row is completed: there is no transaction to do it in. Should the claim
        be lost between the two, what was published lies under a key of that claim, which no row names."""
        if self._ask("claim_state", str, **self._held(claim)) == "completed":
            return
        if publish is not None:
            publish()
        location = None if output_location is None else text(output_location)
        data = None if result_data is None else json_of(result_data, "result_data")
        self._call("complete-task", rows.success, **self._held(claim), output_location=location, result_data=data)

    def fail(self, claim: Claim, message: str, *, error_class: str) -> None:
        self._ask("fail_task", rows.nothing, **self._held(claim), message=text(message), error_class=error_class)

    def retry_later(self, claim: Claim, message: str, *, error_class: str, delay_s: float) -> Status:
        return self._ask(
            "retry_task_later", Status, **self._held(claim), message=text(message), error_class=error_class,
            delay_s=delay_s, max_attempts=self._max_attempts,
        )  # fmt: skip

    def release(self, claim: Claim) -> None:
        self._ask("release_task", rows.nothing, repeat=False, **self._held(claim))

    def cancelled(self, claim: Claim) -> None:
        self._ask("task_cancelled", rows.nothing, **self._held(claim))

    # -- from outside -----------------------------------------------------------------------------------------------

    def cancel(self, task_id: str) -> Status:
        return self._call("cancel-task", lambda answer: Status(answer["status"]), task_id=self._id(task_id))

    def retry(self, task_id: str) -> Status:
        return self._ask("retry_task", Status, task_id=self._id(task_id))

    def pause(self, task_id: str) -> Status:
        return self._ask("pause_task", Status, task_id=self._id(task_id))

    def resume(self, task_id: str) -> Status:
        return self._ask("resume_task", Status, task_id=self._id(task_id))

    def requeue(self, task_id: str) -> Status:
        """Asked once: a second time would take it from whoever has claimed it since."""
        return self._ask("requeue_task", Status, repeat=False, task_id=self._id(task_id))

    # -- life of the connection -------------------------------------------------------------------------------------

    def wait_for_change(self, timeout_s: float) -> bool:
        """A look is one call of a function, so there is at most one in `look_s`; in between this only waits."""
        due_s = self._next_look - time.monotonic()
        if not self._look_s or due_s > timeout_s:
            self._closed.wait(timeout_s)
            return False
        return not self._closed.wait(max(due_s, 0)) and self._look()

    def close(self) -> None:
        """Also wakes wait_for_change and what waits to be asked again."""
        self._closed.set()
        self._functions.close()

    def installation(self, *, repeat: bool = True) -> dict[str, Any]:
        """What the database says of itself: schema (its newest migration), now, postgres, tables_without_rls."""
        return self._ask("installation", dict, repeat=repeat)

    def _look(self) -> bool:
        """Whether there are newer events than at the last look."""
        self._next_look = time.monotonic() + self._look_s
        latest = self._ask("latest_change", int, repeat=False, since=self._seen)
        known, self._seen = self._seen, latest
        return latest != known

    # -- calls ------------------------------------------------------------------------------------------------------

    def _ask(self, operation: str, read: Callable[[Any], Answer], *, repeat: bool = True, **values: Any) -> Answer:
        """What `read` makes of the answer of an operation that has no function of its own."""
        return self._call(
            "task-store", lambda answer: read(answer["result"]), repeat=repeat, operation=operation, **values
        )

    def _call(self, function: str, read: Callable[[Any], Answer], *, repeat: bool = True, **values: Any) -> Answer:
        """What `read` makes of the answer. Raises StoreError for one that it can make nothing of."""
        body = {name: value for name, value in values.items() if value is not None}
        answer = self._functions.call(function, body, repeat=repeat)
        try:
            return read(answer)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise StoreError(
                f"{function}: its answer is not what was asked for ({type(error).__name__}); does SUPABASE_URL name a "
                "project of ours, and are its functions of this version?"
            ) from error

    def _known(self, task_id: str) -> str:
        """Raises TaskNotFound for what cannot be the id of a task."""
        try:
            return self._id(task_id)
        except InvalidInput as error:
            raise TaskNotFound(f"there is no task {task_id}: {error}") from None

    def _named(self, value: str, field: str) -> str:
        """The UUID that a field of a new task names."""
        try:
            return self._id(value)
        except InvalidInput as error:
            raise InvalidInput(str(error), field=field) from None

    def _held(self, claim: Claim) -> dict[str, Any]:
        return {"task_id": self._id(claim.task_id), "worker_id": claim.worker_id, "claim_number": claim.claim_number}

    def _line(self, entry: Mapping[str, Any]) -> Any:
        """A log line; an id of a task that is none there is left out."""
        line = storable(dict(entry))
        task_id = line.pop("task_id", None)
        with suppress(InvalidInput):
            return line if task_id is None else line | {"task_id": self._id(task_id)}
        return line

    def _entry(self, task: NewTask) -> dict[str, Any]:
        return asdict(task) | {
            "id": self._id(task.id),
            "params": json.loads(encoded(task.params, "params")),
            "dependant_on": [self._named(needed, "dependant_on") for needed in task.dependant_on],
            # a service's goes to the installation's own, a person's to their only one
            "project_id": None if task.project_id == DEFAULT_PROJECT_ID else self._named(task.project_id, "project_id"),
            "parent_id": task.parent_id and self._id(task.parent_id),
        }
