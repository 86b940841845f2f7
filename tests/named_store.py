"""A `SupabaseStore` for the store contract, whose ids may be short names ("direct", "ring-1"), as on SQLite.

Names are turned into UUIDs at the door, and back in whatever comes out.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any

from postgres_server import DEFAULT_PROJECT, Database
from psycopg import sql
from psycopg.types.json import Jsonb

from source.errors import WanError
from source.store.supabase import Functions
from source.store.types import DEFAULT_PROJECT_ID

#: there is no shorter lease over HTTP; it has expired before the next question is there
SHORTEST_LEASE_S = 0.001


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


class Named:
    """Functions whose answers name what was named."""

    def __init__(self, functions: Functions, names: Names, database: Database) -> None:
        self._functions = functions
        self._names = names
        self._database = database

    def call(self, function: str, body: Mapping[str, Any], *, repeat: bool = True) -> Any:
        self._make_projects(body.get("tasks") or body.get("children") or [])
        given = dict(body)
        if given.get("lease_s", 1) <= 0:
            given["lease_s"] = SHORTEST_LEASE_S
        try:
            return self._names.back(self._functions.call(function, given, repeat=repeat))
        except WanError as error:
            error.args = (self._names.back(str(error)),)
            raise

    def close(self) -> None:
        self._functions.close()

    def _make_projects(self, tasks: list[dict[str, Any]]) -> None:
        """The contract's projects are names; here they are rows that must exist."""
        for project in {task["project_id"] for task in tasks} - {DEFAULT_PROJECT, None}:
            with self._database.acting("service_role") as connection:
                connection.execute("insert into public.projects (id) values (%s) on conflict do nothing", (project,))


class SqlFrontEnd:
    """Another program with the service key, and SQL."""

    def __init__(self, database: Database, names: Names) -> None:
        self._database = database
        self._names = names

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
        self._run(statement, {**values, "task_id": self._names.id(task_id)})

    def _values(self, columns: dict[str, Any]) -> dict[str, Any]:
        values = dict(columns)
        if "id" in values:
            values["id"] = self._names.id(values["id"])
        if "params" in values:
            values["params"] = Jsonb(_parsed(values["params"]))
        if "dependant_on" in values:
            values["dependant_on"] = self._ids(values["dependant_on"])
        return values

    def _ids(self, dependant_on: str) -> list[str]:
        listed = json.loads(dependant_on) if dependant_on.startswith("[") else [dependant_on]
        return [self._names.id(name) for name in listed]

    def _run(self, statement: sql.Composed, values: dict[str, Any]) -> None:
        with self._database.acting("service_role") as connection:
            connection.execute(statement, values)


def _parsed(params: Any) -> Any:
    """The column holds JSON. Text that is none arrives as a JSON string, as from a client that encoded it twice."""
    if not isinstance(params, str):
        return params
    try:
        return json.loads(params)
    except (ValueError, RecursionError):
        return params
