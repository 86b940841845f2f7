"""add_task.py and debug.py on a Supabase project, with the flags that they have everywhere."""

from __future__ import annotations

import json
import uuid
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from local_stack import LocalStack
from local_stack import stack as stack
from project_floor import ProjectFloor
from test_debug_visualize import images as images
from test_debug_visualize import travelled

import add_task
import debug
from source.task_registry import registry
from Wan2GP.media import probe_video

PARAMS = '{"prompt": "a lake at dawn"}'


class Shell:
    """The commands, called in this process as somebody."""

    def __init__(self, stack: LocalStack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.stack, self._monkeypatch, self._capsys = stack, monkeypatch, capsys
        monkeypatch.setenv("DB_TYPE", "supabase")
        monkeypatch.setenv("SUPABASE_URL", stack.url)
        self.become(stack.service_key)

    def become(self, token: str) -> None:
        self._monkeypatch.setenv("SUPABASE_ACCESS_TOKEN", token)

    def __call__(self, main: Callable[[], int], *words: object) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        self._monkeypatch.setattr("sys.argv", [f"{main.__module__}.py", *map(str, words)])
        self._capsys.readouterr()
        try:
            code = main()
        except SystemExit as left:
            code = int(str(left.code))
        out, err = self._capsys.readouterr()
        return code, out, err

    def add(self, *words: object, task_type: str = "t2v", params: str = PARAMS) -> str:
        """The id of a task that was added."""
        code, out, err = self(add_task.main, "--type", task_type, "--params", params, *words)
        assert (code, err) == (0, "")
        return out.strip()

    def view(self, *words: object) -> Any:
        """What debug.py answers a program."""
        code, out, err = self(debug.main, *words, "--json")
        assert (code, err) == (0, "")
        return json.loads(out)


@pytest.fixture
def shell(stack: LocalStack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(stack, monkeypatch, capsys)


@pytest.fixture
def floor(stack: LocalStack, tmp_path: Path) -> Iterator[ProjectFloor]:
    floor = ProjectFloor(tmp_path / "machine", stack, media_dirs=(tmp_path,))
    yield floor
    floor.close()


@pytest.mark.parametrize("whose", ["service", "PAT"])
def test_a_queue_of_wan2gp_brings_its_media_into_the_project(
    shell: Shell, floor: ProjectFloor, samples: Path, tmp_path: Path, whose: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that cannot read this machine's files renders it."""
    anna = shell.stack.person()
    shell.become({"service": shell.stack.service_key, "PAT": anna.access_token}[whose])
    picture = (samples / "shapes" / "red_circle_left.png").read_bytes()
    settings = {"model_type": "fake_i2v", "prompt": "a ball", "resolution": "64x64", "video_length": 5}
    own = tmp_path / "finetunes" / "fake_i2v.json"
    own.parent.mkdir()
    own.write_text(json.dumps({"model": {"name": "F", "architecture": "i2v", "URLs": "i2v"}}))
    monkeypatch.setenv("FINETUNES", str(own.parent))
    elsewhere = tmp_path.parent / f"{tmp_path.name}-of-the-artist"
    elsewhere.mkdir()
    tasks = [{"id": 1, "params": settings | {"image_start": "a.png", "image_end": "a.png", "image_prompt_type": "SE"}}]
    with zipfile.ZipFile(elsewhere / "queue.zip", "w") as archive:
        archive.writestr("queue.json", json.dumps(tasks))
        archive.writestr("a.png", picture)
    (elsewhere / "b.png").write_bytes(picture)
    (elsewhere / "one.json").write_text(json.dumps(settings | {"image_start": "b.png"}))
    mine = ("--project-id", anna.project_id)
    ids = []
    for file in ("queue.zip", "one.json"):
        code, out, err = shell(add_task.main, "--from-wangp", elsewhere / file, *mine)
        assert (code, err) == (0, ""), err
        ids.append(out.strip())
    params = shell.view("task", ids[0])["params"]
    assert params["image_start"] == params["image_end"]
    assert f"/image_uploads/{anna.user_id}/inputs/" in params["image_start"]
    assert requests.get(params["image_start"], timeout=10).content == picture
    assert shell.view("task", ids[1])["params"]["image_start"].endswith("-b.png")
    wgp = registry().get("wgp")
    floor.register("wgp", wgp.run, wgp.params, uses_gpu=True)
    floor.work()
    assert [floor.store.get(task).error_message for task in ids] == [None, None]
    assert probe_video(floor.output(ids[0])).num_frames == 5


@pytest.mark.parametrize("whose", ["service", "JWT"])
def test_a_task_is_followed_to_its_end(shell: Shell, whose: str) -> None:
    if whose == "JWT":
        shell.become(shell.stack.jwt_of(shell.stack.person()))
    code, out, err = shell(add_task.main, "--type", "t2v", "--params", PARAMS, "--wait", "--timeout", "0.2")
    assert (code, out) == (5, "")
    task = shell.view("tasks")[0]["id"]
    assert f"task {task} is still Queued" in err
    shell.view("cancel", task)
    code, out, err = shell(add_task.main, "--wait", "--id", task)
    assert (code, out) == (4, "") and "was cancelled" in err


@pytest.mark.parametrize("whose", ["service", "PAT", "JWT"])
def test_tasks_are_added_seen_cancelled_and_queued_again(shell: Shell, whose: str) -> None:
    anna = shell.stack.person()
    tokens = {"service": shell.stack.service_key, "PAT": anna.access_token, "JWT": shell.stack.jwt_of(anna)}
    shell.become(tokens[whose])
    first = shell.add("--priority", 5)
    second = shell.add("--dependant-on", first)
    view = shell.view("task", first)
    assert (view["status"], view["task_type"], view["params"]) == ("Queued", "t2v", json.loads(PARAMS))
    assert [event["name"] for event in view["timeline"]] == ["queued"]
    assert [each["id"] for each in shell.view("tasks")] == [second, first]
    assert shell.view("tasks", "--status", "Failed") == []
    assert shell.view("cancel", first)["status"] == "Cancelled"
    assert shell.view("task", second)["status"] == "Cancelled"
    code, _, err = shell(debug.main, "retry", first)
    assert (code, "Cancelled" in err) == (1, True)
    assert first in shell(debug.main, "tasks")[1]


def test_a_failed_task_is_queued_again_by_hand(shell: Shell, floor: ProjectFloor) -> None:
    task = floor.add("no_such_type")
    floor.work()
    view = shell.view("task", task)
    assert (view["status"], "no_such_type" in view["error_message"]) == ("Failed", True)
    assert shell.view("retry", task) == {"id": task, "status": "Queued"}


def test_a_person_pauses_requeues_and_chooses_their_own_tasks_alone(shell: Shell, floor: ProjectFloor) -> None:
    anna, bert = shell.stack.person(), shell.stack.person()
    shell.become(bert.access_token)
    his = shell.add()
    shell.become(anna.access_token)
    hers = shell.add("--priority", 9)
    changes = shell.view("pause", "--type", "t2v", "--yes")
    assert [(change["id"], change["note"]) for change in changes] == [(hers, "paused")]
    code, _, err = shell(debug.main, "pause", his)
    assert (code, f"there is no task {his}" in err) == (1, True)
    assert [task.id for task in floor.store.claim("w", lease_s=60, limit=9)] == [his]
    assert shell.view("resume", hers) == {"id": hers, "status": "Queued"}
    [claimed] = floor.store.claim("w", lease_s=60)
    code, out, _ = shell(debug.main, "requeue", "--worker", "w", "--older-than", "0s", "--yes")
    assert (code, hers in out, his in out) == (0, True, False)
    assert floor.store.heartbeat("w", [claimed.claim], lease_s=60).lost == {hers}


def test_flags_name_the_project_as_well_as_the_environment(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("DB_TYPE", "SUPABASE_URL", "SUPABASE_ACCESS_TOKEN"):
        monkeypatch.delenv(name)
    (tmp_path / "token").write_text(shell.stack.service_key + "\n")
    flags = (
        "--db-type", "supabase", "--supabase-url", shell.stack.url,
        "--supabase-access-token", f"@{tmp_path / 'token'}",
    )  # fmt: skip
    task = shell.add(*flags)
    assert [each["id"] for each in shell.view("tasks", *flags)] == [task]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SUPABASE_URL", shell.stack.url)
    code, _, err = shell(debug.main, "tasks")  # the usual database is a file, and there is none
    assert (code, "--db-type supabase" in err) == (2, True)
    monkeypatch.delenv("SUPABASE_URL")
    code, _, err = shell(debug.main, "tasks", "--db-type", "supabase")
    assert (code, "SUPABASE_URL" in err) == (1, True)


def test_a_persons_task_goes_to_their_only_project(shell: Shell) -> None:
    anna, bert = shell.stack.person(), shell.stack.person()
    shell.become(anna.access_token)
    shell.add()
    with shell.stack.database.acting("service_role") as service:
        row = service.execute("select project_id::text from public.tasks").fetchone()
        assert row == (anna.project_id,)
        another = str(uuid.uuid4())
        service.execute("insert into public.projects (id, user_id) values (%s, %s)", (another, anna.user_id))
        service.execute("delete from public.projects where user_id = %s", (bert.user_id,))
    code, _, err = shell(add_task.main, "--type", "t2v", "--params", PARAMS)
    assert (code, anna.project_id in err, another in err) == (1, True, True)
    shell.add("--project-id", another)
    code, _, err = shell(add_task.main, "--type", "t2v", "--params", PARAMS, "--project-id", bert.project_id)
    assert (code, bert.project_id in err) == (1, True)
    shell.become(bert.access_token)
    code, _, err = shell(add_task.main, "--type", "t2v", "--params", PARAMS)
    assert (code, "no project" in err) == (1, True)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("task", "nobody"), 1, "UUID"),
        (("task", "00000000-0000-4000-8000-000000000000"), 1, "there is no task"),
        (("cancel", "00000000-0000-4000-8000-000000000000"), 1, "there is no task"),
        (("tasks", "--supabase-url", "http://127.0.0.1:9"), 2, "cannot be reached"),
        (("tasks", "--supabase-url", "http://example.com"), 1, "unencrypted"),
    ],
)
def test_what_went_wrong_is_said_with_its_exit_code(shell: Shell, words: tuple[str, ...], code: int, said: str) -> None:
    answered, out, err = shell(debug.main, *words)
    assert (answered, out) == (code, "")
    assert said in err


def test_a_token_that_is_refused_is_no_failure_of_the_database(shell: Shell) -> None:
    anna = shell.stack.person()
    for token in ("pat_of_nobody", shell.stack.expired_jwt(anna), shell.stack.forged_jwt()):
        shell.become(token)
        for main, words in ((debug.main, ("tasks",)), (add_task.main, ("--type", "t2v", "--params", PARAMS))):
            code, out, err = shell(main, *words)
            assert (code, out) == (1, "")
            assert "token" in err
            assert token not in err


def test_others_tasks_are_not_there_for_a_person(shell: Shell) -> None:
    anna, bert = shell.stack.person(), shell.stack.person()
    shell.become(anna.access_token)
    task = shell.add()
    shell.become(bert.access_token)
    assert shell.view("tasks") == []
    for command in ("task", "cancel", "retry", "visualize"):
        code, _, err = shell(debug.main, command, task)
        assert (code, "there is no task" in err) == (1, True)


def test_workers_are_told_apart_by_their_heartbeats(shell: Shell, floor: ProjectFloor) -> None:
    for name, status in (("gone", "stopped"), ("new", "active"), ("old", "active")):
        floor.store.heartbeat(name, [], lease_s=60, current_model="t2v", status=status)
    with shell.stack.database.acting() as superuser:
        superuser.execute(b"update public.workers set last_heartbeat = now() - interval '1 hour' where id = 'old'")
    views = {view["id"]: view for view in shell.view("workers")}
    assert {name: view["health"] for name, view in views.items()} == {
        "new": "healthy", "old": "stale", "gone": "stopped",
    }  # fmt: skip
    assert (views["new"]["current_model"], views["new"]["heartbeat_age_s"] < 60) == ("t2v", True)
    assert "1 healthy, 1 stopped, 1 stale" in shell(debug.main, "workers")[1]


def test_secrets_in_rows_are_not_shown(shell: Shell) -> None:
    task = shell.add(params='{"prompt": "see https://host/cat.png?token=swordfish"}')
    assert "swordfish" not in shell(debug.main, "task", task)[1] + json.dumps(shell.view("task", task))


def test_an_output_is_replayed_from_its_url(shell: Shell, floor: ProjectFloor) -> None:
    floor.registry = registry()
    params = {"model": "fake_t2v", "prompt": "a red circle", "resolution": "32x32", "video_length": 5}
    made = floor.add("generate_video", **params)
    assert floor.worker(weights=floor.engine.weight_files).run(until_idle=True) == 0
    row = floor.store.get(made)
    assert row.output_location and row.output_location.startswith(shell.stack.url)
    view = shell.view("replay", row.output_location)
    assert (view["replays"], view["task_type"], view["warnings"]) == (made, "generate_video", [])
    assert view["params"]["seed"] == shell.view("task", view["id"])["params"]["seed"]
    assert floor.store.get(view["id"]).project_id == row.project_id


def test_a_travel_whose_outputs_are_urls_is_drawn(
    shell: Shell, floor: ProjectFloor, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = travelled(floor, images)
    assert row.output_location and row.output_location.startswith(shell.stack.url)
    monkeypatch.setenv("MEDIA_DIRS", str(tmp_path))
    view = shell.view("visualize", row.id, "-o", tmp_path / "travel.mp4")
    assert view["num_frames"] == probe_video(tmp_path / "travel.mp4").num_frames == 18
