"""debug.py cancel, retry, pause, resume and requeue as a user runs them, on SQLite."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import debug
from source.store.sqlite import SqliteStore
from source.store.types import NewTask, Status, child_id

QUEUED, RUNNING, COMPLETE, FAILED, CANCELLED = Status

Debug = Callable[..., tuple[int, str, str]]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "tasks.db")
    yield opened
    opened.close()


@pytest.fixture
def run(store: SqliteStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Debug:
    """debug.py in this process: its exit code, output and errors."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["debug.py", *arguments, "--db-file", str(store.path)])
        try:
            code = debug.main()
        except SystemExit as left:
            code = int(left.code or 0)
        return code, *capsys.readouterr()

    return run


def add(store: SqliteStore, *task_types: str) -> list[str]:
    return store.add_many([NewTask(task_type=each, params={"prompt": "a ball"}) for each in task_types])


def statuses(store: SqliteStore, *task_ids: str) -> list[Status]:
    return [store.get(task_id).status for task_id in task_ids]


def test_one_task_is_paused_resumed_and_cancelled_by_its_id(store: SqliteStore, run: Debug) -> None:
    [task] = add(store, "t2v")
    assert run("pause", task)[:2] == (0, f"{task} Queued: paused\n")
    assert store.claim("w", lease_s=60) == []
    assert "\n  paused\n" in run("tasks")[1] and "Queued (paused)" in run("task", task)[1]
    assert run("resume", task)[:2] == (0, f"{task} Queued: resumed\n")
    assert len(store.claim("w", lease_s=60)) == 1
    assert "goes on" in run("pause", task)[1]
    code, out, _ = run("cancel", task, "--json")
    assert (code, json.loads(out)) == (0, {"id": task, "status": "In Progress"})
    code, out, _ = run("requeue", task)
    assert (code, out.startswith(f"{task} Cancelled")) == (0, True)
    code, _, error = run("pause", task)
    assert (code, "is Cancelled; only a task that has not ended" in error) == (1, True)


def test_a_filter_means_only_what_the_command_can_change(store: SqliteStore, run: Debug) -> None:
    first, second, other = add(store, "t2v", "t2v", "vace")
    for task in store.claim("gpu-1234abcd", lease_s=60, limit=3):
        if task.id != second:
            store.fail(task.claim, "reset", error_class="transient")
    code, out, _ = run("retry", "--error-class", "transient", "--type", "t2v", "--json", "--yes")
    assert code == 0
    assert json.loads(out) == [
        {"id": first, "task_type": "t2v", "before": "Failed", "status": "Queued", "note": ""}
    ]  # fmt: skip
    code, out, _ = run("requeue", "--worker", "gpu", "--yes")
    assert (code, second in out, first in out) == (0, True, False)
    assert statuses(store, first, second, other) == [QUEUED, QUEUED, FAILED]
    assert store.get(second).attempts == 0


def test_a_run_is_paused_resumed_and_cancelled_whole(store: SqliteStore, run: Debug) -> None:
    params = {"orchestrator_details": {"run_id": "spring"}}
    parent = store.add(NewTask(task_type="travel_orchestrator", params=params))
    [claimed] = store.claim("w", lease_s=60)
    keys = ("segment:0", "segment:1")
    children = [NewTask.child(claimed, key, "travel_segment", {}) for key in keys]
    store.fan_out(claimed.claim, children, final_child=child_id(parent, keys[1]))
    [neighbour] = add(store, "t2v")
    ids = [child.id for child in children]
    code, out, _ = run("pause", "--run", "spring", "--yes")
    assert (code, all(task in out for task in (parent, *ids))) == (0, True)
    assert [task.id for task in store.claim("w", lease_s=60, limit=9)] == [neighbour]
    assert run("resume", "--run", parent, "--yes")[0] == 0
    [running] = store.claim("w", lease_s=60)
    code, out, _ = run("cancel", "--run", "spring", "--yes", "--json")
    assert (code, len(json.loads(out))) == (0, 3)
    store.cancelled(running.claim)
    assert statuses(store, parent, *ids, neighbour) == [CANCELLED, CANCELLED, CANCELLED, RUNNING]


def test_what_was_queued_again_with_another_is_no_refusal(store: SqliteStore, run: Debug) -> None:
    [first] = add(store, "t2v")
    second = store.add(NewTask(task_type="t2v", params={}, dependant_on=(first,)))
    [claimed] = store.claim("w", lease_s=60)
    store.fail(claimed.claim, "boom", error_class="engine")
    code, out, _ = run("retry", "--status", "Failed", "--yes", "--json")
    assert (code, [change["note"] for change in json.loads(out)]) == (0, ["", "together with another"])
    assert statuses(store, first, second) == [QUEUED, QUEUED]


def test_of_several_named_tasks_each_says_what_happened(store: SqliteStore, run: Debug) -> None:
    queued, running = add(store, "t2v", "t2v")
    for task in store.claim("w", lease_s=60, limit=2):
        if task.id == queued:
            store.release(task.claim)
    code, out, _ = run("requeue", queued, running, "--json")
    views = json.loads(out)
    assert (code, [view["status"] for view in views]) == (1, [None, "Queued"])
    assert "only what runs can be requeued" in views[0]["note"]


def test_a_dry_run_changes_nothing(store: SqliteStore, run: Debug) -> None:
    tasks = add(store, "t2v", "vace")
    code, out, _ = run("cancel", "--type", "vace", "--dry-run")
    assert (code, tasks[1] in out, tasks[0] in out) == (0, True, False)
    assert "would change 1 task" in out
    assert statuses(store, *tasks) == [QUEUED, QUEUED]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("cancel",), "which tasks?"),
        (("cancel", "--type", "nothing-like-it", "--yes"), "no task matches"),
        (("cancel", "--older-than", "2h", "--yes"), "no task matches"),
        (("retry", "--status", "Queued", "--yes"), "retry is for tasks that are Failed"),
        (("cancel", "--older-than", "soon"), "is no time such as 90s"),
        (("cancel", "a", "--type", "t2v"), "not both"),
        (("pause", "nobody"), "there is no task nobody"),
        (("pause", "nobody", "somebody"), "there is no task nobody"),
        (("pause", "--type", "t2v"), "no terminal to ask on"),
    ],
)
def test_what_chooses_nothing_or_too_much_is_refused(
    store: SqliteStore, run: Debug, arguments: tuple[str, ...], said: str
) -> None:
    [task] = add(store, "t2v")
    code, out, error = run(*arguments)
    assert (code, out, said in error) == (1, "", True), error
    assert (store.get(task).status, store.get(task).paused) == (QUEUED, False)


@pytest.mark.parametrize(("answer", "code", "status"), [("y", 0, CANCELLED), ("n", 1, QUEUED)])
def test_on_a_terminal_it_shows_the_tasks_and_asks(
    store: SqliteStore, root: Path, answer: str, code: int, status: Status
) -> None:
    [task] = add(store, "t2v")
    ours, theirs = pty.openpty()
    command = [sys.executable, "debug.py", "cancel", "--type", "t2v", "--db-file", str(store.path)]
    os.write(ours, f"{answer}\n".encode())
    ran = subprocess.run(command, cwd=root, stdin=theirs, capture_output=True, text=True, timeout=60)
    os.close(ours)
    os.close(theirs)
    assert (ran.returncode, store.get(task).status) == (code, status), ran.stderr
    assert task in ran.stderr and "cancel 1 task?" in ran.stderr
