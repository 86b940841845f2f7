"""What a claim declares before it uploads, and what it may still ask about itself."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from postgres_server import DEFAULT_PROJECT, Connection, call
from postgres_server import database as database
from postgres_server import shared_database as shared_database
from postgres_store import PostgresStore
from postgres_store import service as service
from postgres_store import store as store

from source.store.types import NewTask, Task

ANNA, HERS = "aaaaaaaa-0000-4000-8000-000000000001", "aaaaaaaa-0000-4000-8000-00000000000a"
SHA, MD5 = "Ab" * 32, "0f" * 16


@pytest.fixture
def running(store: PostgresStore) -> Task:
    store.add(NewTask(task_type="t2v", params={}))
    [task] = store.claim("w", lease_s=600)
    return task


def declare(connection: Connection, task: Task | str, name: str = "a.mp4", **values: Any) -> Any:
    """As the claim of `task`; of an id, as a client of the older contract."""
    held = {"p_worker_id": None, "p_claim_number": None}
    if isinstance(task, Task):
        held = {"p_worker_id": task.worker_id, "p_claim_number": task.claim_number}
    task_id = task.id if isinstance(task, Task) else task
    return call(connection, "declare_upload", p_task_id=task_id, **held, p_filename=name, **values)


def state(connection: Connection, task: Task) -> str:
    given = {"p_task_id": task.id, "p_worker_id": task.worker_id, "p_claim_number": task.claim_number}
    return str(call(connection, "claim_state", **given))


def test_a_declared_file_lies_under_its_claim_number(service: Connection, running: Task) -> None:
    made = declare(service, running, p_size_bytes=7, p_sha256=SHA, p_md5=MD5)
    path = f"{DEFAULT_PROJECT}/tasks/{running.id}/1-a.mp4"
    assert made == {"storage_path": path, "claim_number": 1}
    declare(service, running, "b.jpg")
    first, second = call(service, "declared_uploads", p_task_id=running.id, p_claim_number=1)
    assert first == {"storage_path": path, "size_bytes": 7, "sha256": SHA.lower(), "md5": MD5}
    assert set(second.values()) == {path.replace("a.mp4", "b.jpg"), None}
    assert call(service, "declared_uploads", p_task_id=running.id) == [first, second]
    assert call(service, "declared_uploads", p_task_id=running.id, p_claim_number=2) == []


def test_declaring_again_replaces_size_and_checksums(service: Connection, running: Task) -> None:
    declare(service, running, p_size_bytes=7, p_sha256=SHA)
    declare(service, running, p_size_bytes=8, p_md5=MD5)
    [upload] = call(service, "declared_uploads", p_task_id=running.id)
    assert (upload["size_bytes"], upload["sha256"], upload["md5"]) == (8, None, MD5)


def test_the_files_of_a_person_s_task_lie_under_their_id(store: PostgresStore, service: Connection) -> None:
    service.execute("insert into public.users (id) values (%s)", (ANNA,))
    service.execute("insert into public.projects (id, user_id) values (%s, %s)", (HERS, ANNA))
    store.add(NewTask(task_type="t2v", params={}, project_id=HERS))
    [task] = store.claim("w", lease_s=600)
    assert declare(service, task)["storage_path"] == f"{ANNA}/tasks/{task.id}/1-a.mp4"
    with store.database.acting("authenticated", ANNA) as anna:
        assert len(call(anna, "declared_uploads", p_task_id=task.id)) == 1


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", "a\nb", "\x7f", "é" * 101, None])
def test_a_name_that_could_leave_its_folder_is_refused(service: Connection, running: Task, name: str) -> None:
    with pytest.raises(psycopg.Error, match="is no file name") as error:
        declare(service, running, name)
    assert (error.value.sqlstate, error.value.diag.column_name) == ("PT400", "filename")


@pytest.mark.parametrize("bad", [{"p_size_bytes": -1}, {"p_sha256": "abc"}, {"p_md5": "g" * 32}])
def test_sizes_and_checksums_must_be_some(service: Connection, running: Task, bad: dict[str, Any]) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        declare(service, running, **bad)


def test_only_the_claim_that_holds_the_row_declares(store: PostgresStore, service: Connection) -> None:
    store.add(NewTask(task_type="t2v", params={}))
    [stale] = store.claim("w1", lease_s=-1)
    [task] = store.claim("w2", lease_s=600)
    for claim in (stale, task.id, "aaaaaaaa-0000-4000-8000-0000000000ff"):
        with pytest.raises(psycopg.Error) as error:
            declare(service, claim)
        assert error.value.sqlstate == "PT409"
    store.complete(task.claim, "x")
    with pytest.raises(psycopg.Error, match="is Complete"):
        declare(service, task)
    assert service.execute("select count(*) from public.task_uploads").fetchone() == (0,)


def test_a_client_of_the_older_contract_declares_and_completes_without_a_number(
    store: PostgresStore, service: Connection
) -> None:
    added = store.add(NewTask(task_type="t2v", params={}))
    service.execute("select public.claim_next_task_service_role('old')")
    assert declare(service, added)["claim_number"] == 1
    values: dict[str, Any] = {"p_task_id": added, "p_worker_id": None, "p_claim_number": None}
    assert call(service, "claim_state", **values) == "held"
    with pytest.raises(psycopg.Error, match="is stale"):
        call(service, "claim_state", **values | {"p_worker_id": "another"})
    done = {**values, "p_output_location": "x"}
    assert [call(service, "complete_task", **done) for _ in range(2)] == [True, False]
    assert call(service, "claim_state", **values) == "completed"


def test_an_older_worker_completes_its_waiting_orchestrator(store: PostgresStore, service: Connection) -> None:
    """With or without the number of its claim; another number is stale."""
    added = store.add(NewTask(task_type="travel_orchestrator", params={}))
    service.execute("select public.claim_next_task_service_role('old')")
    store.add(NewTask(task_type="travel_segment", params={"orchestrator_task_id_ref": added}))
    call(service, "func_update_task_status", p_task_id=added, p_status="In Progress", p_output_location="one")
    assert store.get(added).waiting
    done = {"p_task_id": added, "p_worker_id": "old", "p_output_location": "x"}
    with pytest.raises(psycopg.Error, match="claim 2 of old is stale"):
        call(service, "complete_task", **done, p_claim_number=2)
    assert call(service, "complete_task", **done, p_claim_number=1) is True
    assert call(service, "complete_task", **done | {"p_worker_id": None}, p_claim_number=None) is False


def test_a_claim_knows_its_state(store: PostgresStore, service: Connection) -> None:
    store.add(NewTask(task_type="t2v", params={}))
    [stale] = store.claim("w", lease_s=-1)
    assert state(service, stale) == "held"
    [task] = store.claim("w", lease_s=600)
    store.complete(task.claim, "x")
    assert state(service, task) == "completed"
    with pytest.raises(psycopg.Error, match="claim 1 of w is stale, the task is Complete") as error:
        state(service, stale)
    assert error.value.sqlstate == "PT409"


def test_uploads_go_with_their_task(service: Connection, running: Task) -> None:
    declare(service, running)
    service.execute("delete from public.tasks")
    assert service.execute("select count(*) from public.task_uploads").fetchone() == (0,)
