"""`PostgresStore`: the worker's store as calls of the SQL functions, for tests.

The store that ships will speak HTTP to Edge Functions, which call the same functions; it comes later. This one shows
that they keep the store's contract by themselves.

On Postgres ids are UUIDs. The contract uses short names too ("direct", "ring-1"), so names are turned into UUIDs at the
door, and back in whatever comes out.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any

import psycopg
from postgres_server import DEFAULT_PROJECT, Connection, Database, call
from psycopg.types.json import Jsonb

from source.errors import InvalidInput, RefusedWrite, StaleClaim, StoreError, TaskNotFound
from source.store.base import TaskStore
from source.store.encoding import encoded, plain
from source.store.types import DEFAULT_PROJECT_ID, Claim, Event, HeartbeatReply, NewTask, Status, Task, WorkerRow

LOOK_EVERY_S = 0.05

_FIELDS = {field.name for field in fields(Task)}


class Names:
    """Short names and the UUIDs that stand for them."""

    def __init__(self) -> None:
        self._by_id = {DEFAULT_PROJECT: DEFAULT_PROJECT_ID}

    def id(self, name: str) -> str:
        if name == DEFAULT_PROJECT_ID:
            return DEFAULT_PROJECT
        try:
            return str(uuid.UUID(name))
        except ValueError:
            made = str(uuid.uuid5(uuid.NAMESPACE_OID, name))
            self._by_id[made] = name
            return made

    def back(self, value: Any) -> Any:
        if isinstance(value, str):
            for made, name in self._by_id.items():
                value = value.replace(made, name)
            return value
        if isinstance(value, list):
            return [self.back(entry) for entry in value]
        if isinstance(value, dict):
            return {key: self.back(entry) for key, entry in value.items()}
        return value


class PostgresStore(TaskStore):
    """The store in `database`, as the service or as a person, over a connection of its own or a given one."""

    def __init__(
        self, database: Database, *, max_attempts: int = 3, role: str = "service_role", person: str | None = None,
        connection: Connection | None = None,
    ) -> None:  # fmt: skip
        self.database = database
        self.names = Names()
        self._max_attempts = max_attempts
        self._connection = connection or database.connect(role, person)
        self._lock = threading.Lock()
        self._version = 0

    # -- adding -----------------------------------------------------------------------------------------------------

    def add_many(self, tasks: Sequence[NewTask]) -> list[str]:
        return self._ask("add_tasks", p_tasks=self._entries(tasks))

    # -- reading ----------------------------------------------------------------------------------------------------

    def get(self, task_id: str) -> Task:
        return _task(self._ask("get_task", p_task_id=self.names.id(task_id)))

    def tasks(self, *, status: Status | None = None, task_type: str | None = None, limit: int = 50) -> list[Task]:
        return _tasks(self._ask("list_tasks", p_status=status and str(status), p_task_type=task_type, p_limit=limit))

    def children(self, parent_id: str) -> list[Task]:
        return _tasks(self._ask("task_children", p_parent_id=self.names.id(parent_id)))

    def dependencies(self, task_id: str) -> list[Task]:
        return _tasks(self._ask("task_dependencies", p_task_id=self.names.id(task_id)))

    def events(self, task_id: str) -> list[Event]:
        return [Event(**event) for event in self._ask("task_timeline", p_task_id=self.names.id(task_id))]

    def counts(self) -> dict[Status, int]:
        return {Status(name): number for name, number in self._ask("count_tasks").items()}

    def workers(self) -> list[WorkerRow]:
        names = [field.name for field in fields(WorkerRow)]
        return [WorkerRow(**{name: row[name] for name in names}) for row in self._ask("list_workers")]

    def now(self) -> datetime:
        return datetime.fromisoformat(self._ask("installation")["now"])

    def open_tasks(self) -> int:
        return int(self._ask("open_tasks"))

    # -- claiming ---------------------------------------------------------------------------------------------------

    def claim(
        self, worker_id: str, *, lease_s: float, limit: int = 1, loaded_model: str | None = None,
        task_types: Collection[str] | None = None,
    ) -> list[Task]:  # fmt: skip
        self._version = self._latest()
        return _tasks(
            self._ask(
                "claim_tasks", p_worker_id=worker_id, p_lease_s=lease_s, p_limit=limit, p_loaded_model=loaded_model,
                p_task_types=None if task_types is None else list(task_types), p_max_attempts=self._max_attempts,
            )
        )  # fmt: skip

    def rescue(self) -> int:
        return int(self._ask("rescue_tasks", p_max_attempts=self._max_attempts))

    # -- the claimed task's writes ----------------------------------------------------------------------------------

    def heartbeat(
        self, worker_id: str, claims: Sequence[Claim], *, lease_s: float, current_model: str | None = None,
        status: str = "active",
    ) -> HeartbeatReply:  # fmt: skip
        held = [{"task_id": self.names.id(claim.task_id), "claim_number": claim.claim_number} for claim in claims]
        reply = self._ask(
            "worker_heartbeat", p_worker_id=worker_id, p_claims=Jsonb(held), p_lease_s=lease_s,
            p_current_model=current_model, p_status=status,
        )  # fmt: skip
        return HeartbeatReply(frozenset(reply["lost"]), frozenset(reply["cancel_requested"]))

    def generation_started(self, claim: Claim) -> None:
        self._ask("generation_started", **self._held(claim))

    def progress(self, claim: Claim, progress: Mapping[str, Any], *, event: str | None = None) -> bool:
        stored = _json(progress, "progress")
        return bool(self._ask("task_progress", **self._held(claim), p_progress=stored, p_event=event))

    def note(self, claim: Claim, name: str, detail: str) -> None:
        self._ask("task_note", **self._held(claim), p_name=name, p_detail=plain(detail))

    def fan_out(self, claim: Claim, children: Sequence[NewTask], *, final_child: str) -> list[str]:
        final = self.names.id(final_child)
        return self._ask(
            "fan_out_task", **self._held(claim), p_children=self._entries(children), p_final_child=final
        )  # fmt: skip

    def complete(
        self, claim: Claim, output_location: str | None, *, result_data: Mapping[str, Any] | None = None,
        publish: Callable[[], None] | None = None,
    ) -> None:  # fmt: skip
        with self._connection.transaction():
            fresh = self._ask(
                "complete_task", **self._held(claim), p_output_location=output_location and plain(output_location),
                p_result_data=None if result_data is None else _json(result_data, "result_data"),
            )  # fmt: skip
            if fresh and publish is not None:
                publish()

    def fail(self, claim: Claim, message: str, *, error_class: str) -> None:
        self._ask("fail_task", **self._held(claim), p_message=plain(message), p_error_class=error_class)

    def retry_later(self, claim: Claim, message: str, *, error_class: str, delay_s: float) -> Status:
        now = self._ask(
            "retry_task_later", **self._held(claim), p_message=plain(message), p_error_class=error_class,
            p_delay_s=delay_s, p_max_attempts=self._max_attempts,
        )  # fmt: skip
        return Status(now)

    def release(self, claim: Claim) -> None:
        self._ask("release_task", **self._held(claim))

    def cancelled(self, claim: Claim) -> None:
        self._ask("task_cancelled", **self._held(claim))

    # -- from outside -----------------------------------------------------------------------------------------------

    def cancel(self, task_id: str) -> Status:
        return Status(self._ask("cancel_task", p_task_id=self.names.id(task_id)))

    def retry(self, task_id: str) -> Status:
        return Status(self._ask("retry_task", p_task_id=self.names.id(task_id)))

    # -- life of the connection -------------------------------------------------------------------------------------

    def wait_for_change(self, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while True:
            seen, self._version = self._version, self._latest()
            if self._version != seen:
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(LOOK_EVERY_S)

    def close(self) -> None:
        self._connection.close()

    # -- calls ------------------------------------------------------------------------------------------------------

    def _ask(self, function: str, **values: Any) -> Any:
        """The answer of a function of the API, with the errors that its SQLSTATE stands for."""
        try:
            with self._lock:
                return self.names.back(call(self._connection, function, **values))
        except psycopg.Error as error:
            raise self._explained(error) from error

    def _explained(self, error: psycopg.Error) -> Exception:
        message = self.names.back(error.diag.message_primary or str(error))
        if error.sqlstate == "PT400":
            return InvalidInput(message, field=error.diag.column_name)
        kinds = {"PT403": RefusedWrite, "PT404": TaskNotFound, "PT409": StaleClaim, "PT422": RefusedWrite}
        return kinds.get(error.sqlstate or "", StoreError)(message)

    def _held(self, claim: Claim) -> dict[str, Any]:
        return {
            "p_task_id": self.names.id(claim.task_id),
            "p_worker_id": claim.worker_id,
            "p_claim_number": claim.claim_number,
        }

    def _entries(self, tasks: Sequence[NewTask]) -> Jsonb:
        self._make_projects({task.project_id for task in tasks})
        return Jsonb([self._entry(task) for task in tasks])

    def _entry(self, task: NewTask) -> dict[str, Any]:
        return asdict(task) | {
            "id": self.names.id(task.id),
            "params": json.loads(encoded(task.params, "params")),
            "dependant_on": [self.names.id(needed) for needed in task.dependant_on],
            "project_id": self.names.id(task.project_id),
            "parent_id": task.parent_id and self.names.id(task.parent_id),
        }

    def _make_projects(self, names: set[str]) -> None:
        """The contract's projects are names; here they are rows that must exist."""
        for name in names - {DEFAULT_PROJECT_ID}:
            if self.names.id(name) != name:
                insert = "insert into public.projects (id) values (%s) on conflict do nothing"
                self._connection.execute(insert, (self.names.id(name),))

    def _latest(self) -> int:
        with self._lock:
            row = self._connection.execute("select coalesce(max(id), 0) from public.task_events").fetchone()
        assert row is not None
        return int(row[0])


def _json(value: Mapping[str, Any], field: str) -> Jsonb:
    return Jsonb(json.loads(encoded(value, field)))


def _tasks(rows: list[dict[str, Any]]) -> list[Task]:
    return [_task(row) for row in rows]


def _task(row: dict[str, Any]) -> Task:
    """Params that are no JSON object (a front end wrote them) are shown under `unreadable`."""
    values = {name: value for name, value in row.items() if name in _FIELDS}
    values["status"] = Status(values["status"])
    values["dependant_on"] = tuple(values["dependant_on"])
    if not isinstance(values["params"], dict):
        values["params"] = {"unreadable": values["params"]}
    return Task(**values)
