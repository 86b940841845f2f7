"""`TaskStore`: what the worker needs of a database. One contract suite (tests/contract) holds for every backend.

A backend keeps these promises:
- a claim is one atomic statement; a row is handed to one worker at a time;
- every write of a worker carries its `Claim` and raises `StaleClaim` when the row was claimed again, ended or released;
- times come from the database's clock;
- what ends a task also ends what depends on it, in the same transaction: dependants fail or are cancelled with it,
  a waiting parent ends with its last child.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar

from source.errors import InvalidInput
from source.store.circumstances import Circumstances
from source.store.types import (
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

#: spans of `throughput` at most
MAX_SPANS = 5000


def whole_bucket(since_s: float, bucket_s: float) -> int:
    """The length of a span in whole seconds. Raises InvalidInput where that would be too many of them."""
    if bucket_s < 1 or since_s <= 0 or since_s / int(bucket_s) > MAX_SPANS:
        raise InvalidInput(
            f"spans of {bucket_s:g} s within {since_s:g} s: one takes at least 1 s, and there are {MAX_SPANS} at most",
            field="bucket_s",
        )
    return int(bucket_s)


class TaskStore(ABC):
    """A tasks table. Safe to share between threads."""

    #: whether a question costs next to nothing; else each is a request that somebody pays for
    local: ClassVar[bool] = True

    # -- adding -----------------------------------------------------------------------------------------------------

    @abstractmethod
    def add_many(self, tasks: Sequence[NewTask]) -> list[str]:
        """Insert rows in one transaction; an id that exists already is left alone. Returns the ids in order.

        Raises InvalidInput when a dependency does not exist (neither stored nor in `tasks`), has already failed or was
        cancelled, or when the dependencies form a cycle; nothing is inserted then.
        """

    def add(self, task: NewTask) -> str:
        """Insert one row and return its id."""
        return self.add_many([task])[0]

    # -- reading ----------------------------------------------------------------------------------------------------

    @abstractmethod
    def get(self, task_id: str) -> Task:
        """Raises TaskNotFound."""

    @abstractmethod
    def tasks(self, *, status: Status | None = None, task_type: str | None = None, limit: int = 50) -> list[Task]:
        """The newest rows first."""

    @abstractmethod
    def select(
        self, chosen: TaskFilter, *, limit: int = 1000, newest_first: bool = False, after: str | None = None
    ) -> list[Task]:
        """The rows that `chosen` means, the oldest first: a parent before its children; or the newest first. `after`:
        those that follow this row in that order. Raises TaskNotFound when there is no such row."""

    @abstractmethod
    def ids_like(self, prefix: str, *, limit: int = 10) -> list[str]:
        """The ids of tasks that begin so, in their order; nothing is read but an index."""

    @abstractmethod
    def child_counts(self, parent_ids: Sequence[str]) -> dict[str, dict[Status, int]]:
        """The children of each parent (1000 at most) by status; without parents that have none."""

    @abstractmethod
    def children(self, parent_id: str) -> list[Task]:
        """In the order in which they were added."""

    @abstractmethod
    def dependencies(self, task_id: str) -> list[Task]:
        """The rows that `task_id` depends on, in the order of `dependant_on`."""

    @abstractmethod
    def events(self, task_id: str) -> list[Event]:
        """The timeline, oldest first."""

    @abstractmethod
    def preview(self, task_id: str) -> Preview | None:
        """What the task that runs looks like so far. None where nothing was shown, and once its claim has ended."""

    @abstractmethod
    def counts(self) -> dict[Status, int]:
        """Rows by status; every status is a key."""

    @abstractmethod
    def workers(self) -> list[WorkerRow]:
        """The workers that ever sent a heartbeat, the latest first."""

    @abstractmethod
    def logs(self, chosen: LogFilter, *, limit: int = 200) -> list[LogLine]:
        """The newest lines that `chosen` means, oldest first. Workers send them with heartbeats, so the last ones may
        be on their way. Raises InvalidInput for a level that does not exist."""

    @abstractmethod
    def samples(
        self, *, worker_id: str | None = None, since_s: float = 3600.0, limit: int = 2000
    ) -> list[WorkerSample]:
        """How workers were doing within the last `since_s` seconds, the newest ones, oldest first. `worker_id`: an id,
        or the name that a worker was given."""

    @abstractmethod
    def throughput(self, *, since_s: float, bucket_s: float) -> list[ThroughputBucket]:
        """What ended within the last `since_s` seconds by span of `bucket_s` seconds, status and type, oldest first;
        spans in which nothing ended are left out. `bucket_s`: at least a second, and not more than 5000 spans."""

    @abstractmethod
    def queue_depths(self) -> list[QueueDepth]:
        """The rows that have not ended, by state and type. (Limits of their owners do not count here.)"""

    @abstractmethod
    def circumstances(self, task_id: str) -> Circumstances:
        """What surrounds a row, for the question why it waits. Raises TaskNotFound."""

    @abstractmethod
    def now(self) -> datetime:
        """The time by the database's clock, which leases go by."""

    def idle(self) -> bool:
        """True when no row is left that could still change by itself."""
        return not self.open_tasks()

    @abstractmethod
    def open_tasks(self) -> int:
        """How many rows are neither terminal nor held up: paused, or waiting for a paused row."""

    # -- claiming ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def claim(
        self, worker_id: str, *, lease_s: float, limit: int = 1, loaded_model: str | None = None,
        task_types: Collection[str] | None = None, affinity: AffinityBound = USUAL_AFFINITY,
    ) -> list[Task]:  # fmt: skip
        """Take up to `limit` eligible rows: Queued, not paused, `run_after` passed, every dependency Complete.

        The order, from row to row:
        1. the highest priority;
        2. of the owners with rows of it, the one of whom the fewest rows run (orchestrators and waiting parents do not
           count); among equals whose turn it is: they follow each other by id, and each worker goes on after the one
           that it served last;
        3. of that owner's rows, one of `loaded_model` (an `affinity_key`), unless the oldest was passed over that way
           `affinity.tasks` times, or for `affinity.wait_s` seconds by the database's clock;
        4. the oldest.
        It is an order and never a refusal: whoever asks gets a row as long as there is one.

        The owner is the project, and where people own projects the person. Each row becomes In Progress with a lease of
        `lease_s` and a higher claim number. Expired leases are rescued first. A row whose params are not a JSON object
        fails here (error_class bad_input) and is not handed out.
        """

    @abstractmethod
    def rescue(self) -> int:
        """Put rows whose lease expired back to Queued (attempts + 1), or, after `max_attempts` deaths, fail them as
        poison; cancel those whose cancellation was asked for; fail Queued rows whose dependency failed or is missing.
        Returns how many rows changed."""

    # -- the claimed task's writes; all raise StaleClaim ------------------------------------------------------------

    @abstractmethod
    def heartbeat(
        self, worker_id: str, claims: Sequence[Claim], *, lease_s: float, current_model: str | None = None,
        status: str = "active", metadata: Mapping[str, Any] | None = None, sample: Mapping[str, Any] | None = None,
    ) -> HeartbeatReply:  # fmt: skip
        """Extend the leases and the worker's row. Never raises StaleClaim: the reply names what was lost. `metadata`:
        facts for whoever looks at the worker; those of earlier heartbeats stay where this one says nothing. `sample`:
        how it is doing now, for `samples`. Log lines go along where the store was given any; what has been kept for
        long is removed on the way."""

    @abstractmethod
    def generation_started(self, claim: Claim) -> None:
        """Stamp generation_started_at with now: what is billed begins here, after loading."""

    @abstractmethod
    def progress(self, claim: Claim, progress: Mapping[str, Any], *, event: str | None = None) -> bool:
        """Store the progress; with `event`, add that to the timeline. Returns True when a cancel was asked for."""

    @abstractmethod
    def show(self, claim: Claim, image: bytes, *, media_type: str, step: int) -> None:
        """Keep `image` as the task's preview, in place of the one before; asked once, for the next one is better.
        Raises InvalidInput for one that is no preview (types.MAX_PREVIEW_BYTES, types.PREVIEW_MEDIA_TYPES)."""

    @abstractmethod
    def note(self, claim: Claim, name: str, detail: str) -> None:
        """Add an entry to the timeline."""

    @abstractmethod
    def fan_out(self, claim: Claim, children: Sequence[NewTask], *, final_child: str) -> list[str]:
        """In one transaction: insert the children that do not exist yet (they may depend on each other) and turn the
        parent into a waiting one, without a lease. When every child has ended already, the parent ends here too.
        `final_child` is the id of the child whose output becomes the parent's."""

    @abstractmethod
    def complete(
        self, claim: Claim, output_location: str | None, *, result_data: Mapping[str, Any] | None = None,
        publish: Callable[[], None] | None = None,
    ) -> None:  # fmt: skip
        """Complete the row and store the output in one transaction. `publish` runs inside it, after the claim was
        verified and before the commit: when it raises, nothing is stored. Repeating a completion that the database
        already has (same claim) changes nothing and does not publish again."""

    @abstractmethod
    def fail(self, claim: Claim, message: str, *, error_class: str) -> None:
        """End the row as Failed; dependants fail with it."""

    @abstractmethod
    def retry_later(self, claim: Claim, message: str, *, error_class: str, delay_s: float) -> Status:
        """Queued again with attempts + 1 and run_after = now + delay_s; Failed when that was the last attempt."""

    @abstractmethod
    def release(self, claim: Claim) -> None:
        """Queued again without burning an attempt (shutdown)."""

    @abstractmethod
    def cancelled(self, claim: Claim) -> None:
        """The worker stopped on request: the row becomes Cancelled, and its dependants with it."""

    # -- from outside -----------------------------------------------------------------------------------------------

    @abstractmethod
    def cancel(self, task_id: str) -> Status:
        """Ask for cancellation of a row and its children. Queued and waiting rows end at once; a running one gets
        cancel_requested and ends when its worker stops, or as Complete if that won the race. Terminal rows stay.
        Returns the status now. Raises TaskNotFound."""

    @abstractmethod
    def retry(self, task_id: str) -> Status:
        """Failed -> Queued with attempts 0, together with what failed because of it (dependants, its failed children,
        its failed parent). Raises TaskNotFound, and InvalidInput when the row is not Failed."""

    @abstractmethod
    def pause(self, task_id: str) -> Status:
        """Mark a row and its open descendants, and those that it makes from now on: a paused row is not claimed. What
        runs goes on, and is held should it come back to the queue. Returns the status. Raises TaskNotFound, and
        InvalidInput when the row has ended."""

    @abstractmethod
    def resume(self, task_id: str) -> Status:
        """The opposite of `pause`, with the same errors."""

    @abstractmethod
    def requeue(self, task_id: str) -> Status:
        """Queue again what runs of a row and its descendants, without burning an attempt: the claims are stale from
        then on. Rows that were to be cancelled are Cancelled. Returns the status now. Raises TaskNotFound, and
        InvalidInput when nothing of it runs."""

    # -- life of the connection -------------------------------------------------------------------------------------

    @abstractmethod
    def wait_for_change(self, timeout_s: float) -> bool:
        """Wait until another connection may have changed the table, at most `timeout_s`. Only a hint."""

    @abstractmethod
    def close(self) -> None:
        """Close every connection of this store."""
