"""The three commands as a user runs them: output, files and exit codes."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from source.store.sqlite import SqliteStore
from source.store.types import NewTask

TASK_KEYS = {
    "id", "task_type", "status", "paused", "waiting", "cancel_requested", "params", "attempts", "priority", "model",
    "project_id", "parent_id", "child_key", "dependant_on", "worker_id", "claim_number", "lease_expires_at",
    "run_after", "output_location", "error_message", "error_class", "progress", "created_at", "claimed_at",
    "generation_started_at", "generation_processed_at",
    "outputs", "result", "timeline", "warnings", "claims", "timing", "share", "children", "progress_of_children",
    "frames", "loras", "cause", "reasons", "hints", "logs",
}  # fmt: skip


class Shell:
    """Runs the commands in the project's root against one database."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.root = root
        self.database = folder / "tasks.db"
        self.outputs = folder / "outputs"

    def start(self, script: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        command = [sys.executable, script, *arguments, "--db-file", str(self.database)]
        if script == "worker.py":
            command += ["--main-output-dir", str(self.outputs)]
        return subprocess.Popen(
            command, cwd=self.root, env=os.environ | {"OMP_NUM_THREADS": "1"} | environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        process = self.start(script, *arguments, **environment)
        out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def add(self, task_type: str, params: Any, *more: str) -> subprocess.CompletedProcess[str]:
        return self.run("add_task.py", "--type", task_type, "--params", json.dumps(params), *more)

    def view(self, task: str) -> dict[str, Any]:
        answer = self.run("debug.py", "task", task, "--json")
        assert answer.returncode == 0, answer.stderr
        return json.loads(answer.stdout)

    def store(self) -> SqliteStore:
        return SqliteStore(self.database)


@pytest.fixture
def shell(root: Path, tmp_path: Path) -> Shell:
    return Shell(root, tmp_path)


def test_add_task_prints_the_id_alone(shell: Shell) -> None:
    answer = shell.add("t2v", {"prompt": "a ball"})
    assert (answer.returncode, answer.stderr) == (0, "")
    task = answer.stdout.removesuffix("\n")
    assert str(uuid.UUID(task)) == task
    view = shell.view(task)
    assert set(view) == TASK_KEYS
    assert (view["status"], view["task_type"], view["params"]) == ("Queued", "t2v", {"prompt": "a ball"})
    assert [set(event) for event in view["timeline"]] == [{"at", "name", "worker_id", "claim_number", "detail"}]


def test_add_task_reads_params_from_a_file(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "params.json").write_text('{"prompt": "from a file"}')
    answer = shell.run("add_task.py", "--type", "t2v", "--params", f"@{tmp_path / 'params.json'}")
    assert shell.view(answer.stdout.strip())["params"] == {"prompt": "from a file"}


def test_add_task_takes_dependencies_priority_and_project(shell: Shell) -> None:
    first, second = (shell.add("t2v", {"prompt": name}).stdout.strip() for name in ("one", "two"))
    more = ("--dependant-on", first, "--dependant-on", second, "--priority", "5", "--project-id", "mine")
    task = shell.add("t2v", {"prompt": "three"}, *more).stdout.strip()
    store = shell.store()
    row = store.get(task)
    store.close()
    assert (row.dependant_on, row.priority, row.project_id) == ((first, second), 5, "mine")


@pytest.mark.parametrize(
    ("task_type", "params", "said"),
    [
        ("t2w", '{"prompt": "x"}', "'t2v'"),
        ("t2v", '{"prompt": "x", "resolutoin": "64x64"}', "resolution"),
        ("t2v", '{"prompt": "x", "num_frames": -3}', "-3"),
        ("t2v", '{"prompt": "x", "resolution": "90000x90000"}', "too large"),
        ("t2v", "[1, 2]", "JSON object"),
        ("t2v", "{prompt}", "JSON"),
        ("t2v", "@nowhere.json", "nowhere.json"),
        ("t2v", '{"prompt": "x", "seed": NaN}', "NaN"),
        ("t2v", "[" * 50_000, "nested"),
    ],
)
def test_add_task_refuses_bad_input_and_adds_nothing(shell: Shell, task_type: str, params: str, said: str) -> None:
    answer = shell.run("add_task.py", "--type", task_type, "--params", params)
    assert (answer.returncode, answer.stdout) == (1, "")
    assert said in answer.stderr
    assert "Traceback" not in answer.stderr
    assert not shell.database.exists()


def test_add_task_finds_a_misspelling_in_the_details_of_an_orchestrator(shell: Shell, root: Path) -> None:
    params = json.loads((root / "samples/tasks/travel_orchestrator.json").read_text())
    params["orchestrator_details"]["segment_frames_expandet"] = [81]
    answer = shell.add("travel_orchestrator", params)
    assert answer.returncode == 1
    assert "'segment_frames_expanded'" in answer.stderr


def test_add_task_without_its_arguments_is_bad_input(shell: Shell) -> None:
    assert shell.run("add_task.py", "--type", "t2v").returncode == 1
    assert shell.run("add_task.py", "--typo", "t2v").returncode == 1


def test_add_task_refuses_a_dependency_that_does_not_exist(shell: Shell) -> None:
    answer = shell.add("t2v", {"prompt": "x"}, "--dependant-on", "nobody")
    assert answer.returncode == 1
    assert "nobody" in answer.stderr


def test_add_task_refuses_a_priority_that_no_database_holds(shell: Shell) -> None:
    answer = shell.add("t2v", {"prompt": "x"}, "--priority", "99999999999999999999")
    assert (answer.returncode, answer.stdout) == (1, "")
    assert "priority" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_add_task_reads_a_file_of_an_editor_that_marks_utf_8(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "params.json").write_text('{"prompt": "猫"}', encoding="utf-8-sig")
    answer = shell.run("add_task.py", "--type", "t2v", "--params", f"@{tmp_path / 'params.json'}")
    assert shell.view(answer.stdout.strip())["params"] == {"prompt": "猫"}


def test_add_task_starts_without_the_media_libraries(root: Path) -> None:
    """They take as long to import as everything else together, and a row is checked without them."""
    program = "import sys, add_task; add_task.registry(); print(*({'numpy', 'cv2', 'av', 'torch'} & set(sys.modules)))"
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, cwd=root, text=True, capture_output=True, check=True).stdout.strip() == ""


def test_add_task_says_when_the_database_fails(shell: Shell) -> None:
    shell.database.write_text("this is no database " * 100)
    answer = shell.add("t2v", {"prompt": "x"})
    assert (answer.returncode, answer.stdout) == (2, "")
    assert str(shell.database) in answer.stderr


def test_add_task_lists_the_types(shell: Shell) -> None:
    lines = shell.run("add_task.py", "--list-types").stdout.splitlines()
    assert "travel_orchestrator" in [line.split()[0] for line in lines]


def test_debug_never_creates_a_database(shell: Shell) -> None:
    for arguments in (("tasks",), ("task", "x"), ("cancel", "x")):
        answer = shell.run("debug.py", *arguments)
        assert answer.returncode == 2
        assert str(shell.database) in answer.stderr
    assert not shell.database.exists()


@pytest.mark.parametrize("table", ["notes", "tasks"])
def test_debug_leaves_a_foreign_database_as_it_is(shell: Shell, table: str) -> None:
    """Looking changes nothing: neither in another program's file nor in the predecessor's, which has `tasks` too."""
    connection = sqlite3.connect(shell.database)
    connection.execute(f"CREATE TABLE {table} (id TEXT, task_type TEXT, params TEXT, status TEXT)")
    connection.commit()
    connection.close()
    before = shell.database.read_bytes()
    for arguments in (("tasks",), ("task", "x"), ("cancel", "x"), ("retry", "x")):
        answer = shell.run("debug.py", *arguments)
        assert answer.returncode == 2
        assert "--migrate-only" in answer.stderr
    assert shell.database.read_bytes() == before


def test_debug_opens_a_database_whose_newest_state_is_still_in_the_log(shell: Shell) -> None:
    store = shell.store()
    task = store.add(NewTask(task_type="t2v", params={"prompt": "x"}))
    assert shell.view(task)["status"] == "Queued"
    store.close()


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_debug_minds_no_reader_that_stops_early(shell: Shell, form: tuple[str, ...]) -> None:
    store = shell.store()
    store.add_many([NewTask(task_type="t2v", params={"prompt": "x"}) for _ in range(1000)])
    store.close()
    process = shell.start("debug.py", "tasks", "--limit", "1000", *form)
    assert process.stdout and process.stderr
    with process.stderr as err, process.stdout as out:
        out.readline()
        out.close()
        assert err.read() == ""
    process.wait(timeout=60)


def test_json_is_exact_whatever_the_values(shell: Shell) -> None:
    params = {"prompt": f"[bold]{'long ' * 100}\n猫 🐈 :smile:"}
    assert shell.view(shell.add("t2v", params).stdout.strip())["params"] == params


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("tasks", "--status", "Queue"), "'In Progress'"),
        (("tasks", "--limit", "-5"), "limit"),
        (("tasks", "--limit", "99999999999999999999"), "limit"),
        ((), "COMMAND"),
    ],
)
def test_debug_says_which_argument_is_wrong(shell: Shell, arguments: tuple[str, ...], said: str) -> None:
    shell.run("worker.py", "--migrate-only")
    answer = shell.run("debug.py", *arguments) if arguments else shell.run("debug.py")
    assert answer.returncode == 1
    assert said in answer.stderr
    assert "Traceback" not in answer.stderr


