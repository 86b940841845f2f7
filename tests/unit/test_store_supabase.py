"""The store behind the Edge Functions, by what it asks; the contract on the real ones is in tests/contract."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest
from functions_site import TOKEN, Answer, FunctionsSite, functions_site

from source.command_line import exit_code
from source.edge_functions import EdgeFunctions, NoAnswer
from source.errors import ConfigurationError, InvalidInput, StoreError, TaskNotFound
from source.leases import Changes
from source.running import Run
from source.settings import Settings, load_settings
from source.startup import check_installation
from source.store.opening import open_existing, open_store
from source.store.supabase import SupabaseStore
from source.store.types import Claim, NewTask

ID = "5f0c1c1e-0000-4000-8000-000000000001"
CLAIM = Claim(ID, "w", 3)


class Recorder:
    """Functions that note what they were asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.latest = 0
        self.state = "held"

    def call(self, function: str, body: Mapping[str, Any], *, repeat: bool = True) -> Any:
        self.asked.append((function, dict(body)))
        answers = {"latest_change": self.latest, "claim_state": self.state}
        return {"result": answers.get(body.get("operation", "")), "tasks": [], "task_ids": [], "success": True}

    def close(self) -> None:
        """Nothing is open."""

    def operations(self) -> list[str]:
        return [body.get("operation", function) for function, body in self.asked]


@pytest.fixture
def functions() -> Recorder:
    return Recorder()


@pytest.fixture
def site() -> Iterator[FunctionsSite]:
    with functions_site() as site:
        yield site


def settings_of(site: FunctionsSite, **values: Any) -> Settings:
    return load_settings(db_type="supabase", supabase_url=site.url, supabase_access_token=TOKEN, **values)


# -- ids ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [{"id": "direct"}, {"dependant_on": ("direct",)}, {"project_id": "my project"}])
def test_ids_are_uuids(functions: Recorder, task: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="is no UUID, and ids on Supabase are UUIDs") as refused:
        SupabaseStore(functions).add(NewTask(**{"task_type": "t2v", "params": {}} | task))
    assert "id" in task or str(refused.value).startswith(f"{next(iter(task))}: "), "it is said where"
    assert functions.asked == []


def test_a_task_with_another_id_is_not_there(functions: Recorder) -> None:
    """A folder or a row may name a task of a SQLite file."""
    with pytest.raises(TaskNotFound, match="there is no task direct"):
        SupabaseStore(functions).get("direct")


def test_the_server_says_which_project_is_the_usual_one(functions: Recorder) -> None:
    SupabaseStore(functions).add_many([NewTask(task_type="t2v", params={})])
    [(_, body)] = functions.asked
    assert body["tasks"][0]["project_id"] is None


def test_text_that_postgres_cannot_store_is_stored_as_far_as_it_can(functions: Recorder) -> None:
    SupabaseStore(functions).fail(CLAIM, "a\0b\ud800", error_class="engine")
    SupabaseStore(functions).progress(CLAIM, {"text\0": ["a\0b"]})
    assert functions.asked[0][1]["message"] == "a\ufffdb?"
    assert functions.asked[1][1]["progress"] == {"text\ufffd": ["a\ufffdb"]}


# -- completing -----------------------------------------------------------------------------------------------------


def test_what_is_published_was_checked_before_and_is_stored_after(functions: Recorder) -> None:
    published: list[list[str]] = []
    SupabaseStore(functions).complete(CLAIM, "a.mp4", publish=lambda: published.append(functions.operations()))
    assert published == [["claim_state"]]
    assert functions.operations() == ["claim_state", "complete-task"]


def test_a_completion_that_was_stored_is_not_published_again(functions: Recorder) -> None:
    functions.state = "completed"
    SupabaseStore(functions).complete(CLAIM, "a.mp4", publish=lambda: pytest.fail("published again"))
    assert functions.operations() == ["claim_state"]


# -- what it costs --------------------------------------------------------------------------------------------------


def test_looks_are_as_far_apart_as_the_setting_says(functions: Recorder) -> None:
    store = SupabaseStore(functions, look_s=0.2)
    until = time.monotonic() + 1
    while time.monotonic() < until:
        store.wait_for_change(0.01)
    assert 3 <= functions.operations().count("latest_change") <= 6


def test_no_look_is_asked_for_when_it_is_turned_off(functions: Recorder) -> None:
    store = SupabaseStore(functions, look_s=0)
    store.claim("w", lease_s=60)
    assert not store.wait_for_change(0.01)
    assert functions.operations() == ["claim-next-task"]


def test_an_idle_worker_asks_for_no_changes(functions: Recorder) -> None:
    """Its claims look for themselves."""
    wakes: list[bool] = []
    with Changes(SupabaseStore(functions, look_s=0.01), list, lambda: wakes.append(True), lambda: None):
        threading.Event().wait(0.1)
    assert functions.asked == []


def test_a_busy_worker_learns_of_changes_by_one_heartbeat(functions: Recorder) -> None:
    beaten, busy = threading.Event(), [cast(Run, object())]
    functions.latest = 7
    with Changes(SupabaseStore(functions, look_s=0.01), lambda: busy, lambda: None, beaten.set):
        assert beaten.wait(5)
    assert set(functions.operations()) == {"latest_change"}


