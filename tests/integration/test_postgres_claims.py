"""Claims on Postgres: many at once, on a long history, within the limits of people, with a bounded preference for the
loaded model."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from postgres_server import Database, call
from postgres_server import database as database
from postgres_server import shared_database as shared_database
from postgres_store import PostgresStore
from postgres_store import store as store

from source.store.types import NewTask

ANNA, HERS = "aaaaaaaa-0000-4000-8000-000000000001", "aaaaaaaa-0000-4000-8000-00000000000a"
BEN, HIS = "bbbbbbbb-0000-4000-8000-000000000002", "bbbbbbbb-0000-4000-8000-00000000000b"


# -- answers that got lost -------------------------------------------------------------------------------------------


def beat(database: Database, claims: list[dict[str, Any]], **more: Any) -> Any:
    with database.acting("service_role") as service:
        return call(service, "worker_heartbeat", p_worker_id="w", p_claims=json.dumps(claims), p_lease_s=600, **more)


def test_a_claim_that_its_worker_does_not_know_of_goes_back_to_the_queue(
    database: Database, store: PostgresStore
) -> None:
    store.add_many([NewTask(task_type="t2v", params={"n": n}) for n in range(2)])
    [known] = store.claim("w", lease_s=600)
    [unknown] = store.claim("w", lease_s=600)
    [others] = store.add_many([NewTask(task_type="t2v", params={})])
    [elsewhere] = store.claim("another", lease_s=600)
    named = [{"task_id": known.id, "claim_number": 1}]
    assert beat(database, named) == {"lost": [], "cancel_requested": []}
    assert store.get(unknown.id).status == "In Progress", "its answer may still be on the way"
    assert beat(database, named, p_unknown_after_s=None) == {"lost": [], "cancel_requested": []}
    assert store.get(unknown.id).status == "In Progress"
    assert beat(database, named, p_unknown_after_s=0) == {"lost": [], "cancel_requested": []}
    assert [store.get(task).status for task in (known.id, unknown.id, others)] == [
        "In Progress",
        "Queued",
        "In Progress",
    ]
    assert store.get(unknown.id).attempts == 0
    assert [event.name for event in store.events(unknown.id)][-2:] == ["unanswered", "released"]
    assert elsewhere.id == others
    [again] = store.claim("w", lease_s=600)
    assert (again.id, again.claim_number) == (unknown.id, 2)


# -- many at once ---------------------------------------------------------------------------------------------------


def race(database: Database, claimers: int, tasks: int) -> float:
    """All claim one by one and complete until nothing is left; returns the seconds. No row is handed out twice."""
    store = PostgresStore(database)
    store.add_many([NewTask(task_type="t2v", params={"n": n}, priority=n % 3) for n in range(tasks)])
    start = threading.Barrier(claimers)

    def work(number: int) -> list[str]:
        own = PostgresStore(database)
        start.wait()
        taken = []
        while claimed := own.claim(f"worker-{number}", lease_s=600, loaded_model="wan" if number % 2 else None):
            taken += [task.id for task in claimed]
            for task in claimed:
                assert task.claim_number == 1
                own.complete(task.claim, f"files/{number}.mp4")
        return taken

    started = time.perf_counter()
    with ThreadPoolExecutor(claimers) as pool:
        taken = [task_id for ids in pool.map(work, range(claimers)) for task_id in ids]
    spent_s = time.perf_counter() - started
    assert len(taken) == len(set(taken)) == tasks
    assert store.counts() == {status: tasks * (status == "Complete") for status in store.counts()}
    return spent_s


def test_many_claimers_never_get_the_same_row(database: Database) -> None:
    race(database, claimers=8, tasks=200)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_32_claimers_share_10000_tasks_without_duplicates(database: Database) -> None:
    spent_s = race(database, claimers=32, tasks=10_000)
    print(f"32 claimers, 10000 tasks: {10_000 / spent_s:.0f} claims and completions a second")


def test_a_claim_passes_by_rows_that_another_is_just_taking(store: PostgresStore) -> None:
    first, second = store.add_many([NewTask(task_type="t2v", params={}) for _ in range(2)])
    with store.connection.transaction():
        assert [task.id for task in store.claim("w1", lease_s=60)] == [first]
        assert [task.id for task in PostgresStore(store.database).claim("w2", lease_s=60, limit=9)] == [second]


# -- people ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def people(store: PostgresStore) -> PostgresStore:
    """Anna has 7 queued tasks, Ben 2, the installation 1."""
    with store.database.acting("service_role") as service:
        service.execute("insert into public.users (id) values (%s), (%s)", (ANNA, BEN))
        service.execute("insert into public.projects (id, user_id) values (%s, %s), (%s, %s)", (HERS, ANNA, HIS, BEN))
    for project, count in ((HERS, 7), (HIS, 2)):
        store.add_many([NewTask(task_type="t2v", params={}, project_id=project) for _ in range(count)])
    store.add(NewTask(task_type="t2v", params={}))
    return store


def owners(store: PostgresStore, **options: Any) -> str:
    """Whose rows one claim after the other hands out."""
    letters = ""
    while claimed := store.claim("w", lease_s=60, **options):
        letters += {HERS: "A", HIS: "B"}.get(claimed[0].project_id, "-")
    return letters


def set_user(store: PostgresStore, person: str, **columns: Any) -> None:
    with store.database.acting("service_role") as service:
        for name, value in columns.items():
            service.execute(f"update public.users set {name} = %s where id = %s".encode(), (value, person))


def test_nobody_has_more_than_5_tasks_running(people: PostgresStore) -> None:
    assert owners(people) == "-ABABAAA"
    with people.database.acting("service_role") as service:
        [[row]] = service.execute("select (public.count_queued_tasks_breakdown_service_role())::text").fetchall()
    assert row == "(0,2,0,0,2)"
    [done, *_] = [task for task in people.tasks() if task.status == "In Progress" and task.project_id == HERS]
    people.complete(done.claim, None)
    assert owners(people) == "A"


def test_the_limit_of_a_person_holds_within_one_claim_too(people: PostgresStore) -> None:
    claimed = people.claim("w", lease_s=60, limit=9)
    assert [task.project_id for task in claimed].count(HERS) == 5


def test_the_projects_of_a_person_share_their_turn(people: PostgresStore) -> None:
    """Also one that changed hands after its rows were queued."""
    another = "aaaaaaaa-0000-4000-8000-00000000000f"
    with people.database.acting("service_role") as service:
        service.execute("insert into public.projects (id) values (%s)", (another,))
        people.add_many([NewTask(task_type="t2v", params={}, project_id=another) for _ in range(2)])
        service.execute("update public.projects set user_id = %s where id = %s", (ANNA, another))
    taken = [task.project_id for task in people.claim("w", lease_s=60, limit=5)]
    assert len([project for project in taken if project in (HERS, another)]) == 2


def test_orchestrators_and_waiting_parents_do_not_count(people: PostgresStore) -> None:
    set_user(people, BEN, max_in_progress=1)
    people.add(NewTask(task_type="travel_orchestrator", params={}, project_id=HIS, priority=9))
    parent = people.add(NewTask(task_type="t2v", params={}, project_id=HIS, priority=8))
    orchestrator, running = people.claim("w", lease_s=60)[0], people.claim("w", lease_s=60)[0]
    assert (orchestrator.task_type, running.id) == ("travel_orchestrator", parent)
    assert "B" not in owners(people)
    child = NewTask.child(running, "segment:0", "t2v", {})
    people.fan_out(running.claim, [child], final_child=child.id)
    assert people.claim("w", lease_s=60)[0].project_id == HIS


def test_credits_and_settings_hold_rows_back(people: PostgresStore) -> None:
    set_user(people, ANNA, credits=0)
    set_user(people, BEN, settings=json.dumps({"ui": {"generationMethods": {"inCloud": False}}}))
    assert owners(people) == "-"
    set_user(people, ANNA, credits=0.5)
    assert owners(people) == "AAAAA"


def test_a_person_s_own_worker_needs_no_credits_and_obeys_on_computer(people: PostgresStore) -> None:
    set_user(people, ANNA, credits=0)
    set_user(people, BEN, settings=json.dumps({"ui": {"generationMethods": {"onComputer": False}}}))
    hers = PostgresStore(people.database, role="authenticated", person=ANNA)
    his = PostgresStore(people.database, role="authenticated", person=BEN)
    assert len(hers.claim("anna-box", lease_s=60, limit=9)) == 7
    assert his.claim("ben-box", lease_s=60, limit=9) == []


def test_run_types_and_inactive_types_are_respected(store: PostgresStore) -> None:
    with store.database.acting("service_role") as service:
        service.execute("insert into public.task_types (name, run_type) values ('remote', 'api')")
        service.execute("insert into public.task_types (name, is_active) values ('retired', false)")
        for task_type in ("retired", "remote", "unheard_of"):
            store.add(NewTask(task_type=task_type, params={}))
        row = service.execute("select public.claim_tasks('w', 60, 9, p_run_type => 'gpu')").fetchone()
        assert row is not None and [task["task_type"] for task in row[0]] == ["unheard_of"]
        row = service.execute("select public.claim_tasks('w', 60, 9, p_run_type => 'api')").fetchone()
        assert row is not None and [task["task_type"] for task in row[0]] == ["remote"]
        service.execute("delete from public.task_types where name in ('remote', 'retired')")


# -- the loaded model -----------------------------------------------------------------------------------------------


def test_the_loaded_model_passes_an_older_row_by_8_times_and_no_more(store: PostgresStore) -> None:
    cold = store.add(NewTask(task_type="t2v", params={"model": "flux"}))
    store.add_many([NewTask(task_type="t2v", params={"model": "wan"}) for _ in range(20)])
    taken = [store.claim("w", lease_s=60, loaded_model="wan")[0] for _ in range(12)]
    assert [task.id for task in taken].index(cold) == 8


def test_a_deadlock_is_impossible_between_heartbeats_cancels_and_completions(store: PostgresStore) -> None:
    """Children complete, fail and are cancelled together with their parents, while heartbeats hold several rows."""
    for _ in range(6):
        store.add(NewTask(task_type="travel_orchestrator", params={}))
    parents = store.claim("w", lease_s=600, limit=6)
    for parent in parents:
        children = [NewTask.child(parent, f"segment:{i}", "t2v", {}) for i in range(4)]
        store.fan_out(parent.claim, children, final_child=children[-1].id)
    claims = [task.claim for task in store.claim("w", lease_s=600, limit=24)]
    ends = [
        *[lambda own, claim=claim: own.complete(claim, "x") for claim in claims[::2]],
        *[lambda own, claim=claim: own.fail(claim, "boom", error_class="engine") for claim in claims[1::2]],
        *[lambda own, parent=parent: own.cancel(parent.id) for parent in parents],
        *[lambda own: own.heartbeat("w", claims, lease_s=600) for _ in range(12)],
        *[lambda own: own.rescue() for _ in range(6)],
    ]

    def run(end: Any) -> None:
        own = PostgresStore(store.database)
        end(own)
        own.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(run, ends[::3] + ends[1::3] + ends[2::3]))
    assert store.idle()


def test_a_lost_connection_gives_the_rows_back(store: PostgresStore) -> None:
    """A claim whose transaction never committed never was."""
    added = store.add(NewTask(task_type="t2v", params={}))
    other = store.database.connect("service_role")
    other.execute("begin")
    other.execute("select public.claim_tasks('w1', 60)")
    pid = other.info.backend_pid
    with store.database.acting() as superuser:
        superuser.execute("select pg_terminate_backend(%s, 5000)", (pid,))
    with pytest.raises(psycopg.OperationalError):
        other.execute("select 1")
    [task] = store.claim("w2", lease_s=60)
    assert (task.id, task.claim_number) == (added, 1)