def test_debug_says_when_a_task_is_not_there(shell: Shell) -> None:
    shell.add("t2v", {"prompt": "x"})
    answer = shell.run("debug.py", "task", "nobody")
    assert answer.returncode == 1
    assert "nobody" in answer.stderr


def test_debug_lists_cancels_and_retries(shell: Shell) -> None:
    tasks = [shell.add("t2v", {"prompt": name}).stdout.strip() for name in ("one", "two")]
    assert json.loads(shell.run("debug.py", "cancel", tasks[0], "--json").stdout)["status"] == "Cancelled"
    listed = json.loads(shell.run("debug.py", "tasks", "--json").stdout)
    assert [view["id"] for view in listed] == tasks[::-1]
    queued = json.loads(shell.run("debug.py", "tasks", "--status", "Queued", "--type", "t2v", "--json").stdout)
    assert [view["id"] for view in queued] == tasks[1:]
    assert shell.run("debug.py", "retry", tasks[1]).returncode == 1
    readable = shell.run("debug.py", "tasks").stdout
    assert all(task in readable for task in tasks)


def test_debug_says_why_a_task_waits(shell: Shell) -> None:
    first, second = NewTask(task_type="t2v", params={}, id="first"), NewTask(task_type="t2v", params={}, id="second")
    last = NewTask(task_type="upscale_video", params={}, id="last", dependant_on=("second",))
    with closing(shell.store()) as store:
        store.add_many([first, second, last])
    said = shell.run("debug.py", "why", "second")
    assert said.returncode == 0, said.stderr
    assert [line.strip() for line in said.stdout.splitlines()] == [
        "second  t2v  Queued",
        "Nothing holds it up, but 1 row may go before it.",
        "Age: 1 row of the same owner and priority is older.",
        "No worker ever sent a heartbeat: start one with `python worker.py`.",
    ]
    view = json.loads(shell.run("debug.py", "why", "last", "--json").stdout)
    assert view["reasons"] == ["It depends on t2v second: Queued."]
    assert view["facts"]["needed"][0]["id"] == "second"
    assert shell.run("debug.py", "why", "nobody").returncode == 1