def test_a_change_is_told_once(functions: Recorder) -> None:
    store = SupabaseStore(functions, look_s=0.01)
    store.claim("w", lease_s=60)
    functions.latest = 7
    assert store.wait_for_change(5)
    assert not store.wait_for_change(0.05)
    assert functions.asked[-1][1]["since"] == 7


def test_closing_wakes_who_waits(functions: Recorder) -> None:
    store = SupabaseStore(functions, look_s=60)
    store.wait_for_change(0)
    store.close()
    started_at = time.monotonic()
    assert not store.wait_for_change(30)
    assert time.monotonic() - started_at < 1


# -- on the wire ----------------------------------------------------------------------------------------------------


def test_a_lost_claim_says_when_its_task_comes_back(site: FunctionsSite) -> None:
    site.answer("claim-next-task", Answer(fault="reset"))
    with closing(open_store(settings_of(site, supabase_look_s=0))) as store, pytest.raises(NoAnswer) as lost:
        store.claim("w", lease_s=60)
    assert "queued again within 60 s" in str(lost.value)
    assert len(site.questions) == 1


def test_an_answer_of_something_else_is_said_to_be_one(site: FunctionsSite) -> None:
    site.answer("task-store", Answer(["hello"]))
    with closing(open_existing(settings_of(site))) as store, pytest.raises(StoreError, match="SUPABASE_URL"):
        store.counts()


WRONG: list[Any] = [{}, {"result": None, "tasks": None, "lost": None}, {"result": {"id": 1}, "tasks": [{"id": ID}]}]


@pytest.mark.parametrize("answer", WRONG, ids=["empty", "null", "rows of another kind"])
@pytest.mark.parametrize(
    "ask",
    [
        lambda store: store.counts(),
        lambda store: store.get(ID),
        lambda store: store.tasks(),
        lambda store: store.open_tasks(),
        lambda store: store.now(),
        lambda store: store.claim("w", lease_s=60),
        lambda store: store.heartbeat("w", [CLAIM], lease_s=60),
        lambda store: store.complete(CLAIM, "a.mp4"),
        lambda store: store.cancel(ID),
        lambda store: store.add(NewTask(task_type="t2v", params={})),
    ],
    ids=["counts", "get", "tasks", "open_tasks", "now", "claim", "heartbeat", "complete", "cancel", "add"],
)
def test_an_answer_without_what_was_asked_is_a_fault_of_the_database(
    site: FunctionsSite, ask: Callable[[SupabaseStore], object], answer: dict[str, Any]
) -> None:
    """A portal, or functions of another version: nothing that ends a task or a thread of the worker."""
    for function in ("task-store", "complete-task", "claim-next-task", "heartbeat", "cancel-task", "create-task"):
        site.answer(function, Answer(answer))
    store = SupabaseStore(EdgeFunctions.of(settings_of(site)), look_s=0)
    with closing(store), pytest.raises(StoreError, match="SUPABASE_URL"):
        ask(store)


# -- starting -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "says", "code"),
    [
        (Answer({"success": False, "error": "not you"}, 403), "refuses the token: not you.*SUPABASE_ACCESS_TOKEN", 1),
        (Answer({"error": "the token has expired"}, 401), "has expired.*SUPABASE_ACCESS_TOKEN", 1),
        (Answer({"error": "the server failed; request 7"}, 500), "request 7 .*supabase db push", 2),
        (Answer({"error": "no"}, 503), r"no \(HTTP 503\)", 2),
        (Answer({"result": {"schema": "20200101000000", "postgres": "17"}}), "20200101000000.*supabase db push", 2),
    ],
)  # fmt: skip
def test_a_project_that_cannot_be_used_is_refused_at_once(
    site: FunctionsSite, answer: Answer, says: str, code: int
) -> None:
    site.answer("task-store", answer)
    store = SupabaseStore(EdgeFunctions.of(settings_of(site)))
    with closing(store), pytest.raises(StoreError, match=says) as refused:
        check_installation(store)
    assert exit_code(refused.value) == code
    assert len(site.questions) == 1


def test_a_project_whose_migrations_are_not_recorded_is_taken(site: FunctionsSite) -> None:
    site.answer("task-store", Answer({"result": {"schema": None, "postgres": "17"}}))
    with closing(SupabaseStore(EdgeFunctions.of(settings_of(site)))) as store:
        check_installation(store)


def test_the_token_may_be_in_a_file(site: FunctionsSite, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("from-a-file\n")
    site.answer("task-store", Answer({"result": 0}))
    settings = load_settings(db_type="supabase", supabase_url=site.url, supabase_access_token=f"@{file}")
    with closing(open_store(settings)) as store:
        assert store.open_tasks() == 0
    assert site.questions[0].headers["Authorization"] == "Bearer from-a-file"
    file.unlink()
    with pytest.raises(ConfigurationError, match="cannot be read"):
        open_store(settings)
