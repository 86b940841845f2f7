"""The Edge Functions by their own tests (supabase/functions/tests), run by Deno against the local stack; and what they
do when the database goes away, which only its owner can arrange."""

from __future__ import annotations

import json
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

import pytest
import requests
from local_stack import LocalStack, bearer
from local_stack import stack as stack

from source.devstack.programs import program

ROOT = Path(__file__).resolve().parent.parent.parent
FUNCTIONS = ROOT / "supabase" / "functions"


def somebody(stack: LocalStack) -> dict[str, str]:
    """A person with a shot of two images."""
    person = stack.person()
    with stack.database.acting("service_role") as service:
        row = service.execute(
            "with shot as (insert into public.shots (project_id) values (%(project)s) returning id),"
            " images as (insert into public.generations (project_id, type, location)"
            "   select %(project)s, 'image', number || '.png' from generate_series(1, 2) as number returning id),"
            " placed as (insert into public.shot_generations (shot_id, generation_id, timeline_frame)"
            "   select shot.id, images.id, 0 from shot, images)"
            " select id from shot",
            {"project": person.project_id},
        ).fetchone()
    assert row is not None
    return {**person.model_dump(), "shot_id": str(row[0])}


def test_every_test_of_the_functions_passes(stack: LocalStack, tmp_path: Path) -> None:
    files = [file.name for file in (FUNCTIONS / "tests").glob("*_test.ts")]
    people = {name: [somebody(stack) for _ in range(3)] for name in files}
    given = {"SUPABASE_URL": stack.url, "TEST_PEOPLE": json.dumps(people), "NO_COLOR": "1"}
    report = tmp_path / "junit.xml"
    ran = subprocess.run(
        [
            program("deno"), "test", "--quiet", "--no-check", "--frozen", "--allow-env", "--allow-net", "--allow-read",
            "--junit-path", str(report), "tests",
        ],
        cwd=FUNCTIONS, capture_output=True, text=True, timeout=120,
        env=os.environ | stack.functions_environment | given,
    )  # fmt: skip
    cases = list(ElementTree.parse(report).iter("testcase")) if report.exists() else []
    failed = [case.get("name") for case in cases if case.find("failure") is not None]
    assert ran.returncode == 0 and not failed, f"{failed}\n{ran.stdout[-8000:]}{ran.stderr[-2000:]}"
    assert len(cases) > 60
    assert not [case.get("name") for case in cases if case.find("skipped") is not None]


def counted(stack: LocalStack) -> requests.Response:
    """An answer that takes one look into the database."""
    return requests.post(
        f"{stack.url}/functions/v1/task-store", json={"operation": "count_tasks"},
        headers=bearer(stack.service_key), timeout=30,
    )  # fmt: skip


def statuses_of_many(stack: LocalStack) -> set[int]:
    """Of more requests at once than the functions have connections."""
    with ThreadPoolExecutor(12) as threads:
        return {answer.status_code for answer in threads.map(lambda _: counted(stack), range(24))}


def test_a_connection_that_broke_costs_no_later_request(stack: LocalStack) -> None:
    assert statuses_of_many(stack) == {200}
    with stack.database.acting() as superuser:
        ended = superuser.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'edge_functions'"
        ).fetchall()
    assert ended
    assert statuses_of_many(stack) <= {200, 503}
    assert statuses_of_many(stack) == {200}


def test_while_the_database_is_away_functions_say_so_and_then_go_on(stack: LocalStack) -> None:
    assert counted(stack).status_code == 200
    stack.postgres.kill()
    try:
        began = time.monotonic()
        for _ in range(3):
            answer = counted(stack)
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
            assert answer.json()["success"] is False
        assert time.monotonic() - began < 20
    finally:
        stack.start()
    assert counted(stack).status_code == 200
    assert statuses_of_many(stack) == {200}


@pytest.mark.slow
@pytest.mark.alone
def test_a_database_that_says_nothing_any_more_is_left_alone(stack: LocalStack) -> None:
    assert statuses_of_many(stack) == {200}
    stack.postgres.pause()
    try:
        assert counted(stack).status_code == 503
    finally:
        stack.postgres.resume()
    assert statuses_of_many(stack) == {200}


