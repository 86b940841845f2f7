"""The store contract on the SQL functions of supabase/migrations, on a real Postgres."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from contract_rows import FrontEnd
from postgres_server import Connection, Database, server
from postgres_store import Names, PostgresStore
from psycopg import sql
from psycopg.types.json import Jsonb
from store_contract import StoreContract


class SqlFrontEnd:
    """Another program with the service key."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store

    def insert(self, **columns: Any) -> None:
        values = self._values(columns)
        names = sql.SQL(", ").join(map(sql.Identifier, values))
        places = sql.SQL(", ").join(map(sql.Placeholder, values))
        self._run(sql.SQL("insert into public.tasks ({}) values ({})").format(names, places), values)

    def update(self, task_id: str, **columns: Any) -> None:
        values = self._values(columns)
        assignments = sql.SQL(", ").join(
            sql.SQL("{} = {}").format(sql.Identifier(name), sql.Placeholder(name)) for name in values
        )
        statement = sql.SQL("update public.tasks set {} where id = %(task_id)s").format(assignments)
        self._run(statement, {**values, "task_id": self._store.names.id(task_id)})

    def _values(self, columns: dict[str, Any]) -> dict[str, Any]:
        values = dict(columns)
        if "id" in values:
            values["id"] = self._store.names.id(values["id"])
        if "params" in values:
            values["params"] = Jsonb(_parsed(values["params"]))
        if "dependant_on" in values:
            values["dependant_on"] = _ids(values["dependant_on"], self._store.names)
        return values

    def _run(self, statement: sql.Composed, values: dict[str, Any]) -> None:
        with self._store.database.acting("service_role") as connection:
            connection.execute(statement, values)


def _parsed(params: Any) -> Any:
    """The column holds JSON. Text that is none arrives as a JSON string, as from a client that encoded it twice."""
    if not isinstance(params, str):
        return params
    try:
        return json.loads(params)
    except (ValueError, RecursionError):
        return params


def _ids(dependant_on: str, names: Names) -> list[str]:
    listed = json.loads(dependant_on) if dependant_on.startswith("[") else [dependant_on]
    return [names.id(name) for name in listed]


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    made = server().fresh()
    yield made
    server().drop(made)


@pytest.fixture(scope="module")
def connection(database: Database) -> Iterator[Connection]:
    """One for all tests, whose functions Postgres has compiled."""
    with database.acting("service_role") as connection:
        yield connection


@pytest.fixture
def make_store(database: Database, connection: Connection) -> Callable[..., PostgresStore]:
    def make(**options: Any) -> PostgresStore:
        """No test uses two stores at once, so a new one may empty the tables."""
        database.empty()
        return PostgresStore(database, connection=connection, **options)

    return make


@pytest.fixture
def store(make_store: Callable[..., PostgresStore]) -> PostgresStore:
    return make_store()


@pytest.fixture
def front_end(store: PostgresStore) -> FrontEnd:
    return SqlFrontEnd(store)


class TestPostgresStore(StoreContract):
    """Nothing of its own."""