def test_debug_shows_a_task_to_people_without_secrets(shell: Shell) -> None:
    prompt = "see https://host/cat.png?token=swordfish"
    task = shell.add("t2v", {"prompt": prompt}).stdout.strip()
    answer = shell.run("debug.py", "task", task)
    assert answer.returncode == 0
    for part in (task, "t2v", "Queued", "timeline", "queued"):
        assert part in answer.stdout
    assert "swordfish" not in answer.stdout + json.dumps(shell.view(task))


def test_the_worker_leaves_at_once_when_nothing_is_queued(shell: Shell) -> None:
    answer = shell.run("worker.py", "--until-idle")
    assert answer.returncode == 0, answer.stderr


def test_the_worker_fails_a_task_whose_model_is_missing_and_says_what_would_work(shell: Shell) -> None:
    task = shell.add("t2v", {"prompt": "x"}).stdout.strip()
    answer = shell.run("worker.py", "--until-idle")
    assert answer.returncode == 0, answer.stderr
    view = shell.view(task)
    assert view["status"] == "Failed"
    assert "draft" in view["error_message"]
    assert f"[{task}]" in answer.stderr


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        (("--db-type", "oracle"), {}, "--db-type"),
        (("--poll-interval", "0"), {}, "poll_interval_s"),
        (("--wan-dir", "/nowhere"), {}, "/nowhere"),
        (("--no-such-flag",), {}, "no-such-flag"),
        ((), {"LEASE_S": "5", "HEARTBEAT_S": "9"}, "heartbeat_s"),
    ],
)
def test_the_worker_refuses_a_wrong_configuration(
    shell: Shell, arguments: tuple[str, ...], environment: dict[str, str], said: str
) -> None:
    answer = shell.run("worker.py", "--until-idle", *arguments, **environment)
    assert answer.returncode == 1
    assert said in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_worker_without_its_database_says_that_the_same_may_succeed_later(shell: Shell) -> None:
    """A supervisor tries again on 2, and leaves with a wrong configuration."""
    project = {"DB_TYPE": "supabase", "SUPABASE_URL": "http://127.0.0.1:9", "SUPABASE_ACCESS_TOKEN": "a-token"}
    answer = shell.run("worker.py", **project)
    assert (answer.returncode, "cannot be reached" in answer.stderr) == (2, True)


