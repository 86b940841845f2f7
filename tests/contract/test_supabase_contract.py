"""The store contract as the worker has it on Supabase: HTTP, Edge Functions, SQL functions, a real Postgres."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from contract_graphs import HISTORIES, Graph, Step, some
from contract_rows import FrontEnd, MakeStore
from local_stack import LocalStack, local_stack
from named_store import Named, Names, SqlFrontEnd
from store_contract import StoreContract

from source.edge_functions import EdgeFunctions, Token
from source.store.supabase import SupabaseStore


@pytest.fixture(scope="module")
def running() -> LocalStack:
    started = local_stack()
    started.start()
    return started


@pytest.fixture(scope="module")
def functions(running: LocalStack) -> Iterator[EdgeFunctions]:
    door = EdgeFunctions(running.url, Token(running.service_key))
    yield door
    door.close()


@pytest.fixture
def names() -> Names:
    return Names()


@pytest.fixture
def make_store(running: LocalStack, functions: EdgeFunctions, names: Names) -> Callable[..., SupabaseStore]:
    def make(**options: Any) -> SupabaseStore:
        """No test uses two stores at once, so a new one may empty the tables."""
        running.database.empty()
        named = Named(functions, names, running.database)
        return SupabaseStore(named, look_s=0.02, uuid_of=names.id, **options)

    return make


@pytest.fixture
def store(make_store: Callable[..., SupabaseStore]) -> SupabaseStore:
    return make_store()


@pytest.fixture
def front_end(running: LocalStack, names: Names, store: SupabaseStore) -> FrontEnd:
    return SqlFrontEnd(running.database, names)


class TestSupabaseStore(StoreContract):
    """All of it; a history is some fifty requests, so there are fewer. test_postgres_contract.py has the rest."""

    @some(15)
    @HISTORIES
    def test_any_history_ends_with_nothing_queued(self, make_store: MakeStore, graph: Graph, steps: list[Step]) -> None:
        self.check_history(make_store(), graph, steps)
