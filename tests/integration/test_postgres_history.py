"""Postgres on a long history: what claims, watchers and the ends of orchestrators read does not grow with it."""

from __future__ import annotations

import math
from typing import Any

import pytest
from postgres_server import Connection, Database, call
from postgres_server import database as database
from postgres_server import shared_database as shared_database

# What a claim reads, as private.pick asks for it.
WALK = """
select id from private.claimable
where priority = 0 and owner_id = '00000000-0000-0000-0000-000000000000'
order by created_at, seq limit 1 for update skip locked"""
WARM_WALK = WALK.replace("where", "where coalesce(model, task_type) = 'wan' and")

# what the blocked rows wait for: a paused one
BLOCKER = "cccccccc-0000-4000-8000-000000000003"
LOAD = f"""
insert into public.tasks (id, task_type, params, paused) values ('{BLOCKER}', 't2v', '{{}}', true);
insert into public.tasks (
    task_type, params, status, created_at, generation_processed_at, model, dependant_on, orchestrator_id)
select 't2v', '{{"prompt": "a lake"}}', 'Complete', now() - interval '1 day', now() - interval '1 day',
    (array['wan', 'flux', 'ltx'])[1 + n %% 3], '{{}}',
    case when n %% 2 = 0 then ('dddddddd-0000-4000-8000-' || lpad((n / 20)::text, 12, '0'))::uuid end
from generate_series(1, %(history)s) as n;
insert into public.tasks (task_type, params, created_at, model, dependant_on)
select 't2v', '{{"prompt": "a lake"}}', now() - interval '1 h' + n * interval '1 ms',
    (array['wan', 'flux', 'ltx'])[1 + n %% 3],
    case when n %% 4 = 0 then array['{BLOCKER}'::uuid] else '{{}}' end
from generate_series(1, %(queued)s) as n;
insert into public.task_events (task_id, name)
select id, (array['queued', 'claimed', 'step 1', 'step 2', 'complete'])[1 + seq %% 5] from public.tasks;
insert into public.task_events (task_id, name) select '{BLOCKER}', 'step' from generate_series(1, 10000);
"""


def load(database: Database, history: int, queued: int) -> None:
    """Rows of a long life: most Complete, half of those children of older orchestrators; the rest Queued, a quarter of
    those waiting for a row that is paused. Last in the timeline: 10000 steps."""
    with database.acting() as superuser:
        # no triggers and no timeline: minutes less
        superuser.execute("set session_replication_role = replica")
        for statement in LOAD.split(";")[:-1]:
            values = {"history": history, "queued": queued} if "%(" in statement else None
            superuser.execute((statement if values else statement.replace("%%", "%")).encode(), values)
        superuser.execute("analyze")
        superuser.execute(WAITED)


def plan(connection: Connection, statement: str, *, settings: bool = True) -> list[dict[str, Any]]:
    """The nodes of the plan; with `settings`, under those of private.claim."""
    if settings:
        connection.execute("""
            select set_config(split_part(setting, '=', 1), split_part(setting, '=', 2), false)
            from pg_proc, unnest(proconfig) as setting
            where oid = 'private.claim'::regproc and setting like 'enable%'""")
    row = connection.execute(f"explain (format json, analyze) {statement}".encode()).fetchone()
    assert row is not None
    found, pending = [], [row[0][0]["Plan"]]
    while pending:
        node = pending.pop()
        found.append(node)
        pending += node.get("Plans", [])
    return found


# How long the process of this connection could have run while others had the cores (the second number of schedstat):
# that is the machine's load, and no part of what a function takes. Waits for locks and disks are. 0 where nobody says.
# SECURITY DEFINER: only a superuser reads /proc.
WAITED = """
create or replace function public.waited_ns() returns bigint language sql security definer set search_path = '' as $$
    select coalesce(split_part(pg_read_file('/proc/self/schedstat', 0, 100, true), ' ', 2)::bigint, 0)
$$"""
# Claims one by one, each with its commit.
CLAIMS = """
do $$
declare
    v_from timestamptz;
    v_waited bigint;
    v_claimed jsonb;
begin
    for number in 1..{count} loop
        v_from := clock_timestamp();
        v_waited := public.waited_ns();
        v_claimed := public.claim_tasks('w', 600, p_loaded_model => {model});
        commit;
        v_waited := public.waited_ns() - v_waited;
        insert into spent
        values (extract(epoch from clock_timestamp() - v_from) * 1000 - v_waited / 1e6, jsonb_array_length(v_claimed));
    end loop;
end
$$"""