def test_migrate_only_makes_the_database_and_leaves(shell: Shell) -> None:
    assert shell.run("worker.py", "--migrate-only").returncode == 0
    assert json.loads(shell.run("debug.py", "tasks", "--json").stdout) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_worker_with_code_0(shell: Shell, number: signal.Signals) -> None:
    shell.run("worker.py", "--migrate-only")
    worker = shell.start("worker.py")
    store = shell.store()
    while not store.workers():
        assert worker.poll() is None
        store.wait_for_change(1.0)
    worker.send_signal(number)
    _, err = worker.communicate(timeout=30)
    assert worker.returncode == 0, err
    assert [row.status for row in store.workers()] == ["stopped"]
    store.close()


def test_a_worker_that_is_stopped_while_it_starts_has_code_0_too(shell: Shell) -> None:
    worker = shell.start("worker.py")
    loaded = Path(f"/proc/{worker.pid}/maps")
    while "pydantic_core" not in loaded.read_text():
        assert worker.poll() is None
    worker.send_signal(signal.SIGTERM)
    _, err = worker.communicate(timeout=30)
    assert worker.returncode == 0, err


def test_the_log_goes_to_a_file_as_well(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "logs" / "worker.log"
    answer = shell.run("worker.py", "--until-idle", "--save-logging", str(file))
    assert answer.returncode == 0
    assert file.read_text() == answer.stderr


def test_a_failed_task_can_be_retried_by_hand(shell: Shell) -> None:
    store = shell.store()
    task = store.add(NewTask(task_type="no_such_type", params={}))
    store.close()
    shell.run("worker.py", "--until-idle")
    assert "t2v" in shell.view(task)["error_message"]
    assert shell.run("debug.py", "retry", task).returncode == 0
    assert shell.view(task)["status"] == "Queued"
