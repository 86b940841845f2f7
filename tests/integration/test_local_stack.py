"""The stack that tests run against: parts that are killed, paused and started again, people and their tokens."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests
from local_stack import LocalStack, bearer
from local_stack import stack as stack


def count(stack: LocalStack, token: str, timeout: float = 20) -> requests.Response:
    """A call that every caller may make and that reads the database."""
    url = f"{stack.url}/functions/v1/task-store"
    return requests.post(url, headers=bearer(token), json={"operation": "count_tasks"}, timeout=timeout)


def public(stack: LocalStack, key: str, **options: object) -> requests.Response:
    url = f"{stack.url}/storage/v1/object/public/image_uploads/{key}"
    return requests.request(str(options.pop("method", "GET")), url, timeout=20, **options)  # type: ignore[arg-type]


def test_each_kind_of_token_is_taken_for_what_it_is(stack: LocalStack) -> None:
    anna = stack.person()
    for token in (stack.service_key, stack.secret_key, anna.access_token, stack.jwt_of(anna)):
        assert count(stack, token).status_code == 200
    for token in (stack.forged_jwt(), stack.forged_jwt("authenticated", anna), stack.expired_jwt(anna)):
        assert count(stack, token).status_code == 401
    for token in ("pat_of_nobody", stack.secret_key[:-1], "default"):
        assert count(stack, token).status_code == 403
    assert count(stack, stack.anon_key).status_code == 403


@pytest.mark.parametrize("name", ["postgres", "s3", "gateway"])
def test_a_part_that_was_killed_starts_again_at_its_port_with_what_it_had(stack: LocalStack, name: str) -> None:
    anna = stack.person()
    (stack.objects / "kept.txt").write_text("kept")
    part = getattr(stack, name)
    part.kill()
    assert part.process() is None and not part.answers()
    stack.start()
    assert part.answers()
    assert count(stack, anna.access_token).status_code == 200
    assert public(stack, "kept.txt").text == "kept"


def test_a_part_that_is_paused_answers_when_it_is_resumed(stack: LocalStack) -> None:
    stack.s3.pause()
    assert not stack.s3.answers()
    stack.postgres.pause()
    with pytest.raises(requests.Timeout):
        count(stack, stack.service_key, timeout=1)
    stack.start()
    assert stack.s3.answers()
    assert count(stack, stack.service_key).status_code == 200


def test_what_a_killed_process_of_tests_leaves_is_cleared_away(tmp_path: Path, root: Path) -> None:
    done = tmp_path / "done"
    code = (
        "import sys, time; from process_end import at_process_end\n"
        "at_process_end('open(sys.argv[1], \"x\").close()', sys.argv[1]); print('ready', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, done], cwd=root / "tests", stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    assert not done.exists()
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 20
    while not done.exists():
        assert time.monotonic() < deadline


def test_nothing_is_left_of_the_test_before(stack: LocalStack) -> None:
    anna = stack.person()
    (stack.objects / anna.user_id / "tasks").mkdir(parents=True)
    (stack.objects / anna.user_id / "tasks" / "1-a.txt").write_text("a")
    assert public(stack, f"{anna.user_id}/tasks/1-a.txt").text == "a"
    stack.empty()
    assert count(stack, anna.access_token).status_code == 403
    # 400 when the S3 server has noticed, 502 when it still remembers the name of what it cannot open
    assert public(stack, f"{anna.user_id}/tasks/1-a.txt").status_code in (400, 502)
