"""`debug.py doctor` on a Supabase project: the local stack, with things broken on purpose."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from functions_site import Answer, functions_site
from local_stack import LocalStack
from local_stack import stack as stack

import debug
from source.doctor.checks import Finding, State, examine
from source.doctor.clocks import Clock, machine_clock
from source.doctor.functions import HARMLESS
from source.doctor.rest import anonymous
from source.doctor.supabase import supabase_checks
from source.logs import redact
from source.settings import Settings, load_settings

CHECKS = ["address", "token", "database", "clock", "functions", "storage", "rls", "other people", "strangers"]


def settings_of(stack: LocalStack, token: str, **given: Any) -> Settings:
    return load_settings(db_type="supabase", supabase_url=stack.url, supabase_access_token=token, **given)


def looked(settings: Settings, *names: str, clock: Clock = machine_clock) -> dict[str, Finding]:
    """What the checks of the project find, all or some of them."""
    with ExitStack() as opened:
        checks = supabase_checks(settings, clock, opened)
        wanted = [check for check in checks if not names or check.name in {*names, "address", "token", "database"}]
        return {each.check: each.finding for each in examine(wanted)}


def failures(found: Mapping[str, Finding]) -> list[str]:
    return [name for name, finding in found.items() if finding.state in (State.FAILED, State.WARNING)]


def test_every_function_has_a_body_that_changes_nothing(root: Path) -> None:
    folders = {path.parent.name for path in (root / "supabase" / "functions").glob("*/handler.ts")}
    assert set(HARMLESS) == folders


def test_a_healthy_project_passes_for_the_service_and_for_a_person(stack: LocalStack) -> None:
    anna = stack.person()
    for token, seen in (
        (stack.service_key, State.SKIPPED),
        (anna.access_token, State.OK),
        (stack.jwt_of(anna), State.OK),
    ):
        found = looked(settings_of(stack, token))
        assert failures(found) == [], found
        assert list(found) == CHECKS
        assert found["other people"].state is seen
    assert not [path for path in stack.objects.rglob("*") if path.is_file()]


def test_the_command_says_so_and_shows_no_secret(
    stack: LocalStack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    anna = stack.person()
    given = {
        "DB_TYPE": "supabase", "SUPABASE_URL": stack.url, "SUPABASE_ACCESS_TOKEN": anna.access_token,
        "SUPABASE_ANON_KEY": stack.anon_key, "CKPTS": str(tmp_path), "DEVICE": "cpu",
    }  # fmt: skip
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.argv", ["debug.py", "doctor"])
    assert debug.main() == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith(f"Supabase {stack.url}\n")
    assert f"of the person {anna.user_id}" in out
    assert not {secret for secret in (anna.access_token, stack.anon_key) if secret in out}


def test_nothing_is_changed(stack: LocalStack) -> None:
    anna = stack.person()
    looked(settings_of(stack, anna.access_token))
    looked(settings_of(stack, stack.service_key))
    with stack.database.acting() as superuser:
        for table in ("tasks", "workers", "system_logs", "task_events", "generations", "task_uploads"):
            row = superuser.execute(f"select count(*) from public.{table}".encode()).fetchone()
            assert row == (0,), table


def test_a_wrong_token_and_a_wrong_address_are_told_apart(stack: LocalStack) -> None:
    found = looked(settings_of(stack, "pat_of_nobody"))
    assert failures(found) == ["token", "functions"]
    assert "nobody has this access token" in found["token"].measured
    assert "SUPABASE_ACCESS_TOKEN" in found["token"].advice
    assert redact(found["token"].advice) == found["token"].advice, "it is shown as it is"
    assert "our own token is refused (403)" in found["functions"].measured
    gone = looked(load_settings(db_type="supabase", supabase_url="http://127.0.0.1:9", supabase_access_token="x"))
    assert gone["address"].state is State.FAILED
    assert "SUPABASE_URL" in gone["address"].advice
    assert {finding.state for name, finding in gone.items() if name != "address"} == {State.SKIPPED}


def test_a_function_that_is_missing_is_named(stack: LocalStack) -> None:
    nowhere = f"{stack.url}/functions/v1/nowhere"
    found = looked(settings_of(stack, stack.service_key, supabase_edge_create_task_url=nowhere), "functions")
    assert found["functions"].measured == "create-task: not there (404)"
    assert "supabase functions deploy create-task" in found["functions"].advice


def test_a_database_that_does_not_answer_is_no_lack_of_migrations() -> None:
    told = {"success": False, "error": "the database does not answer; try again"}
    refusal = Answer(told, 503, {"Retry-After": "60"})
    with functions_site() as site:
        for name in HARMLESS:
            site.answer(name, refusal)
        found = looked(load_settings(db_type="supabase", supabase_url=site.url, supabase_access_token="x"), "functions")
    assert "whether the database runs" in found["database"].advice
    assert "migrations" not in found["database"].advice
    assert found["functions"].advice.count("\n") == 0, "what is the same for all is said once"


def test_a_function_that_lets_strangers_in_is_named(stack: LocalStack) -> None:
    with functions_site() as site:
        careless = f"{site.url}/task-counts"
        found = looked(settings_of(stack, stack.service_key, supabase_edge_task_counts_url=careless), "functions")
    assert "no token is answered 200, not 401" in found["functions"].measured
    assert "task-counts lets strangers in" in found["functions"].advice


@pytest.mark.parametrize(("off_s", "state"), [(0, State.OK), (-5, State.WARNING), (40, State.FAILED)])
def test_a_clock_that_is_off_is_found(stack: LocalStack, off_s: float, state: State) -> None:
    off = timedelta(seconds=off_s)
    found = looked(settings_of(stack, stack.service_key), "clock", clock=lambda: datetime.now(UTC) + off)
    assert found["clock"].state is state


def test_a_table_whose_rows_are_open_is_named(stack: LocalStack) -> None:
    with stack.database.acting() as superuser:
        superuser.execute(b"alter table public.system_logs disable row level security")
        try:
            found = looked(settings_of(stack, stack.service_key), "rls")
        finally:
            superuser.execute(b"alter table public.system_logs enable row level security")
    assert found["rls"].state is State.FAILED
    assert "system_logs" in found["rls"].measured
    assert "alter table public.system_logs enable" in found["rls"].advice


def test_a_policy_that_shows_the_tasks_of_others_is_found(stack: LocalStack) -> None:
    anna, bert = stack.person(), stack.person()
    with stack.database.acting() as superuser:
        insert = "insert into public.tasks (task_type, params, project_id) values ('t2v', '{}', %s)"
        superuser.execute(insert.encode(), (bert.project_id,))
        settings = settings_of(stack, anna.access_token)
        assert looked(settings, "other people")["other people"].state is State.OK
        superuser.execute(b"create policy leak on public.tasks for select to authenticated using (true)")
        try:
            found = looked(settings, "other people")
        finally:
            superuser.execute(b"drop policy leak on public.tasks")
    assert found["other people"].state is State.FAILED
    assert bert.project_id in found["other people"].measured


def test_a_database_without_its_newest_migration_is_found(stack: LocalStack) -> None:
    recorded = "supabase_migrations.schema_migrations"
    with stack.database.acting() as superuser:
        superuser.execute(f"create temporary table kept as select * from {recorded}".encode())
        superuser.execute(f"delete from {recorded} where version > '20261126100000'".encode())
        try:
            found = looked(settings_of(stack, stack.service_key), "rls")
        finally:
            superuser.execute(f"insert into {recorded} select * from kept on conflict do nothing".encode())
    assert found["database"].state is State.FAILED
    assert "supabase db push" in found["database"].advice


def test_a_database_that_was_never_migrated_is_found(stack: LocalStack) -> None:
    with stack.database.acting() as superuser:
        superuser.execute(b"alter function public.installation() rename to not_there")
        try:
            found = looked(settings_of(stack, stack.service_key), "rls")
        finally:
            superuser.execute(b"alter function public.not_there() rename to installation")
    assert found["database"].state is State.FAILED
    assert "supabase db push" in found["database"].advice


class Rest(BaseHTTPRequestHandler):
    """A REST interface that answers everybody the same."""

    status = 401

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, *_: Any) -> None:
        """The tests say what matters."""


@pytest.mark.parametrize(
    ("status", "state"), [(401, State.OK), (403, State.OK), (200, State.FAILED), (400, State.FAILED), (404, State.OK)]
)
def test_what_strangers_may_do_by_the_rest_interface_is_looked_at(status: int, state: State) -> None:
    answering = type("Answering", (Rest,), {"status": status})
    with ThreadingHTTPServer(("127.0.0.1", 0), answering) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        found = anonymous(
            load_settings(db_type="supabase", supabase_url=url, supabase_access_token="x", supabase_anon_key="anon")
        )
        server.shutdown()
        thread.join()
    assert found.state is state


def test_storage_that_does_not_answer_is_found(stack: LocalStack) -> None:
    stack.s3.kill()
    try:
        found = looked(settings_of(stack, stack.service_key), "storage")
    finally:
        stack.start()
    assert found["storage"].state is State.FAILED
    assert "S3_ENDPOINT" in found["storage"].advice


def test_a_bucket_by_another_name_than_the_workers_is_found(stack: LocalStack) -> None:
    found = looked(settings_of(stack, stack.service_key, supabase_video_bucket="other"), "storage")
    assert found["storage"].state is State.WARNING
    assert "SUPABASE_VIDEO_BUCKET" in found["storage"].advice
