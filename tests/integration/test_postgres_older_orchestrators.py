"""Orchestrators of the older contract: children that name them in their params only, ended by the server."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from postgres_server import Connection, Database, call
from postgres_server import database as database
from postgres_server import shared_database as shared_database
from postgres_store import PostgresStore
from postgres_store import service as service
from postgres_store import store as store
from psycopg.types.json import Jsonb

from source.store.types import NewTask, Status, Task

ANNA, HERS = "aaaaaaaa-0000-4000-8000-000000000001", "aaaaaaaa-0000-4000-8000-00000000000a"


def older_claim(service: Connection, worker_id: str = "old") -> str:
    row = service.execute("select task_id::text from public.claim_next_task_service_role(%s)", (worker_id,)).fetchone()
    assert row is not None
    return str(row[0])


def update(service: Connection, task_id: str, status: str, text: str | None = None) -> None:
    call(service, "func_update_task_status", p_task_id=task_id, p_status=status, p_output_location=text)


def running(store: PostgresStore, service: Connection, task_type: str = "travel_orchestrator", **details: Any) -> str:
    """An orchestrator that a worker of the older contract holds."""
    details = {"run_id": "run-1", "num_new_segments_to_generate": 2} | details
    added = store.add(NewTask(task_type=task_type, params={"orchestrator_details": details}, priority=9))
    assert older_claim(service) == added
    return added


def child(store: PostgresStore, orchestrator: str, index: int, task_type: str = "travel_segment", **values: Any) -> str:
    params = {"orchestrator_task_id_ref": orchestrator, "orchestrator_run_id": "run-1", "segment_index": index}
    return store.add(NewTask(**{"task_type": task_type, "params": params} | values))


def fanned_out(store: PostgresStore, service: Connection, segments: int = 2, *, stitch: bool = False) -> list[str]:
    """An orchestrator and its children, in the order of insertion."""
    orchestrator = running(store, service, num_new_segments_to_generate=segments)
    ids = [orchestrator, *(child(store, orchestrator, index) for index in range(segments))]
    if stitch:
        params = {"orchestrator_task_id_ref": orchestrator}
        ids.append(store.add(NewTask(task_type="travel_stitch", params=params, dependant_on=(ids[-1],))))
    update(service, orchestrator, "In Progress", "2 segments are on their way")
    return ids


def complete(service: Connection, *ids: str) -> None:
    """Claim the next rows as an older worker, each of which must be the named one, and complete them."""
    for task_id in ids:
        assert older_claim(service) == task_id
        update(service, task_id, "Complete", f"https://files/{task_id}.mp4")


def statuses(store: PostgresStore, ids: list[str]) -> list[str]:
    return [str(store.get(task_id).status) for task_id in ids]


def test_an_orchestrator_ends_with_its_last_segment(store: PostgresStore, service: Connection) -> None:
    orchestrator, first, second = fanned_out(store, service)
    waits = store.get(orchestrator)
    assert (waits.status, waits.waiting, waits.lease_expires_at) == (Status.IN_PROGRESS, True, None)
    assert waits.progress == {"message": "2 segments are on their way"}
    complete(service, first)
    assert store.get(orchestrator).waiting
    complete(service, second)
    done = store.get(orchestrator)
    assert (done.status, done.output_location) == (Status.COMPLETE, f"https://files/{second}.mp4")
    assert done.generation_started_at == store.get(first).generation_started_at


def test_the_output_is_that_of_the_last_segment_whichever_ends_last(store: PostgresStore, service: Connection) -> None:
    orchestrator, first, second = fanned_out(store, service)
    assert [older_claim(service, "a"), older_claim(service, "b")] == [first, second]
    update(service, second, "Complete", "second")
    update(service, first, "Complete", "first")
    assert store.get(orchestrator).output_location == "second"


def test_a_run_with_a_stitch_waits_for_it(store: PostgresStore, service: Connection) -> None:
    orchestrator, first, second, stitch = fanned_out(store, service, stitch=True)
    complete(service, first, second)
    assert store.get(orchestrator).status == Status.IN_PROGRESS
    complete(service, stitch)
    done = store.get(orchestrator)
    assert (done.status, done.output_location) == (Status.COMPLETE, f"https://files/{stitch}.mp4")


@pytest.mark.parametrize("status", ["Failed", "Cancelled"])
def test_a_child_that_ends_badly_takes_the_orchestrator_and_the_open_siblings_along(
    store: PostgresStore, service: Connection, status: str
) -> None:
    ids = fanned_out(store, service, segments=4, stitch=True)
    complete(service, ids[1])
    assert [older_claim(service, "a"), older_claim(service, "b")] == ids[2:4]
    update(service, ids[2], status, "CUDA fell over" if status == "Failed" else None)
    assert statuses(store, ids) == [status, "Complete", *[status] * 4]
    if status == "Failed":
        assert "CUDA fell over" in str(store.get(ids[0]).error_message)
        assert "CUDA fell over" in str(store.get(ids[4]).error_message)
    with pytest.raises(psycopg.Error) as error:
        update(service, ids[3], "Complete", "too late")
    assert error.value.sqlstate == "PT422"


def test_a_sibling_of_a_newer_worker_is_asked_to_stop(store: PostgresStore, service: Connection) -> None:
    orchestrator, first, _ = fanned_out(store, service)
    assert older_claim(service) == first
    [sibling] = store.claim("new", lease_s=60)
    update(service, first, "Failed", "boom")
    assert store.get(orchestrator).status == Status.FAILED
    assert store.heartbeat("new", [sibling.claim], lease_s=60).cancel_requested == {sibling.id}
    store.cancelled(sibling.claim)


def test_a_newer_worker_ends_the_last_child_as_well(store: PostgresStore, service: Connection) -> None:
    orchestrator, _, second = fanned_out(store, service)
    for task in store.claim("new", lease_s=60, limit=2):
        store.complete(task.claim, task.id)
    assert store.get(orchestrator).output_location == second


def test_cancelling_an_orchestrator_cancels_its_children(store: PostgresStore, service: Connection) -> None:
    ids = fanned_out(store, service)
    assert older_claim(service) == ids[1]
    store.cancel(ids[0])
    assert statuses(store, ids) == ["Cancelled"] * 3


def test_an_orchestrator_that_fails_takes_its_children_along(store: PostgresStore, service: Connection) -> None:
    ids = fanned_out(store, service)
    update(service, ids[0], "Failed", "[ORCHESTRATOR_FAILED] no images")
    assert statuses(store, ids) == ["Failed"] * 3
    store.retry(ids[0])
    assert statuses(store, ids) == ["Queued"] * 3


def test_retrying_a_child_brings_its_orchestrator_and_siblings_back(store: PostgresStore, service: Connection) -> None:
    ids = fanned_out(store, service)
    older_claim(service)
    update(service, ids[1], "Failed", "boom")
    store.retry(ids[1])
    assert statuses(store, ids) == ["Queued"] * 3


def test_an_orchestrator_s_own_worker_may_complete_it(store: PostgresStore, service: Connection) -> None:
    orchestrator, first, second = fanned_out(store, service)
    update(service, orchestrator, "In Progress", "[IDEMPOTENT] nothing to do")
    given = {"p_task_id": orchestrator, "p_worker_id": None, "p_claim_number": None, "p_output_location": "mine"}
    complete(service, first, second)
    assert call(service, "complete_task", **given) is False
    update(service, orchestrator, "Complete", "mine")
    assert store.get(orchestrator).output_location == f"https://files/{second}.mp4"


def test_a_waiting_orchestrator_is_neither_rescued_nor_given_out_nor_counted(
    store: PostgresStore, service: Connection
) -> None:
    orchestrator, *children = fanned_out(store, service)
    call(service, "func_worker_heartbeat_with_logs", worker_id_param="old")
    assert store.get(orchestrator).lease_expires_at is None
    assert store.rescue() == 0
    assert call(service, "task_counts")["totals"]["active_only"] == 0
    assert [task.id for task in store.claim("new", lease_s=60, limit=9)] == children


def test_a_dead_worker_s_orchestrator_waits_when_its_children_are_there(
    store: PostgresStore, service: Connection
) -> None:
    """Its worker died after the last child and before it said so."""
    orchestrator = running(store, service)
    child(store, orchestrator, 0)
    expire = "update public.tasks set lease_expires_at = now() - interval '1 s' where id = %s"
    service.execute(expire, (orchestrator,))
    assert (store.rescue(), store.get(orchestrator).status) == (1, Status.QUEUED)
    assert older_claim(service) == orchestrator
    child(store, orchestrator, 1)
    service.execute(expire, (orchestrator,))
    assert (store.rescue(), store.get(orchestrator).waiting) == (1, True)


def test_an_orchestrator_whose_children_vanish_is_queued_again_and_in_the_end_failed(
    store: PostgresStore, service: Connection
) -> None:
    orchestrator, *_ = fanned_out(store, service)
    service.execute("delete from public.tasks where id <> %s", (orchestrator,))
    assert (store.rescue(), store.get(orchestrator).status) == (1, Status.QUEUED)
    for _ in range(2):
        assert older_claim(service) == orchestrator
        extra = [child(store, orchestrator, index) for index in range(2)]
        update(service, orchestrator, "In Progress", "again")
        service.execute("delete from public.tasks where id = any (%s::uuid[])", (extra,))
        store.rescue()
    assert store.get(orchestrator).status == Status.FAILED
    assert "missing" in str(store.get(orchestrator).error_message)


def test_duplicates_of_one_segment_count_once(store: PostgresStore, service: Connection) -> None:
    orchestrator = running(store, service)
    ids = [child(store, orchestrator, index) for index in (0, 0)]
    update(service, orchestrator, "In Progress", "planning")
    assert not store.get(orchestrator).waiting
    ids.append(child(store, orchestrator, 1))
    update(service, orchestrator, "In Progress", "all there")
    complete(service, ids[0])
    assert older_claim(service) == ids[1]
    update(service, ids[1], "Failed", "the twin did it")
    assert store.get(orchestrator).status == Status.IN_PROGRESS
    complete(service, ids[2])
    assert store.get(orchestrator).status == Status.COMPLETE


@pytest.mark.parametrize(
    ("task_type", "details", "expected"),
    [
        ("travel_orchestrator", {"num_new_segments_to_generate": 3}, 3),
        ("travel_orchestrator", {"num_new_segments_to_generate": 1e300}, 1000000),
        ("join_clips_orchestrator", {"clip_list": [{}, {}, {}, {}]}, 3),
        ("join_clips_orchestrator", {"clip_list": [{}], "loop_first_clip": True}, 1),
        ("join_clips_orchestrator", {"num_joins": 4}, 4),
        ("edit_video_orchestrator", {"num_new_segments_to_generate": "many"}, None),
    ],
)
def test_how_many_parts_an_orchestrator_makes(
    database: Database, task_type: str, details: dict[str, Any], expected: int | None
) -> None:
    with database.acting() as superuser:
        row = superuser.execute("select private.expected_parts(%s)", (Jsonb({"orchestrator_details": details}),))
        assert row.fetchone() == (expected,)


def test_joins_wait_for_all_of_them_and_for_a_final_stitch(store: PostgresStore, service: Connection) -> None:
    details = {"num_new_segments_to_generate": None, "clip_list": [{}, {}, {}]}
    orchestrator = running(store, service, "join_clips_orchestrator", **details)
    ids = []
    for index in range(2):
        params = {"orchestrator_task_id_ref": orchestrator, "join_index": index}
        ids.append(store.add(NewTask(task_type="join_clips_segment", params=params, dependant_on=tuple(ids[-1:]))))
    params = {"orchestrator_task_id_ref": orchestrator}
    ids.append(store.add(NewTask(task_type="join_final_stitch", params=params, dependant_on=(ids[-1],))))
    update(service, orchestrator, "In Progress", "2 joins")
    complete(service, *ids)
    assert store.get(orchestrator).output_location == f"https://files/{ids[-1]}.mp4"


# -- whose child it is ----------------------------------------------------------------------------------------------


def link(store: PostgresStore, service: Connection, params: dict[str, Any], **values: Any) -> str | None:
    added = store.add(NewTask(**{"task_type": "travel_segment", "params": params} | values))
    row = service.execute("select orchestrator_id::text from public.tasks where id = %s", (added,)).fetchone()
    assert row is not None
    return None if row[0] is None else str(row[0])


@pytest.mark.parametrize(
    "path",
    [
        ["orchestrator_task_id_ref"],
        ["orchestrator_details", "orchestrator_task_id"],
        ["originalParams", "orchestrator_details", "orchestrator_task_id"],
        ["orchestrator_task_id"],
    ],
)
def test_a_child_may_name_its_orchestrator_in_four_places(
    store: PostgresStore, service: Connection, path: list[str]
) -> None:
    orchestrator = running(store, service)
    params: Any = orchestrator
    for name in reversed(path):
        params = {name: params}
    assert link(store, service, params) == orchestrator
    assert link(store, service, {"orchestrator_task_id_ref": "sm_travel_1"} | params) is not None


def test_a_child_may_name_its_run_only(store: PostgresStore, service: Connection) -> None:
    orchestrator = running(store, service)
    assert link(store, service, {"orchestrator_run_id": "run-1"}) == orchestrator
    assert link(store, service, {"orchestrator_run_id": "run-2"}) is None


def test_a_name_that_is_no_open_orchestrator_of_the_project_ties_nothing(
    store: PostgresStore, service: Connection
) -> None:
    service.execute("insert into public.users (id) values (%s)", (ANNA,))
    service.execute("insert into public.projects (id, user_id) values (%s, %s)", (HERS, ANNA))
    plain = store.add(NewTask(task_type="t2v", params={}))
    orchestrator = running(store, service)
    ref = {"orchestrator_task_id_ref": orchestrator, "orchestrator_run_id": "run-1"}
    assert link(store, service, {"orchestrator_task_id_ref": plain}) is None
    assert link(store, service, ref, project_id=HERS) is None
    update(service, orchestrator, "Cancelled")
    assert link(store, service, ref) is None


def test_a_person_s_own_worker_may_insert_the_children(store: PostgresStore, service: Connection) -> None:
    service.execute("insert into public.users (id) values (%s)", (ANNA,))
    service.execute("insert into public.projects (id, user_id) values (%s, %s)", (HERS, ANNA))
    orchestrator = store.add(NewTask(task_type="travel_orchestrator", params={}, project_id=HERS))
    with store.database.acting("authenticated", ANNA) as anna:
        anna.execute("select public.claim_next_task_user_pat(%s)", (ANNA,))
        anna.execute(
            "insert into public.tasks (task_type, params, project_id) values ('travel_segment', %s, %s)",
            (Jsonb({"orchestrator_task_id_ref": orchestrator}), HERS),
        )
        update(anna, orchestrator, "In Progress", "one segment")
        anna.execute("select public.claim_next_task_user_pat(%s)", (ANNA,))
        [segment] = call(anna, "orchestrator_children", p_orchestrator_task_id=orchestrator)
        update(anna, segment["id"], "Complete", "a.mp4")
    assert store.get(orchestrator).output_location == "a.mp4"


def test_the_tie_cannot_be_changed(store: PostgresStore, service: Connection) -> None:
    orchestrator, *children = fanned_out(store, service)
    service.execute("update public.tasks set orchestrator_id = null where id = any (%s::uuid[])", (children,))
    found = call(service, "orchestrator_children", p_orchestrator_task_id=orchestrator)
    assert [row["id"] for row in found] == children


# -- the locks ------------------------------------------------------------------------------------------------------


def held(task: Task) -> dict[str, Any]:
    return {"p_task_id": task.id, "p_worker_id": task.worker_id, "p_claim_number": task.claim_number}


def test_two_last_children_that_end_at_once_end_their_orchestrator(store: PostgresStore, service: Connection) -> None:
    orchestrator, *_ = fanned_out(store, service)
    one, two = store.claim("new", lease_s=60, limit=2)
    with pytest.raises(psycopg.errors.LockNotAvailable), store.connection.transaction():
        call(store.connection, "complete_task", **held(one), p_output_location="a")
        service.execute("set lock_timeout = '100ms'")
        call(service, "complete_task", **held(two), p_output_location="b")
    store.complete(one.claim, "a")
    store.complete(two.claim, "b")
    assert store.get(orchestrator).output_location == "b"


def test_a_row_of_its_own_completes_while_others_run_alone(store: PostgresStore, service: Connection) -> None:
    store.add(NewTask(task_type="t2v", params={}))
    with store.database.acting() as superuser, superuser.transaction():
        superuser.execute("select private.alone()")
        service.execute("set lock_timeout = '100ms'")
        [task] = call(service, "claim_tasks", p_worker_id="w", p_lease_s=60)
        given = {"p_task_id": task["id"], "p_worker_id": "w", "p_claim_number": 1, "p_output_location": "x"}
        assert call(service, "complete_task", **given) is True


def test_ends_of_children_and_of_orchestrators_never_wait_in_a_circle(
    store: PostgresStore, service: Connection
) -> None:
    """Children complete and fail while their orchestrators are cancelled, completed and spoken of."""
    orchestrators = [fanned_out(store, service, segments=4)[0] for _ in range(4)]
    tasks = store.claim("new", lease_s=600, limit=16)
    assert len(tasks) == 16

    ends: list[Any] = [
        *[lambda db, task=task: call(db, "complete_task", **held(task), p_output_location="x") for task in tasks[::2]],
        *[lambda db, task=task: call(db, "fail_task", **held(task), p_message="boom", p_error_class="engine")
          for task in tasks[1::8]],
        *[lambda db, task=task: call(db, "task_cancelled", **held(task)) for task in tasks[3::4]],
        *[lambda db, orchestrator=orchestrator: call(db, "cancel_task", p_task_id=orchestrator)
          for orchestrator in orchestrators[:1]],
        *[lambda db, orchestrator=orchestrator, status=status: update(db, orchestrator, status, "told")
          for orchestrator in orchestrators for status in ("In Progress", "Complete")],
        *[lambda db: call(db, "rescue_tasks") for _ in range(4)],
    ]  # fmt: skip

    def run(end: Any) -> str | None:
        with store.database.acting("service_role") as own:
            try:
                end(own)
            except psycopg.Error as error:
                return error.sqlstate
        return None

    with ThreadPoolExecutor(8) as pool:
        states = set(pool.map(run, ends[::3] + ends[1::3] + ends[2::3]))
    assert states <= {None, "PT409", "PT422"}
    assert set(statuses(store, orchestrators)) <= {"Complete", "Failed", "Cancelled"}
