"""A worker on the local stack: HTTP, Edge Functions, Postgres and an S3 server, with the shipped fake engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
import requests
from counted_functions import CountedFunctions
from local_stack import LocalStack
from local_stack import stack as stack
from worker_floor import DEADLINE_S, Floor

from headless.testing import FakeOrchestrator, Gate
from source.edge_functions import EdgeFunctions
from source.errors import StaleClaim, TaskNotFound
from source.settings import Settings
from source.store.base import TaskStore
from source.store.supabase import SupabaseStore
from source.store.types import NewTask, Status

MakeFloor = Callable[..., Floor]


@pytest.fixture
def make_floor(stack: LocalStack, tmp_path: Path) -> Iterator[MakeFloor]:
    with ExitStack() as floors:

        def make(engine: FakeOrchestrator | None = None, losing: str = "", **settings: Any) -> Floor:
            def open_it(settings: Settings) -> TaskStore:
                functions = CountedFunctions(EdgeFunctions.of(settings), {losing} - {""})
                return SupabaseStore(functions, look_s=settings.supabase_look_s)

            floor = Floor(
                tmp_path, engine, open_it=open_it, db_type="supabase", supabase_url=stack.url,
                supabase_access_token=stack.service_key, **{"supabase_look_s": 0.1, "heartbeat_s": 0.2} | settings,
            )  # fmt: skip
            floors.callback(floor.close)
            return floor

        yield make


def test_a_task_becomes_a_file_in_the_bucket(make_floor: MakeFloor, stack: LocalStack) -> None:
    floor = make_floor()
    task_id = floor.add()
    assert floor.work() == 0
    row = floor.store.get(task_id)
    assert (row.status, row.attempts, row.claim_number) == (Status.COMPLETE, 0, 1)
    assert row.output_location is not None
    assert requests.get(row.output_location, timeout=10).content == next(stack.objects.rglob("1-*.mp4")).read_bytes()
    assert [event.name for event in floor.store.events(task_id)].count("complete") == 1
    [worker] = floor.store.workers()
    assert (worker.id, worker.status) == (row.worker_id, "stopped")
    asked = floor.store.functions.asked  # type: ignore[attr-defined]
    assert "task_dependencies" not in asked, "the row says that it depends on nothing"


def test_a_claim_whose_answer_got_lost_is_found_again(make_floor: MakeFloor) -> None:
    """The row is held by nobody; its lease ends, and the next claim has it."""
    floor = make_floor(losing="claim-next-task", lease_s=0.5)
    task_id = floor.add()
    with floor.working():
        row = floor.wait_for(task_id, Status.COMPLETE)
    assert (row.claim_number, row.attempts) == (2, 1)


@pytest.mark.parametrize("answer", ["complete-task", "claim_state", "task_progress", "generation_started", "heartbeat"])
def test_a_completion_is_stored_once_whatever_answer_gets_lost(make_floor: MakeFloor, answer: str) -> None:
    floor = make_floor(losing=answer)
    task_id = floor.add()
    assert floor.work() == 0
    row = floor.store.get(task_id)
    assert (row.status, row.claim_number) == (Status.COMPLETE, 1)
    assert floor.event_names(task_id).count("complete") == 1


def test_a_cancellation_reaches_a_run_that_reports_no_progress(make_floor: MakeFloor) -> None:
    """The engine stands still within a step; a heartbeat learns of it."""
    gate = Gate()
    floor = make_floor(FakeOrchestrator(gate=gate), supabase_look_s=0)
    task_id = floor.add()
    with floor.working():
        gate.wait_until_held(DEADLINE_S)
        assert floor.store.cancel(task_id) is Status.IN_PROGRESS
        floor.wait_for(task_id, Status.CANCELLED)


# -- people ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["token", "jwt"])
def test_a_person_s_worker_has_their_tasks_alone(stack: LocalStack, kind: str) -> None:
    anna, ben = stack.person(), stack.person()
    with ExitStack() as open_stores:

        def store_of(token: str) -> SupabaseStore:
            settings = Settings(db_type="supabase", supabase_url=stack.url, supabase_access_token=token)
            return open_stores.enter_context(closing(SupabaseStore(EdgeFunctions.of(settings))))

        service = store_of(stack.service_key)
        hers, his = (
            store_of(person.access_token if kind == "token" else stack.jwt_of(person)) for person in (anna, ben)
        )
        ours, theirs = (
            store.add(NewTask(task_type="t2v", params={}, project_id=person.project_id))
            for store, person in ((hers, anna), (his, ben))
        )
        [claimed] = hers.claim("anna-1", lease_s=60, limit=10)
        assert claimed.id == ours
        assert hers.heartbeat("anna-1", [claimed.claim], lease_s=60).lost == frozenset()
        assert not hers.progress(claimed.claim, {"phase": "loading"}, event="loading")
        with pytest.raises(TaskNotFound):
            his.get(ours)
        with pytest.raises(TaskNotFound):
            his.cancel(ours)
        with pytest.raises(StaleClaim):
            his.fail(claimed.claim, "mine now", error_class="engine")
        assert [task.id for task in his.tasks()] == [theirs]
        hers.complete(claimed.claim, "https://elsewhere.example/a.mp4")
        assert service.get(ours).status is Status.COMPLETE
        assert hers.counts()[Status.COMPLETE] == 1
        assert his.counts()[Status.COMPLETE] == 0
