"""What one person writes stops nobody else, and tells them nothing about others. As PostgREST would let them write."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator

import psycopg
import pytest
from postgres_server import Connection, Database, call
from postgres_server import database as database
from postgres_server import shared_database as shared_database

ANNA, BEN = "aaaaaaaa-0000-4000-8000-000000000001", "bbbbbbbb-0000-4000-8000-000000000002"
HERS, HIS = "aaaaaaaa-0000-4000-8000-00000000000a", "bbbbbbbb-0000-4000-8000-00000000000b"
HER_TASK = "aaaaaaaa-0000-4000-8000-0000000000c1"

#: JSON that takes Postgres a few bytes and its readers all they have
HUGE_NUMBER = '{"seed": 1e130000}'
LONG_AS_TEXT = '{"seeds": [' + ",".join(["1e-16000"] * 1000) + "]}"
DEEP = '{"a": ' + "[" * 5000 + "]" * 5000 + "}"


@pytest.fixture
def service(database: Database) -> Iterator[Connection]:
    with database.acting("service_role") as connection:
        connection.execute("insert into public.users (id) values (%s), (%s)", (ANNA, BEN))
        connection.execute(
            "insert into public.projects (id, user_id) values (%s, %s), (%s, %s)", (HERS, ANNA, HIS, BEN)
        )
        yield connection


@pytest.fixture
def ben(database: Database, service: Connection) -> Iterator[Connection]:
    with database.acting("authenticated", BEN) as connection:
        yield connection


def add_hers(database: Database) -> None:
    with database.acting("authenticated", ANNA) as anna:
        task = {"id": HER_TASK, "task_type": "t2v", "params": {}, "project_id": HERS}
        call(anna, "add_tasks", p_tasks=json.dumps([task]))


@pytest.mark.parametrize("params", [HUGE_NUMBER, LONG_AS_TEXT, DEEP, f"[{HUGE_NUMBER}]"])
def test_params_that_no_worker_could_read_are_refused(ben: Connection, service: Connection, params: str) -> None:
    for statement in (
        "insert into public.tasks (task_type, params, project_id) values ('t2v', %s, %s)",
        "select public.add_tasks(jsonb_build_array(jsonb_build_object("
        "'task_type', 't2v', 'params', %s::jsonb, 'project_id', %s::text)))",
    ):
        with pytest.raises(psycopg.Error) as refused:
            ben.execute(statement.encode(), (params, HIS))
        assert (refused.value.sqlstate, refused.value.diag.column_name) == ("PT400", "params")
    assert call(service, "claim_tasks", p_worker_id="w", p_lease_s=60) == []


@pytest.mark.parametrize("bad", [HUGE_NUMBER, LONG_AS_TEXT, DEEP])
def test_neither_are_settings_progress_results_and_what_a_worker_says_of_itself(
    ben: Connection, service: Connection, bad: str
) -> None:
    ben.execute("insert into public.tasks (task_type, params, project_id) values ('t2v', '{}', %s)", (HIS,))
    [task] = call(ben, "claim_tasks", p_worker_id="his", p_lease_s=600)
    held = {"p_task_id": task["id"], "p_worker_id": "his", "p_claim_number": 1}
    settings = '{"ui": {"generationMethods": {"inCloud": ' + bad + "}}}"
    for column, write in {
        "settings": lambda: ben.execute("update public.users set settings = %s", (settings,)),
        "progress": lambda: call(ben, "task_progress", **held, p_progress=bad),
        "result_data": lambda: call(ben, "complete_task", **held, p_output_location="x", p_result_data=bad),
        "metadata": lambda: call(ben, "worker_heartbeat", p_worker_id="his", p_claims="[]", p_lease_s=60,
                                 p_metadata=bad),
    }.items():  # fmt: skip
        with pytest.raises(psycopg.Error) as refused:
            write()
        assert (refused.value.sqlstate, refused.value.diag.column_name) == ("PT400", column)
    assert call(service, "get_task", p_task_id=task["id"])["progress"] is None


def test_what_is_long_but_can_be_read_is_taken(ben: Connection, service: Connection) -> None:
    params = {"seed": 2**64, "strength": 1e-300, "image": "A" * 1_000_000, "nested": json.loads("[" * 90 + "]" * 90)}
    ben.execute("insert into public.tasks (task_type, params, project_id) values ('t2v', %s, %s)",
                (json.dumps(params), HIS))  # fmt: skip
    [task] = call(service, "claim_tasks", p_worker_id="w", p_lease_s=60)
    assert task["params"] == params


def test_nobody_waits_for_the_task_of_another_and_reads_why_it_failed(database: Database, ben: Connection) -> None:
    add_hers(database)
    statement = "insert into public.tasks (task_type, params, project_id, dependant_on) values ('t2v', '{}', %s, %s)"
    with pytest.raises(psycopg.Error) as refused:
        ben.execute(statement, (HIS, [HER_TASK]))
    assert (refused.value.sqlstate, refused.value.diag.column_name) == ("PT400", "dependant_on")
    with database.acting("authenticated", ANNA) as anna:
        anna.execute(statement, (HERS, [HER_TASK]))
    with database.acting("service_role") as service:
        service.execute(statement, (HIS, [HER_TASK]))


def test_a_priority_for_each_row_does_not_make_claims_look_at_each_by_itself(
    database: Database, ben: Connection, service: Connection
) -> None:
    ben.execute("insert into public.tasks (task_type, params, project_id, priority, dependant_on) "
                "select 't2v', '{}', %s, n, array[gen_random_uuid()] from generate_series(1, 500) as n",
                (HIS,))  # fmt: skip
    ben.execute("insert into public.tasks (task_type, params, project_id, priority) "
                "select 't2v', '{}', %s, 1000 + n from generate_series(1, 500) as n", (HIS,))  # fmt: skip
    service.execute("update public.users set max_in_progress = 0 where id = %s", (BEN,))
    add_hers(database)
    with database.acting() as superuser:
        superuser.execute("analyze public.tasks; select pg_stat_reset()")
    with database.acting("service_role") as worker:
        assert [task["id"] for task in call(worker, "claim_tasks", p_worker_id="w", p_lease_s=60)] == [HER_TASK]
    with database.acting() as superuser:
        superuser.execute("select pg_stat_force_next_flush()")
        scans = "select idx_scan from pg_stat_user_indexes where indexrelname = 'tasks_claim'"
        assert superuser.execute(scans.encode()).fetchall()[0][0] < 20


def test_looking_for_circles_looks_at_each_row_a_few_times_only(database: Database) -> None:
    count = 300
    # each waits for the next one: nothing says from the start that this is no circle
    tasks: list[dict[str, object]] = [
        {"id": f"bbbbbbbb-0000-4000-8000-{n:012}", "task_type": "t2v", "params": {}, "project_id": HIS}
        for n in range(count)
    ]
    for task, later in itertools.pairwise(tasks):
        task["dependant_on"] = [later["id"]]
    with database.acting() as superuser:
        superuser.execute("select pg_stat_reset()")
        superuser.execute("insert into public.users (id) values (%s)", (BEN,))
        superuser.execute("insert into public.projects (id, user_id) values (%s, %s)", (HIS, BEN))
    with database.acting("authenticated", BEN) as ben:
        call(ben, "add_tasks", p_tasks=json.dumps(tasks))
        assert call(ben, "rescue_tasks") == 0
    with database.acting() as superuser:
        superuser.execute("select pg_stat_force_next_flush()")
        looks = "select idx_scan + seq_scan from pg_stat_user_tables where relname = 'tasks'"
        assert superuser.execute(looks.encode()).fetchall()[0][0] < 50 * count


def test_each_circle_is_ended_whatever_leads_into_it(database: Database, ben: Connection, service: Connection) -> None:
    # 0 -> 1 -> 2 -> 3 -> 2, 4 -> 5 -> 4, and 6 -> 7 which is none
    needed = {0: 1, 1: 2, 2: 3, 3: 2, 4: 5, 5: 4, 6: 7, 7: None}
    ids = {n: f"bbbbbbbb-0000-4000-8000-{n:012}" for n in needed}
    columns = "id, task_type, params, project_id, dependant_on"
    statement = f"insert into public.tasks ({columns}) values (%s, 't2v', '{{}}', %s, %s)".encode()
    for n, other in needed.items():
        ben.execute(statement, (ids[n], HIS, [] if other is None else [ids[other]]))
    assert call(service, "rescue_tasks") == 6
    rows = {row["id"]: row for row in call(service, "list_tasks")}
    assert [rows[ids[n]]["status"] for n in needed] == ["Failed"] * 6 + ["Queued"] * 2
    for first, second in ((2, 3), (4, 5)):
        said = {rows[ids[n]]["error_message"] for n in (first, second)}
        ways = (f"{ids[n]} -> {ids[first + second - n]} -> {ids[n]}" for n in (first, second))
        assert any(way in text for way in ways for text in said)
