"""latest_change, installation and task_counts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from postgres_server import MIGRATIONS, Connection, Database, call
from postgres_server import database as database
from postgres_server import shared_database as shared_database
from postgres_store import PostgresStore
from postgres_store import service as service
from postgres_store import store as store

from source.store.types import NewTask

ANNA, HERS = "aaaaaaaa-0000-4000-8000-000000000001", "aaaaaaaa-0000-4000-8000-00000000000a"


@pytest.fixture
def anna(service: Connection, database: Database) -> Iterator[Connection]:
    """Anna with 7 credits, a project, and room for one task."""
    service.execute("insert into public.users (id, credits, max_in_progress) values (%s, 7, 1)", (ANNA,))
    service.execute("insert into public.projects (id, user_id) values (%s, %s)", (HERS, ANNA))
    with database.acting("authenticated", ANNA) as connection:
        yield connection


def test_a_change_is_what_can_matter_to_another_worker(store: PostgresStore, service: Connection) -> None:
    before = call(service, "latest_change")
    first = store.add(NewTask(task_type="t2v", params={}))
    added = call(service, "latest_change")
    assert added > before
    [task] = store.claim("w", lease_s=60)
    store.progress(task.claim, {"step": 1}, event="step 1")
    store.note(task.claim, "hello", "there")
    assert call(service, "latest_change") == added
    store.complete(task.claim, "x")
    done = call(service, "latest_change", p_since=added)
    assert done > added
    assert call(service, "latest_change", p_since=done) == done == call(service, "latest_change")
    assert store.get(first).status == "Complete"


def test_a_person_is_told_of_changes_of_their_own(store: PostgresStore, service: Connection, anna: Connection) -> None:
    store.add(NewTask(task_type="t2v", params={}))
    assert call(anna, "latest_change") == 0
    store.add(NewTask(task_type="t2v", params={}, project_id=HERS))
    hers = call(anna, "latest_change")
    assert hers == call(service, "latest_change")
    store.add(NewTask(task_type="t2v", params={}))
    assert call(anna, "latest_change", p_since=hers) == hers


def test_an_installation_says_what_it_is(database: Database, service: Connection) -> None:
    found = call(service, "installation")
    assert found["schema"] == MIGRATIONS[-1].name.partition("_")[0] and found["tables_without_rls"] == []
    assert found["postgres"][:2] in ("15", "16", "17", "18") and found["now"].endswith("Z")
    with database.acting() as owner:  # migrated by hand, which nobody recorded
        owner.execute(
            "create table public.open_door (id int); alter schema supabase_migrations rename to unknown_elsewhere"
        )
        found = call(service, "installation")
        owner.execute("drop table public.open_door; alter schema unknown_elsewhere rename to supabase_migrations")
    assert found["schema"] is None and found["tables_without_rls"] == ["open_door"]


def test_the_counts_of_the_service(store: PostgresStore, service: Connection, anna: Connection) -> None:
    first = store.add(NewTask(task_type="t2v", params={}, project_id=HERS))
    store.add(NewTask(task_type="t2v", params={}, project_id=HERS))
    store.add(NewTask(task_type="t2v", params={}, project_id=HERS, dependant_on=(first,)))
    [task] = store.claim("w", lease_s=60)
    assert task.id == first
    ours = store.add(NewTask(task_type="t2v", params={}))
    store.add(NewTask(task_type="travel_orchestrator", params={}))
    store.heartbeat("w", [task.claim], lease_s=60, current_model="wan")
    counts = call(service, "task_counts", p_run_type="gpu")
    assert (counts["mode"], counts["run_type_filter"]) == ("count", "gpu")
    assert counts["totals"] == {
        "queued_only": 2, "active_only": 1, "queued_plus_active": 3, "blocked_by_capacity": 1, "blocked_by_deps": 1,
        "blocked_by_settings": 0, "potentially_claimable": 3,
    }  # fmt: skip
    [queued] = counts["queued_tasks"]
    assert (queued["task_id"], queued["task_type"], queued["user_id"]) == (ours, "t2v", None)
    [active] = counts["active_tasks"]
    assert (active["task_id"], active["worker_id"], active["user_id"]) == (first, "w", ANNA)
    assert active["started_at"].endswith("Z")
    assert counts["users"] == [
        {"user_id": ANNA, "credits": 7, "queued_tasks": 2, "in_progress_tasks": 1, "allows_cloud": True,
         "at_limit": True}
    ]  # fmt: skip
    assert call(service, "task_counts", p_include_active=False)["active_tasks"] == []
    nothing = call(service, "task_counts", p_run_type="api")
    assert set(nothing["totals"].values()) == {0}


def test_the_counts_of_a_person(store: PostgresStore, anna: Connection) -> None:
    for _ in range(2):
        store.add(NewTask(task_type="t2v", params={}, project_id=HERS))
    [task] = store.claim("w", lease_s=60)
    store.add(NewTask(task_type="t2v", params={}))
    counts = call(anna, "task_counts")
    assert counts["user_id"] == ANNA
    assert counts["totals"] == {"queued_only": 1, "active_only": 1, "queued_plus_active": 2, "eligible_queued": 1}
    assert [row["task_id"] for row in counts["active_tasks"]] == [task.id]
    assert len(counts["queued_tasks"]) == 1 and counts["workers"] == []
    assert counts["user_info"] == {"user_id": ANNA, "credits": 7, "allows_local": True, "allows_cloud": True}
    assert counts["debug_summary"] == {"at_capacity": True, "capacity_used_pct": 100, "can_claim_more": False}


def test_the_numbers_of_a_worker(store: PostgresStore, service: Connection) -> None:
    for _ in range(5):
        store.add(NewTask(task_type="t2v", params={}))
    done, old, failed, running = store.claim("w", lease_s=60, limit=4)
    store.heartbeat("w", [running.claim], lease_s=60, current_model="wan")
    service.execute("update public.tasks set generation_started_at = now() - interval '90 s' where id = %s", (done.id,))
    store.complete(done.claim, "x")
    store.complete(old.claim, "x")
    service.execute("update public.tasks set generation_processed_at = now() - interval '2 h' where id = %s", (old.id,))
    store.fail(failed.claim, "boom", error_class="engine")
    [worker] = call(service, "task_counts")["workers"]
    assert 0 <= worker.pop("seconds_since_heartbeat") < 60
    assert 90 <= worker.pop("average_seconds") < 100
    assert worker == {"id": "w", "status": "active", "current_model": "wan", "tasks_in_progress": 1,
                      "completed_last_hour": 1, "failed_last_hour": 1}  # fmt: skip


def test_a_person_s_pace_counts_what_they_made_themselves(
    store: PostgresStore, service: Connection, anna: Connection
) -> None:
    store.add(NewTask(task_type="t2v", params={}))
    orchestrator = store.add(NewTask(task_type="travel_orchestrator", params={}, project_id=HERS))
    assert call(anna, "creations_in_last_minute") == 1
    [task] = store.claim("w", lease_s=60, task_types=["travel_orchestrator"])
    child = NewTask.child(task, "segment:0", "t2v", {})
    store.add(NewTask(task_type="t2v", params={"orchestrator_task_id_ref": orchestrator}, project_id=HERS))
    store.fan_out(task.claim, [child], final_child=child.id)
    assert call(anna, "creations_in_last_minute") == 1
    service.execute("update public.tasks set created_at = now() - interval '61 s'")
    assert call(anna, "creations_in_last_minute") == 0
