"""Random histories on the SQL functions alone: many more than HTTP allows in the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from contract_graphs import GraphContract
from named_store import Named, Names
from postgres_server import Connection, Database, server
from postgres_store import SqlFunctions

from source.store.supabase import SupabaseStore


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    made = server().fresh()
    yield made
    server().drop(made)


@pytest.fixture(scope="module")
def connection(database: Database) -> Iterator[Connection]:
    """One for all histories, whose functions Postgres has compiled."""
    with database.acting("service_role") as connection:
        yield connection


@pytest.fixture
def make_store(database: Database, connection: Connection) -> Callable[[], SupabaseStore]:
    names = Names()

    def make() -> SupabaseStore:
        database.empty()
        return SupabaseStore(Named(SqlFunctions(connection), names, database), uuid_of=names.id)

    return make


class TestPostgresHistories(GraphContract):
    """Nothing of its own."""
