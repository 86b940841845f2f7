"""The store contract on SQLite files."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from contract_rows import FrontEnd
from store_contract import StoreContract

from source.store.sqlite import SqliteStore


class SqlFrontEnd:
    """Another program with the file open."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def insert(self, **columns: Any) -> None:
        if not isinstance(columns["params"], str):
            columns["params"] = json.dumps(columns["params"])
        self._run(f"INSERT INTO tasks ({', '.join(columns)}) VALUES (:{', :'.join(columns)})", columns)

    def update(self, task_id: str, **columns: Any) -> None:
        assignments = ", ".join(f"{name} = :{name}" for name in columns)
        self._run(f"UPDATE tasks SET {assignments} WHERE id = :task_id", {**columns, "task_id": task_id})

    def _run(self, statement: str, values: dict[str, Any]) -> None:
        with closing(sqlite3.connect(self.path)) as db, db:
            db.execute(statement, values)


@pytest.fixture
def make_store(tmp_path: Path) -> Iterator[Callable[..., SqliteStore]]:
    stores: list[SqliteStore] = []
    numbers = count()

    def make(**options: Any) -> SqliteStore:
        stores.append(SqliteStore(tmp_path / f"tasks-{next(numbers)}.db", **options))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


@pytest.fixture
def store(make_store: Callable[..., SqliteStore]) -> SqliteStore:
    return make_store()


@pytest.fixture
def front_end(store: SqliteStore) -> FrontEnd:
    return SqlFrontEnd(store.path)


class TestSqliteStore(StoreContract):
    """Nothing of its own."""
