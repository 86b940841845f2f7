"""`SqliteStore`: the tasks table in one SQLite file that threads and processes of one machine share."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from source.errors import InvalidInput, StoreError, TaskNotFound
from source.store import sqlite_choosing as choosing
from source.store import sqlite_claiming as claiming
from source.store import sqlite_claims as holding
from source.store import sqlite_endings as endings
from source.store import sqlite_facts as facts
from source.store import sqlite_interventions as interventions
from source.store import sqlite_previews as previews
from source.store import sqlite_queueing as queueing
from source.store.base import TaskStore, whole_bucket
from source.store.circumstances import Circumstances
from source.store.encoding import check_preview, encoded
from source.store.migrations import migrate
from source.store.sqlite_circumstances import circumstances, workers
from source.store.sqlite_connections import SqliteConnections
from source.store.sqlite_dependencies import insert
from source.store.sqlite_rows import NOW, event_of, ids, task_of
from source.store.types import (
    TERMINAL,
    USUAL_AFFINITY,
    USUAL_RETENTION,
    AffinityBound,
    Claim,
    Event,
    HeartbeatReply,
    LogFilter,
    LogLine,
    NewTask,
    Preview,
    QueueDepth,
    Retention,
    Status,
    Task,
    TaskFilter,
    ThroughputBucket,
    WorkerRow,
    WorkerSample,
)
from source.worker_logs import WorkerLogs

_WAIT = f"UPDATE tasks SET waiting = 1, lease_expires_at = NULL, result_data = ?, updated_at = {NOW} WHERE id = ?"

# Held up: paused rows, what depends on them, and the waiting parents of both.
_OPEN = """
WITH RECURSIVE held (id) AS (
    SELECT id FROM tasks WHERE status = 'Queued' AND paused = 1
    UNION SELECT task.id FROM held CROSS JOIN task_dependencies AS edge ON edge.depends_on = held.id
    CROSS JOIN tasks AS task ON task.id = edge.task_id WHERE +task.status = 'Queued'
    UNION SELECT parent.id FROM held CROSS JOIN tasks AS child ON child.id = held.id
    CROSS JOIN tasks AS parent ON parent.id = child.parent_id WHERE parent.waiting = 1)
