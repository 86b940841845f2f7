"""The commands of debug.py that only look, on a Supabase project; tests/looking_contract.py holds on every database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from local_stack import LocalStack
from local_stack import stack as stack
from looking_contract import LookingContract, Site

from source.edge_functions import EdgeFunctions, Token
from source.store.supabase import SupabaseStore

pytestmark = pytest.mark.slow


@pytest.fixture
def site(stack: LocalStack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Site]:
    monkeypatch.setenv("DB_TYPE", "supabase")
    monkeypatch.setenv("SUPABASE_URL", stack.url)
    monkeypatch.setenv("SUPABASE_ACCESS_TOKEN", stack.service_key)
    door = EdgeFunctions(stack.url, Token(stack.service_key))
    site = Site(lambda logs: SupabaseStore(door, look_s=0.02, logs=logs), (), monkeypatch, capsys)
    yield site
    site.store.close()


class TestLookingOnSupabase(LookingContract):
    """All of it."""


def test_a_person_sees_what_is_theirs(site: Site, stack: LocalStack, monkeypatch: pytest.MonkeyPatch) -> None:
    anna = stack.person()
    site.add(prompt="somebody else's")
    site.beat()
    monkeypatch.setenv("SUPABASE_ACCESS_TOKEN", anna.access_token)
    assert site.view("tasks") == site.view("workers") == site.view("logs") == []
    frame = site.view("watch")
    assert (frame["workers"], frame["ended"], sum(frame["tasks"].values())) == ([], [], 0)