@pytest.mark.slow
@pytest.mark.alone
def test_who_waits_too_long_for_a_lock_is_told_to_try_again(stack: LocalStack) -> None:
    person = stack.person()
    task = {"task_type": "t2v", "params": {}, "project_id": person.project_id}
    address, token = f"{stack.url}/functions/v1", bearer(person.access_token)
    task_id = requests.post(f"{address}/create-task", json=task, headers=token, timeout=30).json()["task_id"]
    with stack.database.acting() as other, other.transaction():
        other.execute("select private.alone()")
        answer = requests.post(f"{address}/cancel-task", json={"task_id": task_id}, headers=token, timeout=60)
    assert (answer.status_code, answer.json()["code"]) == (503, "57014")
    again = requests.post(f"{address}/cancel-task", json={"task_id": task_id}, headers=token, timeout=30)
    assert again.json()["status"] == "Cancelled"


@pytest.mark.slow
@pytest.mark.alone
def test_what_was_given_up_behind_a_lock_is_not_done_later_and_costs_others_no_connection(stack: LocalStack) -> None:
    # the service's: looking up a person's token would wait for a connection too, with a deadline of its own
    token, functions = bearer(stack.service_key), f"{stack.url}/functions/v1"
    task = {"task_type": "t2v", "params": {}, "project_id": stack.person().project_id}
    made = [
        requests.post(f"{functions}/create-task", json=task, headers=token, timeout=30).json()["task_id"]
        for _ in range(16)
    ]

    def cancel(task_id: str) -> tuple[int, str]:
        answer = requests.post(f"{functions}/cancel-task", json={"task_id": task_id}, headers=token, timeout=60)
        return answer.status_code, answer.json()["code"]

    with stack.database.acting() as other, other.transaction(), ThreadPoolExecutor(16) as threads:
        other.execute("select private.alone()")
        answers = set(threads.map(cancel, made))
    assert answers == {(503, "57014"), (503, "PT503")}
    assert statuses_of_many(stack) == {200}
    with stack.database.acting() as superuser:
        states = superuser.execute("select distinct status::text from public.tasks").fetchall()
    assert states == [("Queued",)]


def test_an_older_worker_s_result_does_not_end_the_claim_that_came_meanwhile(stack: LocalStack) -> None:
    address, service = f"{stack.url}/functions/v1", bearer(stack.service_key)
    task = {"task_type": "t2v", "params": {}, "project_id": stack.person().project_id}
    task_id = requests.post(f"{address}/create-task", json=task, headers=service, timeout=30).json()["task_id"]
    claimed = requests.post(f"{address}/claim-next-task", json={"worker_id": "slow"}, headers=service, timeout=30)
    assert claimed.json()["task_id"] == task_id
    change = {"task_id": task_id, "status": "Complete", "output_location": "https://a.example/1", "worker_id": "slow"}
    with ThreadPoolExecutor(1) as thread, stack.database.acting() as other:
        with other.transaction():
            other.execute("select private.alone()")
            answer = thread.submit(
                requests.post, f"{address}/update-task-status", json=change, headers=service, timeout=30
            )
            waits = "select exists (select from pg_locks where locktype = 'advisory' and not granted)"
            while not other.execute(waits.encode()).fetchall()[0][0]:
                assert not answer.done()
            # its lease ran out, and another older worker took the row
            queued = "update public.tasks set status = 'Queued', worker_id = null, claimed_at = null where id = %s"
            other.execute(queued, (task_id,))
            other.execute("update public.tasks set status = 'In Progress', worker_id = 'quick', claimed_at = now(), "
                          "lease_expires_at = now() + interval '2 h' where id = %s", (task_id,))  # fmt: skip
        assert answer.result().status_code == 409, answer.result().text
        status = "select status::text, worker_id from public.tasks where id = %s"
        assert other.execute(status, (task_id,)).fetchall() == [("In Progress", "quick")]