def claim_times_ms(connection: Connection, count: int, model: str | None = None) -> list[float]:
    connection.execute("create temporary table if not exists spent (ms float8, tasks bigint)")
    connection.execute("truncate spent")
    connection.execute(CLAIMS.format(count=count, model="null" if model is None else f"'{model}'").encode())
    rows = connection.execute("select ms, tasks from spent order by ms").fetchall()
    assert [tasks for _, tasks in rows] == [1] * count
    return [ms for ms, _ in rows]


def check_plans(database: Database) -> None:
    for statement, index in ((WALK, "tasks_claim"), (WARM_WALK, "tasks_claim_model")):
        with database.acting() as superuser:
            nodes = plan(superuser, statement)
        scans = [node for node in nodes if node.get("Relation Name") == "tasks"]
        assert index in {node.get("Index Name") for node in scans}
        assert not [node for node in nodes if node["Node Type"] in ("Seq Scan", "Sort", "Bitmap Heap Scan")
                    and node.get("Relation Name", "tasks") == "tasks"]  # fmt: skip
        # it stops at the first row that fits, and locks no other
        assert [node["Actual Rows"] for node in nodes if node["Node Type"] == "LockRows"] == [1]


def check_work(database: Database, claims: int) -> None:
    """What the claims themselves did, by Postgres's own counters: no walk through the table."""
    with database.acting() as superuser:
        superuser.execute("select pg_stat_force_next_flush()")
        row = superuser.execute("""
            select seq_scan, (select idx_scan from pg_stat_user_indexes where indexrelname = 'tasks_claim')
            from pg_stat_user_tables where relname = 'tasks'""").fetchone()
    assert row is not None
    assert row[0] == 0
    assert row[1] >= claims


