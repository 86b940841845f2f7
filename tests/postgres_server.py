"""A real Postgres for tests: databases with what a hosted Supabase project has (supabase/bootstrap.sql) and our
migrations, applied in order by a role that is no superuser.

One server a process, started by the first test that asks. TEST_DATABASE_URL (a superuser's) names another instead.
"""

from __future__ import annotations

import json
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
from process_end import at_process_end
from psycopg import conninfo, sql

from source.devstack.database import bootstrap, migrate
from source.devstack.postgres import Postgres
from source.devstack.state import free_ports
from source.store.supabase_schema import migrations

MIGRATIONS = migrations()

_STOP = """
import pathlib, shutil
from source.devstack.postgres import Postgres
Postgres(pathlib.Path(sys.argv[1]), 0, "").stop()
shutil.rmtree(sys.argv[1])
"""

#: where tasks go that name no project
DEFAULT_PROJECT = "00000000-0000-0000-0000-000000000000"

Connection = psycopg.Connection[tuple[Any, ...]]


def call(connection: Connection, function: str, **values: Any) -> Any:
    """The answer of a function of the API."""
    given = ", ".join(f"{name} => %({name})s" for name in values)
    row = connection.execute(f"select public.{function}({given})".encode(), values).fetchone()
    assert row is not None
    return row[0]


class Database:
    """One database. `connect` says as whom."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._opened: list[Connection] = []

    def close(self) -> None:
        """Close what was connected and not closed."""
        while self._opened:
            self._opened.pop().close()

    def connect(self, role: str | None = None, person: str | None = None) -> Connection:
        """A connection in autocommit mode: as the superuser, or as `role` with the claims of `person`, as an Edge
        Function has them (there for one transaction, here for the connection)."""
        connection = psycopg.connect(self.uri, autocommit=True)
        self._opened.append(connection)
        if role is not None:
            claims = json.dumps({"role": role} | ({"sub": person} if person else {}))
            connection.execute("select set_config('request.jwt.claims', %s, false)", (claims,))
            connection.execute(sql.SQL("set session authorization authenticator"))
            connection.execute(sql.SQL("set role {}").format(sql.Identifier(role)))
        return connection

    @contextmanager
    def acting(self, role: str | None = None, person: str | None = None) -> Iterator[Connection]:
        """`connect`, closed at the end."""
        connection = self.connect(role, person)
        try:
            yield connection
        finally:
            connection.close()

    def empty(self) -> None:
        """Remove every row that a test made."""
        with self.acting() as superuser:
            superuser.execute(
                "delete from public.tasks; delete from public.workers; delete from public.system_logs;"
                " delete from public.users;"
                f" delete from public.projects where id <> '{DEFAULT_PROJECT}'".encode()
            )


class PostgresServer:
    """Makes databases."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._numbers = count()
        self._prefix = f"test_{os.getpid()}"
        self._template = f"{self._prefix}_template"
        self._run(f'create database "{self._template}"')
        template = self._database(self._template)
        bootstrap(template.uri)
        migrate(template.uri)

    def bare(self) -> Database:
        """A database with nothing but what a hosted project has."""
        name = self._name()
        self._run(f'create database "{name}"')
        database = self._database(name)
        bootstrap(database.uri)
        return database

    def fresh(self) -> Database:
        """A database with all migrations and no task."""
        name = self._name()
        self._run(f'create database "{name}" template "{self._template}"')
        return self._database(name)

    def drop(self, database: Database) -> None:
        """With all connections to it."""
        database.close()
        name = conninfo.conninfo_to_dict(database.uri)["dbname"]
        self._run(f'drop database "{name}" with (force)')

    def _name(self) -> str:
        return f"{self._prefix}_{next(self._numbers)}"

    def _database(self, name: str) -> Database:
        return Database(conninfo.make_conninfo(self.uri, dbname=name))

    def _run(self, statement: str) -> None:
        with psycopg.connect(self.uri, autocommit=True) as superuser:
            superuser.execute(statement.encode())


@cache
def server() -> PostgresServer:
    """The process's server. It ends with the process, and its files with it."""
    return PostgresServer(_started())


@cache
def _started() -> str:
    """Kept apart, so that a migration that fails does not start a server for each test."""
    if given := os.environ.get("TEST_DATABASE_URL"):
        return given
    folder = tempfile.mkdtemp(prefix="postgres-")
    started = Postgres(Path(folder), free_ports()["postgres"], secrets.token_hex(16), durable=False)
    at_process_end(_STOP, folder)
    started.start()
    started.wait()
    return started.uri()


@pytest.fixture(scope="module")
def shared_database() -> Iterator[Database]:
    """One for the tests of a module."""
    made = server().fresh()
    yield made
    server().drop(made)


@pytest.fixture
def database(shared_database: Database) -> Iterator[Database]:
    """A database with all migrations and no row of an earlier test."""
    shared_database.empty()
    yield shared_database
    shared_database.close()
