"""`PostgresStore`: the worker's store on the SQL functions alone, without Edge Functions and HTTP between."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Any

import psycopg
import pytest
from postgres_server import Connection, Database, call
from psycopg.types.json import Jsonb

from source.errors import InvalidInput, RefusedWrite, StaleClaim, StoreError, TaskNotFound
from source.store.supabase import SupabaseStore
from source.store.types import Claim

#: parameters that are JSON
JSON = frozenset({"tasks", "children", "claims", "progress", "result_data", "metadata", "sample", "logs"})


class SqlFunctions:
    """Answers as the Edge Functions do, by the SQL functions that these call."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def call(self, function: str, body: Mapping[str, Any], *, repeat: bool = True) -> Any:
        values = dict(body)
        match function:
            case "task-store":
                return {"result": self._ask(values.pop("operation"), values)}
            case "create-task":
                return {"task_ids": self._ask("add_tasks", values)}
            case "claim-next-task":
                return {"tasks": self._ask("claim_tasks", values)}
            case "heartbeat":
                return self._ask("worker_heartbeat", values)
            case "cancel-task":
                return {"status": self._ask("cancel_task", values)}
            case "complete-task":
                return {"success": True, "repeated": not self._ask("complete_task", {"output_location": None} | values)}
        raise AssertionError(f"there is no function {function}")

    def close(self) -> None:
        self._connection.close()

    def _ask(self, function: str, values: Mapping[str, Any]) -> Any:
        given = {f"p_{name}": Jsonb(value) if name in JSON else value for name, value in values.items()}
        try:
            with self._lock:
                return call(self._connection, function, **given)
        except psycopg.Error as error:
            raise _explained(error) from error


def _explained(error: psycopg.Error) -> Exception:
    message = error.diag.message_primary or str(error)
    if error.sqlstate == "PT400":
        return InvalidInput(message, field=error.diag.column_name)
    kinds = {"PT403": RefusedWrite, "PT404": TaskNotFound, "PT409": StaleClaim, "PT422": RefusedWrite}
    return kinds.get(error.sqlstate or "", StoreError)(message)


class PostgresStore(SupabaseStore):
    """The store in `database`, as the service or as a person."""

    def __init__(self, database: Database, *, role: str = "service_role", person: str | None = None) -> None:
        self.database = database
        self.connection = database.connect(role, person)
        super().__init__(SqlFunctions(self.connection))


def held(claim: Claim) -> dict[str, Any]:
    """A claim as parameters of SQL functions."""
    return {"p_task_id": claim.task_id, "p_worker_id": claim.worker_id, "p_claim_number": claim.claim_number}


@pytest.fixture
def store(database: Database) -> PostgresStore:
    """The store as the service has it."""
    return PostgresStore(database)


@pytest.fixture
def service(database: Database) -> Iterator[Connection]:
    """A connection of the service's."""
    with database.acting("service_role") as connection:
        yield connection