def check_turns(database: Database, claims: int) -> None:
    """A second owner, of few rows, gets every other claim, and the rows of the first are not walked."""
    other = "ffffffff-0000-4000-8000-000000000001"
    with database.acting() as superuser:
        superuser.execute("set session_replication_role = replica")
        superuser.execute(
            "update public.tasks set owner_id = %s where id in (select id from public.tasks"
            " where status = 'Queued' and dependant_on = '{}' and not paused order by seq desc limit %s)",
            (other, claims),
        )
        superuser.execute("select pg_stat_reset()")
    with database.acting("service_role") as service:
        claim_times_ms(service, claims, "flux")
    with database.acting() as superuser:
        superuser.execute("select pg_stat_force_next_flush()")
        taken = superuser.execute(
            "select count(*) from public.tasks where status = 'In Progress' and owner_id = %s", (other,)
        )
        assert taken.fetchone() == (claims // 2,)
        read = superuser.execute(
            "select sum(idx_tup_read) from pg_stat_user_indexes where indexrelname like 'tasks_claim%'"
        )
        [[rows]] = read.fetchall()
    assert rows < 100 * claims


def measured(database: Database, claims: int) -> list[float]:
    """Times of `claims` claims, half of them with a loaded model."""
    with database.acting() as superuser:
        superuser.execute("select pg_stat_reset()")
    with database.acting("service_role") as service:
        claim_times_ms(service, 5)
        times = claim_times_ms(service, claims // 2)
        times += claim_times_ms(service, claims // 2, "flux")
    check_work(database, claims)
    return sorted(times)


def times_ms(connection: Connection, function: str, count: int = 20, **values: Any) -> list[float]:
    given = ", ".join(f"{name} => %({name})s" for name in values)
    # from left to right
    asked = f"public.waited_ns(), public.{function}({given}), public.waited_ns()"
    statement = f"select clock_timestamp(), {asked}, clock_timestamp()"
    spent = []
    for _ in range(count):
        [[began, before, _, after, ended]] = connection.execute(statement.encode(), values).fetchall()
        spent.append((ended - began).total_seconds() * 1000 - (after - before) / 1e6)
    return sorted(spent)


def scans(database: Database) -> list[tuple[str, int]]:
    """The large tables that were read from end to end."""
    with database.acting() as superuser:
        superuser.execute("select pg_stat_force_next_flush()")
        return superuser.execute("""
            select relname, seq_scan from pg_stat_user_tables
            where relname in ('tasks', 'task_events') and seq_scan > 0""").fetchall()


def run_orchestrator(service: Connection, parts: int) -> list[float]:
    """Claim, fan out and complete as an older worker would; the times of the completions of the children."""
    service.execute("insert into public.tasks (task_type, params, priority) values ('travel_orchestrator', %s, 9)",
                    (f'{{"orchestrator_details": {{"num_new_segments_to_generate": {parts}}}}}',))  # fmt: skip
    row = service.execute("select task_id from public.claim_next_task_service_role('old')").fetchone()
    assert row is not None
    [orchestrator] = row
    service.execute(
        "insert into public.tasks (task_type, params, priority) select 'travel_segment', jsonb_build_object("
        "'orchestrator_task_id_ref', %s::text, 'segment_index', n), 9 from generate_series(1, %s) as n",
        (orchestrator, parts),
    )
    call(service, "func_update_task_status", p_task_id=orchestrator, p_status="In Progress", p_output_location="wait")
    spent = []
    for task in call(service, "claim_tasks", p_worker_id="w", p_lease_s=600, p_limit=parts):
        given = {"p_task_id": task["id"], "p_worker_id": "w", "p_claim_number": 1, "p_output_location": "x"}
        spent += times_ms(service, "complete_task", count=1, **given)
    assert call(service, "get_task", p_task_id=orchestrator)["status"] == "Complete"
    return sorted(spent)


def check_watching(database: Database) -> dict[str, float]:
    """Nothing here reads a large table from end to end; returns the slowest of each kind, in ms."""
    person, project = "aaaaaaaa-0000-4000-8000-000000000001", "aaaaaaaa-0000-4000-8000-00000000000a"
    with database.acting() as superuser:
        superuser.execute("select pg_stat_reset()")
        superuser.execute("insert into public.users (id) values (%s)", (person,))
        superuser.execute("insert into public.projects (id, user_id) values (%s, %s)", (project, person))
    with database.acting("service_role") as service, database.acting("authenticated", person) as somebody:
        spent = {"a child of an older orchestrator completes": run_orchestrator(service, 20)}
        assert call(service, "latest_change", p_since=0) > 0
        spent["latest_change of the service"] = times_ms(service, "latest_change")
        spent["latest_change of a person without tasks"] = times_ms(somebody, "latest_change", p_since=1)
        spent["creations_in_last_minute of a person"] = times_ms(somebody, "creations_in_last_minute")
    assert scans(database) == []
    return {name: times[-1] for name, times in spent.items()}


def check_indexes(database: Database) -> None:
    """The questions behind them, each answered by the index that was made for it."""
    orchestrator = "dddddddd-0000-4000-8000-000000000007"
    changes = """select id from public.task_events where id > 0 and name in ('queued', 'released', 'rescued', 'retry',
        'fanned_out', 'complete', 'failed', 'cancelled', 'cancel_requested') order by id desc limit 1"""
    for statement, index in (
        (f"select * from private.parts where orchestrator_id = '{orchestrator}'", "tasks_of_orchestrator"),
        (changes, "task_events_changes"),
    ):
        with database.acting() as superuser:
            nodes = plan(superuser, statement, settings=False)
        assert [node.get("Index Name") for node in nodes if "Index Name" in node] == [index]
        assert max(node["Actual Rows"] for node in nodes) <= 10


def test_a_claim_walks_the_index_of_queued_rows(database: Database) -> None:
    load(database, history=20_000, queued=2_000)
    check_plans(database)
    check_turns(database, 20)
    measured(database, 40)
    check_indexes(database)
    check_watching(database)


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(900)
def test_nothing_takes_long_on_a_million_rows(database: Database) -> None:
    load(database, history=1_000_000, queued=50_000)
    check_plans(database)
    check_indexes(database)
    times = measured(database, 1000)
    spent = {
        "claim, half of them with a loaded model, p50": (times[len(times) // 2], 20),
        "claim, p99": (times[math.ceil(len(times) * 0.99) - 1], 20),
        **{name: (slowest, 100) for name, slowest in check_watching(database).items()},
    }
    with database.acting("service_role") as service:
        assert call(service, "rescue_tasks") == 0
        spent["rescue that finds nothing"] = (times_ms(service, "rescue_tasks", count=1)[0], 2000)
        spent["open_tasks"] = (times_ms(service, "open_tasks", count=1)[0], 3000)
        spent["task_counts"] = (times_ms(service, "task_counts", count=5)[2], 3000)
    for name, (taken_ms, _) in spent.items():
        print(f"{name}: {taken_ms:.1f} ms")
    assert {name: taken for name, taken in spent.items() if taken[0] > taken[1]} == {}
