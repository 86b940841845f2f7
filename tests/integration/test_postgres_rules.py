"""What every row of the Postgres tables obeys, whoever writes it, and what the migrations are."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from postgres_server import MIGRATIONS, Connection, Database, call, server
from postgres_server import database as database
from postgres_server import shared_database as shared_database
from postgres_store import PostgresStore, held
from postgres_store import store as store

from source.errors import StaleClaim
from source.store.types import NewTask, Status, new_id

SOMEBODY = "aaaaaaaa-0000-4000-8000-000000000001"
HELD = {"worker_id": "'w'", "claimed_at": "now()", "lease_expires_at": "now()"}


def state_of(error: pytest.ExceptionInfo[psycopg.Error]) -> str | None:
    return error.value.sqlstate


def become(status: str, task_id: str) -> bytes:
    """A plain update, as a front end might write it."""
    held = ", ".join(f"{name} = {value}" for name, value in HELD.items())
    also = f", {held}" if status == "In Progress" else ""
    return f"update public.tasks set status = '{status}'{also} where id = '{task_id}'".encode()


def a_row(store: PostgresStore, **values: Any) -> str:
    return store.add(NewTask(task_type="t2v", params={"prompt": "x"}, **values))


@pytest.mark.parametrize("missing", HELD)
def test_nobody_is_in_progress_without_a_worker_and_an_end(store: PostgresStore, missing: str) -> None:
    """Not even the service key can make a phantom."""
    task_id = a_row(store)
    held = {name: value for name, value in HELD.items() if name != missing}
    assignments = ", ".join(f"{name} = {value}" for name, value in held.items())
    with store.database.acting("service_role") as service:
        for statement in (
            f"update public.tasks set status = 'In Progress', {assignments} where id = '{task_id}'",
            "insert into public.tasks (task_type, params, status) values ('t2v', '{}', 'In Progress')",
        ):
            with pytest.raises(psycopg.errors.CheckViolation, match="tasks_in_progress_is_held"):
                service.execute(statement.encode())


def test_a_waiting_row_is_in_progress_and_has_no_lease(store: PostgresStore) -> None:
    a_row(store)
    [task] = store.claim("w", lease_s=60)
    with store.database.acting("service_role") as service:
        with pytest.raises(psycopg.errors.CheckViolation, match="tasks_waiting"):
            service.execute("update public.tasks set waiting = true where id = %s", (task.id,))
        service.execute("update public.tasks set status = 'Cancelled' where id = %s", (task.id,))
    ended = store.get(task.id)
    assert (ended.lease_expires_at, ended.waiting) == (None, False)
    assert ended.generation_processed_at is not None


def test_a_claim_number_counts_claims_and_cannot_be_set(store: PostgresStore) -> None:
    task_id = a_row(store)
    with store.database.acting("service_role") as service:
        service.execute("update public.tasks set claim_number = 40 where id = %s", (task_id,))
        assert store.get(task_id).claim_number == 0
        held = ", ".join(f"{name} = {value}" for name, value in HELD.items())
        service.execute(
            f"update public.tasks set status = 'In Progress', claim_number = 7, {held} where id = '{task_id}'".encode()
        )
        assert store.get(task_id).claim_number == 1
        service.execute("insert into public.tasks (task_type, params, claim_number) values ('t2v', '{}', 9)")
    assert sorted(task.claim_number for task in store.tasks()) == [0, 1]


@pytest.mark.parametrize(
    ("reach", "allowed"),
    [
        ("Queued", {"Queued", "In Progress", "Failed", "Cancelled"}),
        ("In Progress", {"Queued", "In Progress", "Complete", "Failed", "Cancelled"}),
        ("Failed", {"Queued", "Failed"}),
        ("Complete", {"Complete"}),
        ("Cancelled", {"Cancelled"}),
    ],
)
def test_only_some_changes_of_status_exist(store: PostgresStore, reach: str, allowed: set[str]) -> None:
    way = {"Queued": [], "In Progress": ["In Progress"]}.get(reach, ["In Progress", reach])
    with store.database.acting("service_role") as service:
        for wanted in ("Queued", "In Progress", "Complete", "Failed", "Cancelled"):
            task_id = a_row(store)
            for step in way:
                service.execute(become(step, task_id))
            if wanted in allowed:
                service.execute(become(wanted, task_id))
                assert store.get(task_id).status == wanted
            else:
                with pytest.raises(psycopg.Error, match=f"is {reach}, it cannot become {wanted}") as error:
                    service.execute(become(wanted, task_id))
                assert state_of(error) == "PT422"


ERRORS: dict[str, tuple[str, Callable[[Connection, str], object]]] = {
    "stale": ("PT409", lambda db, task: call(db, "release_task", p_task_id=task, p_worker_id="w", p_claim_number=9)),
    "no number": ("PT409", lambda db, task: call(
        db, "complete_task", p_task_id=task, p_worker_id="w", p_claim_number=None, p_output_location="x")),
    "no row": ("PT404", lambda db, _: call(db, "get_task", p_task_id="00000000-0000-4000-8000-000000000001")),
    "no id": ("PT400", lambda db, _: call(db, "add_tasks", p_tasks=json.dumps(
        [{"id": "mine", "task_type": "t2v", "params": {}}]))),
    "no type": ("PT400", lambda db, _: call(db, "add_tasks", p_tasks='[{"params": {}}]')),
    "no params": ("PT400", lambda db, _: call(db, "add_tasks", p_tasks='[{"task_type": "t2v", "params": []}]')),
    "no list": ("PT400", lambda db, _: call(db, "add_tasks", p_tasks="{}")),
    "no project": ("PT403", lambda db, task: call(db, "add_tasks", p_tasks=json.dumps(
        [{"task_type": "t2v", "params": {}, "project_id": task}]))),
    "no worker": ("PT400", lambda db, _: call(db, "claim_tasks", p_worker_id="", p_lease_s=9)),
}  # fmt: skip


@pytest.mark.parametrize("what", ERRORS)
def test_each_kind_of_error_has_its_state(store: PostgresStore, what: str) -> None:
    task_id = a_row(store)
    state, ask = ERRORS[what]
    with store.database.acting("service_role") as service, pytest.raises(psycopg.Error) as error:
        ask(service, task_id)
    assert state_of(error) == state
    assert store.counts() == {status: int(status == "Queued") for status in store.counts()}


def test_a_bare_id_and_repetitions_are_read_as_a_list(store: PostgresStore) -> None:
    first = a_row(store)
    with store.database.acting("service_role") as service:
        [bare, twice] = call(service, "add_tasks", p_tasks=json.dumps([
            {"task_type": "t2v", "params": {}, "dependant_on": first},
            {"task_type": "t2v", "params": {}, "dependant_on": [first, first, None]}]))  # fmt: skip
    assert store.get(bare).dependant_on == store.get(twice).dependant_on == (first,)


def test_a_completion_makes_one_generation(store: PostgresStore) -> None:
    a_row(store)
    [task] = store.claim("w", lease_s=60)
    for _ in range(2):
        store.complete(task.claim, "https://files/a.mp4", result_data={"thumbnail_url": "https://files/a.jpg"})
    with store.database.acting("service_role") as service:
        rows = service.execute("select task_id::text, type, location, thumbnail_url from public.generations").fetchall()
    assert rows == [(task.id, "video", "https://files/a.mp4", "https://files/a.jpg")]


def test_two_last_children_that_end_at_once_end_their_parent(store: PostgresStore) -> None:
    """Under snapshots each would see the other still running."""
    parent = a_row(store)
    [claimed] = store.claim("w", lease_s=60)
    children = [NewTask.child(claimed, f"segment:{i}", "t2v", {}) for i in range(2)]
    store.fan_out(claimed.claim, children, final_child=children[1].id)
    one, two = (task.claim for task in store.claim("w", lease_s=60, limit=2))
    other = PostgresStore(store.database)
    with pytest.raises(psycopg.errors.LockNotAvailable), store.connection.transaction():
        call(store.connection, "complete_task", **held(one), p_output_location="a")
        with other.database.acting("service_role") as impatient:
            impatient.execute("set lock_timeout = '100ms'")
            call(impatient, "complete_task", **held(two), p_output_location="b")
    store.complete(one, "a")
    other.complete(two, "b")
    assert store.get(parent).output_location == "b"


def test_what_is_added_while_its_dependency_fails_waits_and_is_refused(store: PostgresStore) -> None:
    """The cascade would not see the new row, and the row not the failure."""
    first = a_row(store)
    [task] = store.claim("w", lease_s=60)
    entry = json.dumps([{"task_type": "t2v", "params": {}, "dependant_on": first}])
    with store.database.acting("service_role") as adding:
        adding.execute("set lock_timeout = '100ms'")
        with store.connection.transaction():
            store.fail(task.claim, "boom", error_class="engine")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                call(adding, "add_tasks", p_tasks=entry)
        with pytest.raises(psycopg.Error, match=f"task {first} is Failed"):
            call(adding, "add_tasks", p_tasks=entry)


def test_a_failure_waits_for_what_is_just_being_added_and_takes_it_along(store: PostgresStore) -> None:
    first = a_row(store)
    [task] = store.claim("w", lease_s=60)
    with store.database.acting("service_role") as failing:
        failing.execute("set lock_timeout = '100ms'")
        with store.connection.transaction():
            after = a_row(store, dependant_on=(first,))
            with pytest.raises(psycopg.errors.LockNotAvailable):
                call(failing, "fail_task", **held(task.claim), p_message="boom", p_error_class="engine")
    store.fail(task.claim, "boom", error_class="engine")
    assert store.get(after).status == "Failed"


def test_a_worker_that_lost_its_row_is_told_by_whom(store: PostgresStore) -> None:
    a_row(store)
    [stale] = store.claim("w1", lease_s=-1)
    store.claim("w2", lease_s=60)
    with pytest.raises(StaleClaim, match=r"claimed by w2 \(claim 2\)"):
        store.complete(stale.claim, "x")


# -- the migrations themselves --------------------------------------------------------------------------------------


def test_every_function_pins_its_search_path(database: Database) -> None:
    with database.acting() as superuser:
        rows = superuser.execute("""
            select oid::regprocedure::text from pg_proc
            where pronamespace in ('public'::regnamespace, 'private'::regnamespace)
                and not coalesce('search_path=""' = any (proconfig), false)""").fetchall()
    assert rows == []


def test_every_table_has_row_level_security(database: Database) -> None:
    with database.acting() as superuser:
        tables = superuser.execute("""
            select relname, relrowsecurity from pg_class
            where relkind = 'r' and relnamespace in ('public'::regnamespace, 'private'::regnamespace)""").fetchall()
    assert len(tables) >= 15
    assert [name for name, secured in tables if not secured] == []


def test_the_migrations_apply_in_order_on_a_bare_project_and_are_refused_a_second_time() -> None:
    bare = server().bare()
    with bare.acting() as owner:
        owner.execute("set session authorization project_owner")
        for migration in MIGRATIONS:
            with owner.transaction():
                owner.execute(migration.read_bytes())
        with pytest.raises(psycopg.errors.DuplicateSchema), owner.transaction():
            owner.execute(MIGRATIONS[0].read_bytes())
    assert PostgresStore(bare).counts()["Queued"] == 0
    server().drop(bare)


# What hosted Supabase Storage has of tables, as far as it matters here.
STORAGE = """
create schema storage;
create table storage.buckets (id text primary key, name text not null unique, public boolean default false);
create table storage.objects (id uuid primary key default gen_random_uuid(), bucket_id text, name text);
alter table storage.buckets enable row level security;
alter table storage.objects enable row level security;
grant usage on schema storage to anon, authenticated, service_role, project_owner;
grant all on storage.buckets, storage.objects to anon, authenticated, service_role, project_owner;
"""


@pytest.mark.parametrize("chosen", [None, False])
def test_on_hosted_storage_the_bucket_is_made_once_and_nobody_writes_past_it(chosen: bool | None) -> None:
    bare = server().bare()
    with bare.acting() as owner:
        owner.execute(STORAGE.encode())
        if chosen is not None:
            owner.execute("insert into storage.buckets values ('image_uploads', 'image_uploads', %s)", (chosen,))
        owner.execute("set session authorization project_owner")
        for migration in MIGRATIONS:
            with owner.transaction():
                owner.execute(migration.read_bytes())
        assert owner.execute("select name, public from storage.buckets").fetchall() == [
            ("image_uploads", chosen is None)
        ]
    for role in ("anon", "authenticated"):
        with bare.acting(role, SOMEBODY) as caller, pytest.raises(psycopg.errors.InsufficientPrivilege):
            caller.execute("insert into storage.objects (bucket_id, name) values ('image_uploads', 'x')")
    server().drop(bare)


def chained(store: PostgresStore, length: int) -> list[str]:
    ids = [new_id() for _ in range(length)]
    rows = [
        NewTask(id=task_id, task_type="t2v", params={}, dependant_on=tuple(ids[:place][-1:]))
        for place, task_id in enumerate(ids)
    ]
    return store.add_many(rows)


@pytest.mark.slow
@pytest.mark.alone
def test_a_long_chain_ends_and_starts_again_in_less_time_than_it_took_to_add(store: PostgresStore) -> None:
    """By one statement for all of it; one for each row took longer than a hosted project lets a statement run."""
    began = time.perf_counter()
    ids = chained(store, 600)
    added_s = time.perf_counter() - began
    failing_s, retrying_s = [], []
    why = f"Not run, because t2v {ids[0]}, on which it depends, failed: boom"
    for _ in range(3):
        [task] = store.claim("w", lease_s=60)
        began = time.perf_counter()
        store.fail(task.claim, "boom", error_class="engine")
        failing_s.append(time.perf_counter() - began)
        last = store.get(ids[-1])
        assert (last.status, last.error_class, last.error_message) == (Status.FAILED, "dependency", why)
        assert store.counts()[Status.FAILED] == 600
        began = time.perf_counter()
        store.retry(ids[0])
        retrying_s.append(time.perf_counter() - began)
        assert store.counts()[Status.QUEUED] == 600
    assert max(min(failing_s), min(retrying_s)) < added_s


def test_what_follows_several_causes_names_the_first_and_children_follow_too(store: PostgresStore) -> None:
    first, second = a_row(store), a_row(store)
    both = a_row(store, dependant_on=(second, first))
    parent = a_row(store, dependant_on=(first,))
    child = a_row(store, parent_id=parent, child_key="a:0", dependant_on=(second,))
    grandchild = a_row(store, dependant_on=(child,))
    claims = {task.id: task.claim for task in store.claim("w", lease_s=60, limit=9)}
    store.fail(claims[first], "boom", error_class="engine")
    why = f"Not run, because t2v {first}, on which it depends, failed: boom"
    found = {task_id: store.get(task_id) for task_id in (both, parent, child, grandchild)}
    assert {row.error_message for row in found.values()} == {why}
    classes = {task_id: row.error_class for task_id, row in found.items()}
    assert classes == {both: "dependency", parent: "dependency", child: "parent", grandchild: "dependency"}
    store.cancelled(claims[second])
    assert store.get(both).status is Status.FAILED
    store.retry(first)
    again = {task_id: store.get(task_id).status for task_id in found}
    assert again.pop(parent) is Status.QUEUED
    assert set(again.values()) == {Status.CANCELLED}, "they wait for the other one too"
