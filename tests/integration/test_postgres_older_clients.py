"""The functions of clients written against the older contract, by the names and parameters that they use."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from postgres_server import Connection
from postgres_server import database as database
from postgres_server import shared_database as shared_database
from postgres_store import PostgresStore
from postgres_store import service as service
from postgres_store import store as store

from source.store.types import NewTask, Status

ANNA, HERS = "aaaaaaaa-0000-4000-8000-000000000001", "aaaaaaaa-0000-4000-8000-00000000000a"


def rows(connection: Connection, function: str, **values: Any) -> list[Any]:
    given = ", ".join(f"{name} => %({name})s" for name in values)
    return connection.execute(f"select * from public.{function}({given})".encode(), values).fetchall()


def older_claim(connection: Connection, worker_id: str = "old") -> str:
    [[task_id, params, task_type, _, user_id]] = rows(
        connection, "claim_next_task_service_role", p_worker_id=worker_id, p_include_active=False, p_run_type="gpu",
        p_same_model_only=False,
    )  # fmt: skip
    assert (params, task_type, user_id) == ({"prompt": "x"}, "t2v", None)
    return str(task_id)


def update(connection: Connection, task_id: str, status: str, text: str | None = None) -> Any:
    [[answer]] = rows(
        connection, "func_update_task_status", p_task_id=task_id, p_status=status, p_table_name="tasks",
        p_output_location=text,
    )  # fmt: skip
    return answer


def a_row(store: PostgresStore, **values: Any) -> str:
    return store.add(NewTask(**{"task_type": "t2v", "params": {"prompt": "x"}} | values))


def hours_left(service: Connection, task_id: str) -> float:
    [[hours]] = service.execute(
        "select extract(epoch from lease_expires_at - now()) / 3600 from public.tasks where id = %s", (task_id,)
    ).fetchall()
    return float(hours)


def test_an_older_claim_lasts_two_hours_and_its_heartbeat_extends_it(store: PostgresStore, service: Connection) -> None:
    added = a_row(store)
    assert older_claim(service) == added
    assert 1.99 < hours_left(service, added) <= 2
    service.execute("update public.tasks set lease_expires_at = now() + interval '1 min' where id = %s", (added,))
    logs = [json.dumps({"level": "INFO", "message": "hello", "task_id": added, "timestamp": "2026-01-01T00:00:00Z"}),
            json.dumps({"message": "no id", "task_id": "none"})]  # fmt: skip
    [[reply]] = service.execute(
        "select public.func_worker_heartbeat_with_logs(worker_id_param => 'old', vram_total_mb_param => 24000,"
        " vram_used_mb_param => 9000, logs_param => %s::jsonb[], current_task_id_param => %s)", (logs, added)
    ).fetchall()  # fmt: skip
    assert reply == {"success": True, "heartbeat_updated": True, "logs_inserted": 1, "log_errors": 1}
    assert hours_left(service, added) > 1.99
    [[status, metadata]] = service.execute("select status, metadata from public.workers where id = 'old'").fetchall()
    assert (status, metadata["vram_total_mb"], metadata["vram_used_mb"]) == ("active", 24000, 9000)
    assert service.execute("select log_level, message, worker_id from public.system_logs").fetchall() == [
        ("INFO", "hello", "old")
    ]


def test_the_older_heartbeat_leaves_the_leases_of_the_newer_contract_alone(
    store: PostgresStore, service: Connection
) -> None:
    added = a_row(store)
    store.claim("new", lease_s=60)
    rows(service, "func_worker_heartbeat_with_logs", worker_id_param="new")
    assert hours_left(service, added) < 0.02


def test_an_older_client_completes_without_a_number_and_may_repeat_it(
    store: PostgresStore, service: Connection
) -> None:
    added = a_row(store)
    older_claim(service)
    assert update(service, added, "In Progress", "planning segment 2") is True
    assert store.get(added).progress == {"message": "planning segment 2"}
    assert update(service, added, "Complete", "https://files/a.mp4") is True
    done = store.get(added)
    assert (done.status, done.output_location) == (Status.COMPLETE, "https://files/a.mp4")
    assert update(service, added, "Complete", "https://files/b.mp4") is True
    assert store.get(added) == done
    for status in ("Failed", "In Progress", "Queued", "Cancelled"):
        with pytest.raises(psycopg.Error, match="cannot become") as error:
            update(service, added, status)
        assert error.value.sqlstate == "PT422"


def test_a_text_of_an_older_failure_is_the_error_not_the_output(store: PostgresStore, service: Connection) -> None:
    added = a_row(store)
    after = a_row(store, dependant_on=(added,))
    older_claim(service)
    update(service, added, "Failed", "CUDA fell over")
    failed = store.get(added)
    assert (failed.status, failed.error_message, failed.output_location) == (Status.FAILED, "CUDA fell over", None)
    assert store.get(after).status == Status.FAILED


@pytest.mark.parametrize("status", ["Complete", "Failed", "Queued", "In Progress"])
def test_a_row_claimed_with_a_number_accepts_no_write_without_one(
    store: PostgresStore, service: Connection, status: str
) -> None:
    added = a_row(store)
    [task] = store.claim("new", lease_s=60)
    for function, values in (
        ("func_update_task_status", {"p_task_id": added, "p_status": status}),
        ("safe_update_task_status", {"p_task_id": added, "p_status": status, "p_worker_id": "new"}),
    ):
        with pytest.raises(psycopg.Error, match=r"without a number of .* is stale") as error:
            rows(service, function, **values)
        assert error.value.sqlstate == "PT409"
    assert store.get(added) == task


def test_an_older_worker_that_lost_its_row_is_refused(store: PostgresStore, service: Connection) -> None:
    added = a_row(store)
    older_claim(service)
    service.execute("update public.tasks set lease_expires_at = now() where id = %s", (added,))
    [task] = store.claim("new", lease_s=60)
    assert (task.id, task.claim_number) == (added, 2)
    with pytest.raises(psycopg.Error) as error:
        update(service, added, "Complete", "x")
    assert error.value.sqlstate == "PT409"


@pytest.mark.parametrize("status", ["Complete", "Failed"])
def test_a_queued_row_ends_by_no_such_write(store: PostgresStore, service: Connection, status: str) -> None:
    added = a_row(store)
    with pytest.raises(psycopg.Error) as error:
        update(service, added, status)
    assert (error.value.sqlstate, store.get(added).status) == ("PT409", Status.QUEUED)


def test_in_progress_without_a_worker_names_the_function_that_claims(store: PostgresStore, service: Connection) -> None:
    added = a_row(store)
    with pytest.raises(psycopg.Error, match="claim_next_task_service_role") as error:
        update(service, added, "In Progress")
    assert error.value.sqlstate == "PT400"
    assert rows(service, "safe_update_task_status", p_task_id=added, p_status="In Progress", p_worker_id="old")
    claimed = store.get(added)
    assert (claimed.status, claimed.worker_id, claimed.claim_number) == (Status.IN_PROGRESS, "old", 1)
    assert rows(service, "safe_update_task_status", p_task_id=added, p_status="Queued") == [(True,)]
    assert store.get(added).status == Status.QUEUED


def test_cancelling_needs_no_claim(store: PostgresStore, service: Connection) -> None:
    queued, running = a_row(store), a_row(store, priority=1)
    store.claim("new", lease_s=60)
    for task_id in (queued, running):
        update(service, task_id, "Cancelled")
    assert store.get(queued).status == Status.CANCELLED
    assert store.get(running).cancel_requested


def test_other_tables_and_statuses_are_refused(store: PostgresStore, service: Connection) -> None:
    added = a_row(store)
    for values in ({"p_status": "Done"}, {"p_status": "Failed", "p_table_name": "jobs"}):
        with pytest.raises(psycopg.Error) as error:
            rows(service, "func_update_task_status", p_task_id=added, **values)
        assert error.value.sqlstate == "PT400"


def test_a_person_claims_by_token(store: PostgresStore, service: Connection) -> None:
    service.execute("insert into public.users (id) values (%s)", (ANNA,))
    service.execute("insert into public.projects (id, user_id) values (%s, %s)", (HERS, ANNA))
    a_row(store)
    hers = a_row(store, project_id=HERS)
    [[counted]] = rows(service, "count_eligible_tasks_user_pat", p_user_id=ANNA, p_include_active=False)
    assert counted == 1
    [[task_id, _, _, project_id, user_id]] = rows(service, "claim_next_task_user_pat", p_user_id=ANNA)
    assert (str(task_id), str(project_id), str(user_id)) == (hers, HERS, ANNA)
    assert store.get(hers).worker_id == f"user:{ANNA}"
    assert rows(service, "claim_next_task_user_pat", p_user_id=ANNA) == []


def test_an_older_worker_gets_rows_of_its_model_first(store: PostgresStore, service: Connection) -> None:
    a_row(store, params={"prompt": "x", "model": "flux"})
    warm = a_row(store, params={"prompt": "x", "model": "wan"})
    store.heartbeat("old", [], lease_s=60, current_model="wan")
    [[task_id, *_]] = rows(service, "claim_next_task_service_role", p_worker_id="old", p_same_model_only=True)
    assert str(task_id) == warm
    assert rows(service, "claim_next_task_service_role", p_worker_id="old", p_same_model_only=True) == []


def test_the_numbers_of_task_counts(store: PostgresStore, service: Connection) -> None:
    service.execute("insert into public.users (id, credits, max_in_progress) values (%s, 7, 1)", (ANNA,))
    service.execute("insert into public.projects (id, user_id) values (%s, %s)", (HERS, ANNA))
    first = a_row(store, project_id=HERS)
    a_row(store, project_id=HERS)
    a_row(store, project_id=HERS, dependant_on=(first,))
    store.claim("w", lease_s=60)
    a_row(store)
    assert rows(service, "count_queued_tasks_breakdown_service_role", p_run_type="gpu") == [(1, 1, 1, 0, 3)]
    assert rows(service, "count_eligible_tasks_service_role") == [(1,)]
    assert rows(service, "count_eligible_tasks_service_role", p_include_active=True) == [(2,)]
    [[user_id, credits, *numbers]] = rows(service, "per_user_capacity_stats_service_role")
    assert (str(user_id), credits, numbers) == (ANNA, 7, [2, 1, True, True])


def test_the_small_questions(store: PostgresStore, service: Connection) -> None:
    added = a_row(store)
    for ids, answer in (([], True), (None, True), ([added], False)):
        [[found]] = service.execute("select public.all_dependencies_complete(%s::uuid[])", (ids,)).fetchall()
        assert found is answer
    for task_type in ("travel_segment", "unheard_of"):
        assert rows(service, "get_task_run_type", p_task_type=task_type) == [("gpu",)]
    params = json.dumps({"orchestrator_details": {"model_name": "wan"}, "model": "flux"})
    assert rows(service, "get_task_model", p_params=params) == [("wan",)]


def test_the_oldest_functions_claim_complete_and_fail(store: PostgresStore, service: Connection) -> None:
    first, second = a_row(store), a_row(store)
    [[task_id, status, attempts, worker_id, started, data, _, task_type]] = rows(
        service, "func_claim_available_task", worker_id_param="old"
    )
    assert (str(task_id), status, attempts, worker_id, task_type) == (first, "In Progress", 0, "old", "t2v")
    assert data == {"prompt": "x"} and started is not None
    assert rows(service, "complete_task_with_timing", p_task_id=first, p_output_location="a.mp4") == [(True,)]
    assert store.get(first).output_location == "a.mp4"
    rows(service, "func_claim_available_task", worker_id_param="old")
    assert rows(service, "func_mark_task_failed", p_task_id=second, p_error_message="boom") == [(True,)]
    assert store.get(second).error_message == "boom"
    for function, values in (
        ("complete_task_with_timing", {"p_output_location": "x"}), ("func_mark_task_failed", {"p_error_message": "x"})
    ):  # fmt: skip
        with pytest.raises(psycopg.Error) as error:
            rows(service, function, p_task_id="none", **values)
        assert error.value.sqlstate == "PT400"


def test_a_worker_that_is_to_stop_gets_nothing(store: PostgresStore, service: Connection) -> None:
    a_row(store)
    store.heartbeat("old", [], lease_s=60, status="terminating")
    assert rows(service, "func_claim_available_task", worker_id_param="old") == []


def test_why_rows_are_not_handed_out(store: PostgresStore, service: Connection) -> None:
    service.execute("insert into public.users (id, credits, max_in_progress) values (%s, 7, 1)", (ANNA,))
    service.execute("insert into public.projects (id, user_id, name) values (%s, %s, 'hers')", (HERS, ANNA))
    first = a_row(store, project_id=HERS)
    second = a_row(store, project_id=HERS)
    a_row(store, project_id=HERS, dependant_on=(first,))
    store.claim("w", lease_s=60)
    a_row(store)
    paused = a_row(store)
    service.execute("update public.tasks set paused = true where id = %s", (paused,))
    [[found]] = rows(service, "analyze_task_availability_service_role")
    assert (found["total_tasks"], found["eligible_tasks"]) == (4, 1)
    assert found["rejection_reasons"] == {
        "no_credits": 0, "cloud_disabled": 0, "dependency_blocked": 1, "at_limit": 1, "held_up": 1
    }  # fmt: skip
    assert [user["in_progress_tasks"] for user in found["user_stats"]] == [1]
    [[found]] = rows(service, "analyze_task_availability_service_role", p_include_active=True, p_run_type="gpu")
    assert found["total_tasks"] == 5
    service.execute("update public.users set credits = 0")
    [[found]] = rows(service, "analyze_task_availability_service_role")
    assert found["rejection_reasons"]["no_credits"] == 1
    [[hers]] = rows(service, "analyze_task_availability_user_pat", p_user_id=ANNA)
    assert (hers["eligible_count"], hers["user_info"]["credits"]) == (1, 0)
    assert hers["projects"] == [{"id": HERS, "name": "hers"}]
    blocked, free = hers["recent_tasks"]
    assert (free["id"], free["dependency_blocking"], blocked["dependency_blocking"]) == (second, False, True)


def test_cancelling_ends_a_row_whose_worker_would_not_hear_of_it(store: PostgresStore, service: Connection) -> None:
    added = a_row(store)
    older_claim(service)
    assert store.cancel(added) == Status.CANCELLED
    with pytest.raises(psycopg.Error) as error:
        update(service, added, "Complete", "too late")
    assert error.value.sqlstate == "PT422"


def test_logs_are_kept_48_hours(service: Connection) -> None:
    logs = [json.dumps({"message": "old", "timestamp": "2026-01-01T00:00:00Z", "source_type": "orchestrator"}),
            json.dumps({"message": "new"})]  # fmt: skip
    [[reply]] = service.execute("select public.func_insert_logs_batch(%s::jsonb[])", (logs,)).fetchall()
    assert reply == {"success": True, "inserted": 2, "errors": 0}
    assert rows(service, "func_cleanup_old_logs") == [(1,)]
    assert service.execute("select message from public.system_logs").fetchall() == [("new",)]
