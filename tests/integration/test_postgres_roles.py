"""Who may do what on Postgres: anon nothing, a person what is theirs, the service everything."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from postgres_server import DEFAULT_PROJECT, Connection, Database, call
from postgres_server import database as database
from postgres_server import shared_database as shared_database

ANNA, BEN = "aaaaaaaa-0000-4000-8000-000000000001", "bbbbbbbb-0000-4000-8000-000000000002"
HERS, HIS = "aaaaaaaa-0000-4000-8000-00000000000a", "bbbbbbbb-0000-4000-8000-00000000000b"
QUEUED, RUNNING = "bbbbbbbb-0000-4000-8000-0000000000c1", "bbbbbbbb-0000-4000-8000-0000000000c2"
FAILED, OURS = "bbbbbbbb-0000-4000-8000-0000000000c3", "cccccccc-0000-4000-8000-0000000000c4"
HIS_SHOT, HIS_IMAGE = "bbbbbbbb-0000-4000-8000-0000000000d1", "bbbbbbbb-0000-4000-8000-0000000000d2"
TABLES = ("users", "projects", "user_api_tokens", "task_types", "workers", "tasks", "task_events", "generations",
          "system_logs", "worker_samples", "task_uploads", "shots", "shot_generations", "task_previews")  # fmt: skip


def held(task_id: str = RUNNING, worker_id: str = "ben-box", claim_number: int = 1) -> dict[str, Any]:
    return {"p_task_id": task_id, "p_worker_id": worker_id, "p_claim_number": claim_number}


def child_of_his() -> str:
    child = {"task_type": "t2v", "params": {}, "project_id": HERS, "parent_id": RUNNING, "child_key": "a:0"}
    return json.dumps([child])


@pytest.fixture
def people(database: Database) -> Database:
    """Anna with nothing but a project; Ben with a queued, a running and a failed task; one of the installation."""
    with database.acting("service_role") as service:
        service.execute("insert into public.users (id) values (%s), (%s)", (ANNA, BEN))
        service.execute("insert into public.projects (id, user_id) values (%s, %s), (%s, %s)", (HERS, ANNA, HIS, BEN))
    with database.acting("authenticated", BEN) as ben:
        his = [{"id": task_id, "task_type": "t2v", "params": {}, "project_id": HIS} for task_id in (RUNNING, FAILED)]
        call(ben, "add_tasks", p_tasks=json.dumps(his))
        assert len(call(ben, "claim_tasks", p_worker_id="ben-box", p_lease_s=600, p_limit=9)) == 2
        call(ben, "fail_task", **held(FAILED), p_message="boom", p_error_class="engine")
        ben.execute("insert into public.tasks (id, task_type, params, project_id) values (%s, 't2v', '{}', %s)",
                    (QUEUED, HIS))  # fmt: skip
        call(ben, "worker_heartbeat", p_worker_id="ben-box", p_claims="[]", p_lease_s=600,
             p_logs=json.dumps([{"message": "hello", "task_id": RUNNING}, {"message": "idle"}]),
             p_sample='{"rss": 1}')  # fmt: skip
        call(ben, "create_api_token", p_name="laptop")
        call(ben, "show_preview", **held(), p_step=1, p_media_type="image/webp", p_image="AAAA")
        call(ben, "declare_upload", **held(), p_filename="a.mp4")
        ben.execute("insert into public.generations (id, project_id, type, location) values (%s, %s, 'image', 'y')",
                    (HIS_IMAGE, HIS))  # fmt: skip
        ben.execute("insert into public.shots (id, project_id) values (%s, %s)", (HIS_SHOT, HIS))
        ben.execute("insert into public.shot_generations (shot_id, generation_id, timeline_frame) values (%s, %s, 0)",
                    (HIS_SHOT, HIS_IMAGE))  # fmt: skip
    with database.acting("service_role") as service:
        service.execute("insert into public.tasks (id, task_type, params) values (%s, 't2v', '{}')", (OURS,))
        service.execute("insert into public.generations (task_id, project_id, location) values (%s, %s, 'x')",
                        (FAILED, HIS))  # fmt: skip
    return database


def everything(database: Database) -> dict[str, Any]:
    """All rows, to see that nothing has changed."""
    with database.acting() as superuser:
        found: dict[str, Any] = {}
        for table in TABLES:
            statement = f"select jsonb_agg(t order by t::text) from public.{table} as t"
            [[found[table]]] = superuser.execute(statement.encode()).fetchall()
    return found


# -- reading --------------------------------------------------------------------------------------------------------

VISIBLE = {
    #                   anna ben service
    "users":           (1, 1, 2),
    "projects":        (1, 1, 3),
    "user_api_tokens": (None, None, 1),
    "workers":         (0, 1, 1),
    "tasks":           (0, 3, 4),
    "generations":     (0, 2, 2),
    "system_logs":     (0, 2, 2),
    "worker_samples":  (0, 1, 1),
    "task_uploads":    (0, 1, 1),
    "shots":           (0, 1, 1),
    "shot_generations": (0, 1, 1),
}  # fmt: skip


@pytest.mark.parametrize("table", [*TABLES])
def test_anon_sees_nothing(people: Database, table: str) -> None:
    with people.acting("anon") as anon:
        for statement in (f"select * from public.{table}", f"delete from public.{table}"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                anon.execute(statement.encode())


def test_anon_may_call_nothing(people: Database) -> None:
    with people.acting() as superuser:
        rows = superuser.execute("""
            select oid::regprocedure::text from pg_proc
            where pronamespace in ('public'::regnamespace, 'private'::regnamespace)
                and has_function_privilege('anon', oid, 'execute')""").fetchall()
    assert rows == []


@pytest.mark.parametrize("table", VISIBLE)
def test_a_person_sees_their_own_rows_and_the_service_all(people: Database, table: str) -> None:
    who = (("authenticated", ANNA), ("authenticated", BEN), ("service_role", None))
    for (role, person), count in zip(who, VISIBLE[table], strict=True):
        with people.acting(role, person) as connection:
            statement = f"select count(*) from public.{table}".encode()
            if count is None:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement)
            else:
                assert connection.execute(statement).fetchone() == (count,)


def test_the_circumstances_of_a_row_name_to_a_person_nothing_of_others(people: Database) -> None:
    with people.acting("service_role") as service:
        call(service, "worker_heartbeat", p_worker_id="secret-box", p_claims="[]", p_lease_s=60)
    with people.acting("authenticated", BEN) as ben:
        found = call(ben, "task_circumstances", p_task_id=QUEUED)
        assert {worker["id"] for worker in found["workers"]} <= {"ben-box", "a worker of the service"}
        assert {row["id"] for row in found["running"]} == {RUNNING}
        assert found["ahead"]["others"] == [1]
    with people.acting("authenticated", ANNA) as anna, pytest.raises(psycopg.Error, match="there is no task"):
        call(anna, "task_circumstances", p_task_id=QUEUED)


def test_the_reading_functions_show_a_person_nothing_of_others(people: Database) -> None:
    with people.acting("authenticated", ANNA) as anna:
        assert call(anna, "list_tasks") == call(anna, "list_workers") == call(anna, "select_tasks") == []
        assert call(anna, "select_tasks", p_run=RUNNING) == []
        assert call(anna, "list_logs") == call(anna, "list_samples") == call(anna, "queue_depths") == []
        assert call(anna, "throughput", p_since_s=60, p_bucket_s=60) == []
        assert call(anna, "task_timeline", p_task_id=RUNNING) == []
        assert call(anna, "open_tasks") == call(anna, "latest_change") == call(anna, "creations_in_last_minute") == 0
        assert call(anna, "orchestrator_children", p_orchestrator_task_id=RUNNING) == []
        assert call(anna, "declared_uploads", p_task_id=RUNNING) == []
        counts = call(anna, "task_counts")
        assert counts["queued_tasks"] == counts["active_tasks"] == counts["workers"] == []
        assert set(counts["totals"].values()) == {0} and "users" not in counts
        assert set(call(anna, "count_tasks").values()) == {0}
        with pytest.raises(psycopg.Error, match="there is no task") as error:
            call(anna, "get_task", p_task_id=RUNNING)
        assert error.value.sqlstate == "PT404"
    with people.acting("authenticated", BEN) as ben:
        assert len(call(ben, "list_tasks")) == 3
        assert call(ben, "open_tasks") == 2
        assert [event["name"] for event in call(ben, "task_timeline", p_task_id=RUNNING)] == ["queued", "claimed"]


# -- writing --------------------------------------------------------------------------------------------------------

# What Anna tries on Ben's rows, knowing every id, worker name and claim number; and the state of the refusal.
ATTEMPTS: dict[str, tuple[str, Callable[[Connection], object]]] = {
    "generation_started": ("PT409", lambda db: call(db, "generation_started", **held())),
    "progress": ("PT409", lambda db: call(db, "task_progress", **held(), p_progress="{}")),
    "note": ("PT409", lambda db: call(db, "task_note", **held(), p_name="a", p_detail="b")),
    "fan out": ("PT409", lambda db: call(db, "fan_out_task", **held(), p_children="[]", p_final_child=QUEUED)),
    "complete": ("PT409", lambda db: call(db, "complete_task", **held(), p_output_location="hers")),
    "fail": ("PT409", lambda db: call(db, "fail_task", **held(), p_message="x", p_error_class="x")),
    "retry later": ("PT409", lambda db: call(
        db, "retry_task_later", **held(), p_message="x", p_error_class="x", p_delay_s=0)),
    "release": ("PT409", lambda db: call(db, "release_task", **held())),
    "cancelled": ("PT409", lambda db: call(db, "task_cancelled", **held())),
    "declare": ("PT409", lambda db: call(db, "declare_upload", **held(), p_filename="b.mp4")),
    "claim state": ("PT409", lambda db: call(db, "claim_state", **held())),
    "cancel": ("PT404", lambda db: call(db, "cancel_task", p_task_id=QUEUED)),
    "retry": ("PT404", lambda db: call(db, "retry_task", p_task_id=FAILED)),
    "pause": ("PT404", lambda db: call(db, "pause_task", p_task_id=QUEUED)),
    "resume": ("PT404", lambda db: call(db, "resume_task", p_task_id=QUEUED)),
    "requeue": ("PT404", lambda db: call(db, "requeue_task", p_task_id=RUNNING)),
    "older update": ("PT404", lambda db: call(db, "func_update_task_status", p_task_id=QUEUED, p_status="Cancelled")),
    "older completion": ("PT404", lambda db: call(
        db, "complete_task_with_timing", p_task_id=RUNNING, p_output_location="hers")),
    "older failure": ("PT404", lambda db: call(db, "func_mark_task_failed", p_task_id=RUNNING, p_error_message="x")),
    "analyse for him": ("PT403", lambda db: call(db, "analyze_task_availability_user_pat", p_user_id=BEN)),
    "analyse all": ("42501", lambda db: call(db, "analyze_task_availability_service_role")),
    "claim what is available": ("42501", lambda db: db.execute("select public.func_claim_available_task('anna')")),
    "his prompts": ("PT404", lambda db: call(
        db, "update_shot_pair_prompts", p_shot_id=HIS_SHOT, p_enhanced_prompts=["hers"])),
    "a shot in his project": ("42501", lambda db: db.execute(
        "insert into public.shots (project_id) values (%s)", (HIS,))),
    "an image in his shot": ("42501", lambda db: db.execute(
        "insert into public.shot_generations (shot_id, generation_id) values (%s, %s)", (HIS_SHOT, HIS_IMAGE))),
    "an image in his project": ("42501", lambda db: db.execute(
        "insert into public.generations (project_id, location) values (%s, 'hers')", (HIS,))),
    "a result of his task": ("42501", lambda db: db.execute(
        "insert into public.generations (project_id, task_id, location) values (%s, %s, 'hers')", (HERS, RUNNING))),
    "older claim": ("PT404", lambda db: call(
        db, "safe_update_task_status", p_task_id=QUEUED, p_status="In Progress", p_worker_id="anna")),
    "claim for him": ("PT403", lambda db: call(db, "claim_next_task_user_pat", p_user_id=BEN)),
    "count for him": ("PT403", lambda db: call(db, "count_eligible_tasks_user_pat", p_user_id=BEN)),
    "his worker": ("PT403", lambda db: call(db, "claim_tasks", p_worker_id="ben-box", p_lease_s=9)),
    "his heartbeat": ("PT403", lambda db: call(
        db, "worker_heartbeat", p_worker_id="ben-box", p_claims="[]", p_lease_s=9)),
    "add to his": ("PT403", lambda db: call(db, "add_tasks", p_tasks=json.dumps(
        [{"task_type": "t2v", "params": {}, "project_id": HIS}]))),
    "add to the service": ("PT403", lambda db: call(db, "add_tasks", p_tasks=json.dumps(
        [{"task_type": "t2v", "params": {}, "project_id": DEFAULT_PROJECT}]))),
    "add his id": ("PT403", lambda db: call(db, "add_tasks", p_tasks=json.dumps(
        [{"id": QUEUED, "task_type": "t2v", "params": {}, "project_id": HERS}]))),
    "add a child to his": ("PT403", lambda db: call(db, "add_tasks", p_tasks=child_of_his())),
    "depend on his": ("PT400", lambda db: call(db, "add_tasks", p_tasks=json.dumps(
        [{"task_type": "t2v", "params": {}, "project_id": HERS, "dependant_on": QUEUED}]))),
    "token for him": ("PT403", lambda db: call(db, "create_api_token", p_user_id=BEN)),
    "service claim": ("42501", lambda db: call(db, "claim_next_task_service_role", p_worker_id="anna")),
    "logs": ("42501", lambda db: call(db, "func_insert_logs_batch", logs=[])),
    "older heartbeat": ("42501", lambda db: call(db, "func_worker_heartbeat_with_logs", worker_id_param="anna")),
    "whose token": ("42501", lambda db: call(db, "user_of_token", p_token="guess")),
    "insert into his": ("42501", lambda db: db.execute(
        "insert into public.tasks (task_type, params, project_id) values ('t2v', '{}', %s)", (HIS,))),
    "insert a status": ("42501", lambda db: db.execute(
        "insert into public.tasks (task_type, params, project_id, status) values ('t2v', '{}', %s, 'Failed')",
        (HERS,))),
    "insert a child": ("42501", lambda db: db.execute(
        "insert into public.tasks (task_type, params, project_id, parent_id) values ('t2v', '{}', %s, %s)",
        (HERS, RUNNING))),
    "set credits": ("42501", lambda db: db.execute("update public.users set credits = 1000000")),
    "set a limit": ("42501", lambda db: db.execute("update public.users set max_in_progress = 1000")),
    "be somebody": ("42501", lambda db: db.execute("insert into public.users (id) values (gen_random_uuid())")),
    "write a token": ("42501", lambda db: db.execute(
        "insert into public.user_api_tokens (user_id, token_hash) values (%s, repeat('0', 64))", (BEN,))),
    "write a timeline": ("42501", lambda db: db.execute(
        "insert into public.task_events (task_id, name) values (%s, 'complete')", (RUNNING,))),
    "write an upload": ("42501", lambda db: db.execute(
        "insert into public.task_uploads (task_id, claim_number, storage_path) values (%s, 1, 'x')", (RUNNING,))),
    "private parts": ("42501", lambda db: db.execute("select private.retry(%s)", (FAILED,))),
}  # fmt: skip


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_a_person_can_do_nothing_to_the_rows_of_another(people: Database, attempt: str) -> None:
    state, act = ATTEMPTS[attempt]
    before = everything(people)
    with people.acting("authenticated", ANNA) as anna, pytest.raises(psycopg.Error) as error:
        act(anna)
    assert error.value.sqlstate == state
    assert everything(people) == before


def test_claims_rescues_and_plain_updates_of_a_person_pass_the_rows_of_others_by(people: Database) -> None:
    with people.acting("service_role") as service:
        service.execute("update public.tasks set lease_expires_at = now() - interval '1 h' where id = %s", (RUNNING,))
    before = everything(people)["tasks"]
    with people.acting("authenticated", ANNA) as anna:
        assert call(anna, "claim_tasks", p_worker_id="anna-box", p_lease_s=60, p_limit=9) == []
        assert call(anna, "rescue_tasks", p_max_attempts=1) == 0
        assert anna.execute("update public.tasks set paused = true").rowcount == 0
        lost = [{"task_id": RUNNING, "claim_number": 1}]
        reply = call(anna, "worker_heartbeat", p_worker_id="anna-box", p_claims=json.dumps(lost), p_lease_s=60)
        assert reply == {"lost": [RUNNING], "cancel_requested": []}
    assert everything(people)["tasks"] == before


def test_what_a_person_logs_about_the_task_of_another_is_not_shown_to_them(people: Database) -> None:
    with people.acting("authenticated", ANNA) as anna:
        log = json.dumps([{"message": "gotcha", "task_id": RUNNING}])
        call(anna, "worker_heartbeat", p_worker_id="anna-box", p_claims="[]", p_lease_s=60, p_logs=log)
    with people.acting("authenticated", BEN) as ben:
        assert ben.execute("select message from public.system_logs").fetchall() == [("hello",), ("idle",)]


def test_the_service_may_take_any_worker_s_name(people: Database) -> None:
    with people.acting("service_role") as service:
        assert call(service, "claim_tasks", p_worker_id="ben-box", p_lease_s=60)
        call(service, "worker_heartbeat", p_worker_id="ben-box", p_claims="[]", p_lease_s=60)
    with people.acting("authenticated", BEN) as ben, pytest.raises(psycopg.Error, match="somebody else"):
        call(ben, "claim_tasks", p_worker_id="ben-box", p_lease_s=60)


def test_a_person_runs_their_own_tasks_from_end_to_end(people: Database) -> None:
    with people.acting("authenticated", BEN) as ben:
        [task] = call(ben, "claim_tasks", p_worker_id="ben-box", p_lease_s=60, p_limit=9)
        assert task["id"] == QUEUED
        assert call(ben, "complete_task", **held(QUEUED), p_output_location="https://files/a.mp4") is True
        assert call(ben, "retry_task", p_task_id=FAILED) == "Queued"
        assert call(ben, "pause_task", p_task_id=FAILED) == call(ben, "resume_task", p_task_id=FAILED) == "Queued"
        assert call(ben, "cancel_task", p_task_id=FAILED) == "Cancelled"
        assert {row["id"] for row in call(ben, "select_tasks")} == {QUEUED, RUNNING, FAILED}
        assert ben.execute("update public.tasks set paused = true where id = %s", (RUNNING,)).rowcount == 1
        assert len(call(ben, "list_workers")) == 1


def test_the_service_may_do_all_of_it(people: Database) -> None:
    with people.acting("service_role") as service:
        claimed = call(service, "claim_tasks", p_worker_id="w", p_lease_s=60, p_limit=9)
        assert {task["id"] for task in claimed} == {QUEUED, OURS}
        assert call(service, "complete_task", **held(), p_output_location="x") is True
        assert call(service, "retry_task", p_task_id=FAILED) == "Queued"


# -- tokens ---------------------------------------------------------------------------------------------------------


def test_a_token_is_kept_as_a_hash_and_names_its_owner(people: Database) -> None:
    with people.acting("authenticated", ANNA) as anna:
        made = call(anna, "create_api_token", p_name="laptop")
    assert made["token"].startswith("pat_") and len(made["token"]) == 68
    assert made["token"] not in json.dumps(everything(people))
    with people.acting("service_role") as service:
        assert str(call(service, "user_of_token", p_token=made["token"])) == ANNA
        assert call(service, "user_of_token", p_token=made["token"] + "x") is None
    with people.acting("authenticated", BEN) as ben:
        assert call(ben, "revoke_api_token", p_id=made["id"]) is False
    with people.acting("authenticated", ANNA) as anna:
        assert call(anna, "revoke_api_token", p_id=made["id"]) is True
    with people.acting("service_role") as service:
        assert call(service, "user_of_token", p_token=made["token"]) is None


def test_a_busy_token_is_noted_once_a_minute(people: Database) -> None:
    with people.acting("authenticated", ANNA) as anna:
        made = call(anna, "create_api_token")
    with people.acting("service_role") as service:

        def used() -> list[Any]:
            assert str(call(service, "user_of_token", p_token=made["token"])) == ANNA
            question = "select last_used_at, now() - last_used_at < '30 s' from public.user_api_tokens where id = %s"
            return service.execute(question, (made["id"],)).fetchall()

        first = used()
        assert first[0][1]
        # nobody waits for whoever uses it too
        with people.acting() as other, other.transaction():
            other.execute("select from public.user_api_tokens for update")
            service.execute("set statement_timeout = '2s'")
            assert used()[0][0] == first[0][0]
        service.execute("update public.user_api_tokens set last_used_at = now() - interval '2 minutes'")
        assert used()[0][1]


def test_a_person_who_inserts_rows_is_held_to_the_same_bounds_as_create_task(people: Database) -> None:
    insert = "insert into public.tasks (task_type, params, project_id, priority, dependant_on)"
    some = "array(select gen_random_uuid() from generate_series(1, %s))"
    with people.acting("authenticated", BEN) as ben:
        for priority, count, field in ((2**53, 0, "priority"), (-(2**53), 0, "priority"), (0, 1001, "dependant_on")):
            with pytest.raises(psycopg.Error) as failure:
                ben.execute(f"{insert} values ('t2v', '{{}}', %s, %s, {some})".encode(), (HIS, priority, count))
            assert (failure.value.sqlstate, failure.value.diag.column_name) == ("PT400", field)
        ben.execute(f"{insert} values ('t2v', '{{}}', %s, %s, {some})".encode(), (HIS, 2**53 - 1, 0))
