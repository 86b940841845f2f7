"""What workers say of themselves on Postgres: who reads it, how long it is kept, and that looking is quick."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from postgres_server import Connection, Database, call
from postgres_server import database as database
from postgres_server import shared_database as shared_database
from postgres_store import PostgresStore
from postgres_store import service as service
from postgres_store import store as store

ANNA, HERS = "aaaaaaaa-0000-4000-8000-000000000001", "aaaaaaaa-0000-4000-8000-00000000000a"
ANNAS, OURS = "aaaaaaaa-0000-4000-8000-0000000000c1", "cccccccc-0000-4000-8000-0000000000c2"


def beat(connection: Connection, worker_id: str, *lines: dict[str, Any]) -> None:
    call(connection, "worker_heartbeat", p_worker_id=worker_id, p_claims="[]", p_lease_s=60,
         p_sample='{"rss": 5}', p_logs=json.dumps(lines))  # fmt: skip


def count(connection: Connection, table: str) -> int:
    row = connection.execute(f"select count(*) from {table}".encode()).fetchone()
    assert row is not None
    return int(row[0])


def test_a_person_reads_of_their_own_tasks_and_workers(service: Connection, database: Database) -> None:
    service.execute("insert into public.users (id) values (%s)", (ANNA,))
    service.execute("insert into public.projects (id, user_id) values (%s, %s)", (HERS, ANNA))
    service.execute("insert into public.tasks (id, task_type, params, project_id) values (%s, 't2v', '{}', %s)",
                    (ANNAS, HERS))  # fmt: skip
    service.execute("insert into public.tasks (id, task_type, params) values (%s, 't2v', '{}')", (OURS,))
    beat(service, "of-service", {"message": "on hers", "task_id": ANNAS}, {"message": "on ours", "task_id": OURS},
         {"message": "idle"})  # fmt: skip
    for task_id in (ANNAS, OURS):
        call(service, "cancel_task", p_task_id=task_id)
    with database.acting("authenticated", ANNA) as anna:
        beat(anna, "annas-box", {"message": "my own"}, {"message": "a guess", "task_id": OURS})
        assert [line["message"] for line in call(anna, "list_logs")] == ["on hers", "my own", "a guess"]
        assert [line["task_id"] for line in call(anna, "list_logs")] == [ANNAS, None, None]
        assert [sample["worker_id"] for sample in call(anna, "list_samples")] == ["annas-box"]
        [ended] = call(anna, "throughput", p_since_s=60, p_bucket_s=86_400)
        assert (ended["status"], ended["count"]) == ("Cancelled", 1)
    assert len(call(service, "list_logs")) == 5
    assert {sample["worker_id"] for sample in call(service, "list_samples")} == {"of-service", "annas-box"}
    assert sum(each["count"] for each in call(service, "throughput", p_since_s=60, p_bucket_s=1)) == 2


def test_what_was_kept_for_long_goes_with_heartbeats(service: Connection, database: Database) -> None:
    beat(service, "gone", {"message": "old", "timestamp": "2020-01-01T00:00:00Z"})
    service.execute("insert into public.system_logs (message, timestamp) select i::text, now() - interval '8 days'"
                    " from generate_series(1, 1003) as i")  # fmt: skip
    service.execute("update public.worker_samples set at = now() - interval '25 hours'")
    service.execute("update public.workers set last_heartbeat = now() - interval '31 days'")
    beat(service, "stays")
    assert count(service, "public.workers") == count(service, "public.worker_samples") == 1
    beat(service, "stays")
    assert count(service, "public.system_logs") == 0
    with database.acting() as owner:
        owner.execute("update private.retention set log_lines = 4, samples = '0'")
        beat(service, "stays", *({"message": str(number)} for number in range(9)))
        beat(service, "stays")
        assert [line["message"] for line in call(service, "list_logs")] == ["5", "6", "7", "8"]
        assert count(service, "public.worker_samples") <= 1
        owner.execute("update private.retention set log_lines = 1000000, samples = '1 day'")


def test_heartbeats_beside_each_other_prune_without_waiting(service: Connection, database: Database) -> None:
    service.execute("insert into public.system_logs (message, timestamp) select i::text, now() - interval '8 days'"
                    " from generate_series(1, 2500) as i")  # fmt: skip
    with database.acting("service_role") as other, other.transaction():
        beat(other, "slow")
        service.execute("set lock_timeout = '1s'")
        beat(service, "quick")
        assert count(service, "public.system_logs") == 1500
    assert count(service, "public.system_logs") == 500


@pytest.mark.slow
def test_throughput_of_100000_rows_is_quick(store: PostgresStore, service: Connection, database: Database) -> None:
    """Measured with the triggers off: they have nothing to do for rows that have ended."""
    with database.acting() as owner:
        owner.execute("set session_replication_role = replica")
        owner.execute(
            "insert into public.tasks (task_type, params, status, generation_started_at, generation_processed_at)"
            " select 'type ' || i % 5, '{}', 'Complete', now() - make_interval(secs => i % 86000 + 20),"
            " now() - make_interval(secs => i % 86000 + 10) from generate_series(1, 100000) as i"
        )
        owner.execute("analyze public.tasks")
    took_s = []
    for _ in range(3):
        began = time.perf_counter()
        found = store.throughput(since_s=86_400.0, bucket_s=3600.0)
        took_s.append(time.perf_counter() - began)
    assert sum(bucket.count for bucket in found) == 100_000
    assert round(sum(bucket.seconds for bucket in found)) == 1_000_000
    assert min(took_s) < 2, took_s
    plan = service.execute(
        "explain select status, task_type, generation_started_at, generation_processed_at from public.tasks"
        " where status in ('Complete', 'Failed', 'Cancelled') and generation_processed_at >= now() - interval '1 hour'"
    ).fetchall()
    assert "tasks_ended" in str(plan)


@pytest.mark.slow
def test_what_ended_lately_is_found_in_a_long_history_without_reading_it(
    store: PostgresStore, service: Connection, database: Database
) -> None:
    """As ratios: a minute of 200000 rows, against all of them."""
    with database.acting() as owner:
        owner.execute("set session_replication_role = replica")
        owner.execute(
            "insert into public.tasks (task_type, params, status, created_at, generation_processed_at)"
            " select 't2v', '{}', 'Complete', now() - make_interval(secs => i * 8.0),"
            " now() - make_interval(secs => i * 8.0 - 7) from generate_series(1, 200000) as i"
        )
        owner.execute("analyze public.tasks")

    def blocks(function: str) -> int:
        """Pages of the table and its indexes that a call reads."""
        [[text]] = service.execute(f"explain (analyze, buffers, format json) select {function}".encode()).fetchall()
        plan = text[0]["Plan"]
        return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])

    everything = blocks("public.count_tasks()")
    for lately in ("public.throughput(60, 60)", "public.select_tasks(p_ended_within_s => 60, p_newest => true)"):
        blocks(lately)  # the first call plans
        assert blocks(lately) * 10 < everything, lately
    assert 0 < sum(each.count for each in store.throughput(since_s=600, bucket_s=86_400)) <= 75