SELECT count(*) FROM tasks INDEXED BY tasks_by_status
WHERE status IN ('Queued', 'In Progress') AND id NOT IN held
"""


class SqliteStore(TaskStore):
    """The store over the file `path`, created when absent; its folder must exist.

    One connection per thread, WAL, and a full sync at every commit: what was acknowledged survives a crash.
    Raises StoreError when the file cannot be used.
    """

    def __init__(
        self, path: str | Path, *, max_attempts: int = 3, logs: WorkerLogs | None = None,
        retention: Retention = USUAL_RETENTION,
    ) -> None:  # fmt: skip
        """`logs`: lines that heartbeats take along. `retention`: how long those and other facts are kept."""
        self.connections = SqliteConnections(Path(path))
        self._reading, self._writing = self.connections.reading, self.connections.writing
        self._max_attempts = max_attempts
        self._logs = logs
        self._retention = retention
        try:
            with self._reading() as db:
                migrate(db)
        except StoreError:
            self.close()
            raise

    @property
    def path(self) -> Path:
        """The file."""
        return self.connections.path

    # -- adding -----------------------------------------------------------------------------------------------------

    def add_many(self, tasks: Sequence[NewTask]) -> list[str]:
        with self._writing() as db:
            return insert(db, tasks)

    # -- reading ----------------------------------------------------------------------------------------------------

    def get(self, task_id: str) -> Task:
        with self._reading() as db:
            return task_of(self._row(db, task_id))

    def tasks(self, *, status: Status | None = None, task_type: str | None = None, limit: int = 50) -> list[Task]:
        wanted = {"status": status, "task_type": task_type}
        conditions = [f"{column} = :{column}" for column, value in wanted.items() if value is not None]
        where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
        return self._tasks(f"{where} ORDER BY created_at DESC, rowid DESC LIMIT {max(0, limit):d}", wanted)

    def select(
        self, chosen: TaskFilter, *, limit: int = 1000, newest_first: bool = False, after: str | None = None
    ) -> list[Task]:
        with self._reading() as db:
            row = None if after is None else self._row(db, after)
            return choosing.select(db, chosen, limit, newest_first=newest_first, after=row)

    def ids_like(self, prefix: str, *, limit: int = 10) -> list[str]:
        with self._reading() as db:
            return choosing.ids_like(db, prefix, limit)

    def child_counts(self, parent_ids: Sequence[str]) -> dict[str, dict[Status, int]]:
        with self._reading() as db:
            return choosing.child_counts(db, parent_ids)

    def children(self, parent_id: str) -> list[Task]:
        return self._tasks("WHERE parent_id = :id ORDER BY rowid", {"id": parent_id})

    def dependencies(self, task_id: str) -> list[Task]:
        edges = "JOIN task_dependencies ON depends_on = id WHERE task_id = :id ORDER BY position"
        return self._tasks(edges, {"id": task_id})

    def events(self, task_id: str) -> list[Event]:
        with self._reading() as db:
            rows = db.execute("SELECT * FROM task_events WHERE task_id = ? ORDER BY id", (task_id,))
            return [event_of(row) for row in rows]

    def preview(self, task_id: str) -> Preview | None:
        with self._reading() as db:
            return previews.preview(db, task_id)

    def counts(self) -> dict[Status, int]:
        with self._reading() as db:
            found = dict(db.execute("SELECT status, count(*) FROM tasks GROUP BY status").fetchall())
        return {status: found.get(status, 0) for status in Status}

    def workers(self) -> list[WorkerRow]:
        with self._reading() as db:
            return workers(db)

    def logs(self, chosen: LogFilter, *, limit: int = 200) -> list[LogLine]:
        with self._reading() as db:
            return facts.logs(db, chosen, limit)

    def samples(
        self, *, worker_id: str | None = None, since_s: float = 3600.0, limit: int = 2000
    ) -> list[WorkerSample]:
        with self._reading() as db:
            return facts.samples(db, worker_id, since_s, limit)

    def throughput(self, *, since_s: float, bucket_s: float) -> list[ThroughputBucket]:
        with self._reading() as db:
            return facts.throughput(db, since_s, whole_bucket(since_s, bucket_s))

    def queue_depths(self) -> list[QueueDepth]:
        with self._reading() as db:
            return facts.queue_depths(db)

    def circumstances(self, task_id: str) -> Circumstances:
        with self._reading() as db:
            return circumstances(db, self._row(db, task_id))

    def now(self) -> datetime:
        with self._reading() as db:
            return datetime.fromisoformat(db.execute(f"SELECT {NOW}").fetchone()[0])

    def open_tasks(self) -> int:
        with self._reading() as db:
            return int(db.execute(_OPEN).fetchone()[0])

    # -- claiming ---------------------------------------------------------------------------------------------------

    def claim(
        self, worker_id: str, *, lease_s: float, limit: int = 1, loaded_model: str | None = None,
        task_types: Collection[str] | None = None, affinity: AffinityBound = USUAL_AFFINITY,
    ) -> list[Task]:  # fmt: skip
        request = {
            "worker_id": worker_id,
            "delay_s": lease_s,
            "loaded_model": loaded_model,
            "task_types": None if task_types is None else ids(task_types),
            "affinity_tasks": affinity.tasks,
            "affinity_wait_s": affinity.wait_s,
        }
        with self._writing() as db:
            self.connections.mark_seen(db)
            queueing.rescue_expired(db, self._max_attempts)
            return claiming.claim(db, request, limit)

    def rescue(self) -> int:
        with self._reading() as db:
            if not queueing.any_expired(db) and not queueing.any_stuck(db):
                return 0
        with self._writing() as db:
            return queueing.rescue_expired(db, self._max_attempts) + queueing.end_stuck(db)

    # -- the claimed task's writes ----------------------------------------------------------------------------------

    def heartbeat(
        self, worker_id: str, claims: Sequence[Claim], *, lease_s: float, current_model: str | None = None,
        status: str = "active", metadata: Mapping[str, Any] | None = None, sample: Mapping[str, Any] | None = None,
    ) -> HeartbeatReply:  # fmt: skip
        """Log lines of a beat that failed go with a later one."""
        worker = facts.seen(worker_id, status, current_model, metadata)
        lines = self._logs.take() if self._logs else []
        try:
            with self._writing() as db:
                facts.keep(db, worker, sample, lines, self._retention)
                return holding.extend(db, claims, lease_s)
        except BaseException:
            if self._logs:
                self._logs.put_back(lines)
            raise

    def generation_started(self, claim: Claim) -> None:
        with self._claimed(claim) as (db, _):
            stamp = f"UPDATE tasks SET generation_started_at = {NOW}, updated_at = {NOW} WHERE id = ?"
            db.execute(stamp, (claim.task_id,))
            holding.record_of(db, claim, "started")

    def progress(self, claim: Claim, progress: Mapping[str, Any], *, event: str | None = None) -> bool:
        text = encoded(progress, "progress")
        with self._claimed(claim) as (db, row):
            store = f"UPDATE tasks SET progress = ?, updated_at = {NOW} WHERE id = ?"
            db.execute(store, (text, claim.task_id))
            if event is not None:
                holding.record_of(db, claim, event)
            return bool(row["cancel_requested"])

    def show(self, claim: Claim, image: bytes, *, media_type: str, step: int) -> None:
        check_preview(image, media_type)
        with self._claimed(claim) as (db, _):
            previews.show(db, claim, image, media_type, step)

    def note(self, claim: Claim, name: str, detail: str) -> None:
        with self._claimed(claim) as (db, _):
            holding.record_of(db, claim, name, detail)

    def fan_out(self, claim: Claim, children: Sequence[NewTask], *, final_child: str) -> list[str]:
        """Repeating a fan-out that the database already has (same claim) changes nothing."""
        with self._writing() as db:
            holding.check_children(db, claim.task_id, children)
            row = holding.owned(db, claim)
            if row is None and holding.fanned_out_by(db, claim, children):
                return [child.id for child in children]
            if row is None:
                raise holding.stale(db, claim)
            added = insert(db, children)
            if not holding.is_child(db, final_child, claim.task_id):
                raise InvalidInput(f"{final_child} is not one of the children", field="final_child")
            db.execute(_WAIT, (encoded({"final_child": final_child}, "result_data"), claim.task_id))
            holding.record_of(db, claim, "fanned_out", f"{len(children)} children")
            if row["paused"]:
                interventions.pause_children(db, claim.task_id)
            if row["cancel_requested"]:
                endings.cancel(db, claim.task_id)
            if endings.end_parent(db, claim.task_id):
                endings.settle(db, [claim.task_id])
            return added

    def complete(
        self, claim: Claim, output_location: str | None, *, result_data: Mapping[str, Any] | None = None,
        publish: Callable[[], None] | None = None,
    ) -> None:  # fmt: skip
        """`publish` must not write to this store: the transaction is open while it runs."""
        with self._writing() as db:
            if holding.owned(db, claim) is None:
                if holding.completed_by(db, claim):
                    return
                raise holding.stale(db, claim)
            endings.complete(db, claim.task_id, output_location, result_data)
            endings.settle(db, [claim.task_id])
            if publish is not None:
                publish()

    def fail(self, claim: Claim, message: str, *, error_class: str) -> None:
        with self._claimed(claim) as (db, row):
            _fail(db, row, message, error_class)

    def retry_later(self, claim: Claim, message: str, *, error_class: str, delay_s: float) -> Status:
        with self._claimed(claim) as (db, row):
            if row["attempts"] + 1 >= self._max_attempts:
                return _fail(db, row, message, error_class)
            return queueing.requeue(
                db, row, "retry", burned=1, delay_s=delay_s, message=message, error_class=error_class
            )

    def release(self, claim: Claim) -> None:
        with self._claimed(claim) as (db, row):
            queueing.requeue(db, row, "released")

    def cancelled(self, claim: Claim) -> None:
        with self._claimed(claim) as (db, _):
            endings.settle(db, endings.end(db, [claim.task_id], Status.CANCELLED))

    # -- from outside -----------------------------------------------------------------------------------------------

    def cancel(self, task_id: str) -> Status:
        with self._writing() as db:
            if self._row(db, task_id)["status"] not in TERMINAL:
                endings.cancel(db, task_id)
            return Status(self._row(db, task_id)["status"])

    def retry(self, task_id: str) -> Status:
        with self._writing() as db:
            row = self._row(db, task_id)
            if row["status"] != Status.FAILED:
                raise InvalidInput(f"task {task_id} is {row['status']}; only a Failed task can be retried")
            queueing.retry(db, task_id)
            return Status(self._row(db, task_id)["status"])

    def pause(self, task_id: str) -> Status:
        with self._writing() as db:
            row = self._row(db, task_id)
            interventions.set_paused(db, row, True)
            return Status(row["status"])

    def resume(self, task_id: str) -> Status:
        with self._writing() as db:
            row = self._row(db, task_id)
            interventions.set_paused(db, row, False)
            return Status(row["status"])

    def requeue(self, task_id: str) -> Status:
        with self._writing() as db:
            interventions.requeue_running(db, self._row(db, task_id))
            return Status(self._row(db, task_id)["status"])

    # -- life of the connection -------------------------------------------------------------------------------------

    def wait_for_change(self, timeout_s: float) -> bool:
        """Changes since this thread's last claim count, so none is missed between a claim and this wait."""
        return self.connections.wait_for_change(timeout_s)

    def close(self) -> None:
        """Also wakes wait_for_change. Other threads may finish what they are doing; what they ask next is refused."""
        self.connections.close()

    @contextmanager
    def _claimed(self, claim: Claim) -> Iterator[tuple[sqlite3.Connection, sqlite3.Row]]:
        """A write transaction on a row that is still ours. Raises StaleClaim otherwise."""
        with self._writing() as db:
            row = holding.owned(db, claim)
            if row is None:
                raise holding.stale(db, claim)
            yield db, row

    def _tasks(self, rest: str, values: Mapping[str, Any]) -> list[Task]:
        with self._reading() as db:
            return [task_of(row) for row in db.execute(f"SELECT tasks.* FROM tasks {rest}", values)]

    def _row(self, db: sqlite3.Connection, task_id: str) -> sqlite3.Row:
        row: sqlite3.Row | None = db.execute("SELECT * FROM tasks WHERE id = ?", (task_id,)).fetchone()
        if row is None:
            raise TaskNotFound(f"there is no task {task_id} in {self.path}")
        return row


def _fail(db: sqlite3.Connection, row: sqlite3.Row, message: str, error_class: str) -> Status:
    """The last attempt failed. When cancellation was asked for, that is how the row ends."""
    status = Status.CANCELLED if row["cancel_requested"] else Status.FAILED
    db.execute("UPDATE tasks SET attempts = attempts + 1 WHERE id = ?", (row["id"],))
    endings.settle(db, endings.end(db, [row["id"]], status, message=message, error_class=error_class))
    return status
