"""`add_task.py --wait`: what it shows, prints and returns."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from rich.console import Console

from source.following import (
    CANCELLED,
    FAILED,
    INTERRUPTED,
    LATE,
    Bars,
    anybody_works,
    follow,
    location_of,
    said_of,
)
from source.interrupt import Interrupt
from source.settings import Settings
from source.store.sqlite import SqliteStore
from source.store.types import Claim, NewTask, Status, Task, child_id


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "tasks.db")
    yield store
    store.close()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(db_file=tmp_path / "tasks.db")


def queued(store: SqliteStore, kind: str = "t2v") -> str:
    return store.add(NewTask(task_type=kind, params={"prompt": "x"}))


def claimed(store: SqliteStore) -> Claim:
    (task,) = store.claim("worker-1", lease_s=60)
    return task.claim


def complete(store: SqliteStore) -> None:
    store.complete(claimed(store), "files/clip.mp4")


def fail(store: SqliteStore) -> None:
    store.fail(claimed(store), "the\x1b[31m weights are missing", error_class="model_unavailable")


def cancel(store: SqliteStore) -> None:
    store.cancel(store.tasks()[0].id)


@pytest.mark.parametrize(("end", "code"), [(complete, 0), (fail, FAILED), (cancel, CANCELLED)])
def test_what_becomes_of_a_task_is_an_exit_code(
    store: SqliteStore, settings: Settings, end: Callable[[SqliteStore], None], code: int
) -> None:
    task, looks = queued(store), []

    def seen(tasks: list[Task], _: object) -> None:
        looks.append([each.status for each in tasks])
        if len(looks) == 1:
            worker.start()

    other = SqliteStore(settings.db_file)
    worker = threading.Thread(target=end, args=(other,))
    outcome = follow(store, [task], seen=seen)  # type: ignore[arg-type]
    worker.join()
    other.close()
    assert outcome.code == code
    assert looks[0] == [Status.QUEUED] and looks[-1] == [outcome.tasks[0].status]


def test_the_worst_of_several_counts(store: SqliteStore) -> None:
    ids = [queued(store) for _ in range(3)]
    complete(store)
    fail(store)
    assert follow(store, ids[:1]).code == 0
    assert follow(store, ids[:2]).code == FAILED
    outcome = follow(store, ids, timeout_s=0.05)
    assert (outcome.code, outcome.tasks[2].status) == (FAILED, Status.QUEUED)
    assert follow(store, ids[2:], timeout_s=0.05).code == LATE


class Counted(SqliteStore):
    """A store that is asked over a network, and counts how often."""

    local = False
    asked = 0

    def get(self, task_id: str) -> Task:
        self.asked += 1
        return super().get(task_id)


def test_of_many_tasks_of_a_project_few_are_asked_for_at_a_look(settings: Settings) -> None:
    store = Counted(settings.db_file)
    ids, looks = [queued(store) for _ in range(30)], []
    other = SqliteStore(settings.db_file)

    def seen(tasks: Sequence[Task], _: object) -> None:
        looks.append(sum(task.terminal for task in tasks))
        if len(looks) == 1:
            for _ in ids:
                complete(other)

    assert follow(store, ids, seen=seen).code == 0
    assert looks == [0, 5, 10, 15, 20, 25, 30], "what ended meanwhile is found without a wait"
    assert store.asked == 60
    other.close()
    store.close()


def test_people_are_told_why_and_what_to_do_without_what_steers_a_terminal(
    store: SqliteStore, settings: Settings
) -> None:
    task = queued(store)
    assert f"add_task.py --wait --id {task} --db-file {settings.db_file}" in said_of(store.get(task), settings)
    fail(store)
    said = said_of(store.get(task), settings)
    assert "failed (model_unavailable): the\ufffd[31m weights are missing" in said and f"debug.py retry {task}" in said


def test_the_output_is_a_path_of_this_machine_or_an_address(store: SqliteStore, settings: Settings) -> None:
    task = queued(store)
    complete(store)
    assert location_of(store.get(task), settings) == str(settings.db_file.parent / "public" / "files" / "clip.mp4")
    afar = Settings(db_type="supabase", supabase_url="https://a.supabase.co", supabase_access_token="t")
    assert location_of(store.get(task), afar) == "files/clip.mp4"


def test_bars_show_a_travel_with_its_open_segments(store: SqliteStore) -> None:
    parent = queued(store, "travel_orchestrator")
    children = [
        NewTask(id=child_id(parent, f"segment:{n}"), task_type="travel_segment", params={}, parent_id=parent,
                child_key=f"segment:{n}") for n in range(3)
    ]  # fmt: skip
    store.fan_out(claimed(store), children, final_child=children[-1].id)
    complete(store)
    running = claimed(store)
    store.progress(running, {"phase": "denoising", "step": 3, "total": 8, "eta_s": 42})
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120, color_system=None, legacy_windows=False)
    with Bars(console) as bars:
        assert bars.shown
        follow(store, [parent], timeout_s=0.01, seen=bars)
        bars._progress.refresh()
    text = screen.getvalue()
    assert f"travel_orchestrator {parent[:8]}" in text and "1 of 3 parts" in text
    assert f"travel_segment {running.task_id[:8]}  denoising" in text and "3/8, 0:42 left" in text
    assert children[0].id[:8] not in text, "it is Complete"


def test_nothing_moves_where_nobody_looks() -> None:
    screen = io.StringIO()
    with Bars(Console(file=screen)) as bars:
        assert not bars.shown
    assert screen.getvalue() == ""


def test_it_knows_whether_a_worker_is_there(store: SqliteStore) -> None:
    assert not anybody_works(store)
    store.heartbeat("worker-1", [], lease_s=60)
    assert anybody_works(store)
    store.heartbeat("worker-1", [], lease_s=60, status="stopped")
    assert not anybody_works(store)


def waiting(root: Path, settings: Settings, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "add_task.py", *words, "--wait", "--db-file", str(settings.db_file)]
    return subprocess.Popen(command, cwd=root, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_the_command_prints_the_path_alone(root: Path, settings: Settings, store: SqliteStore) -> None:
    process = waiting(root, settings, "--type", "t2v", "--params", json.dumps({"prompt": "x"}))
    while not store.tasks():
        store.wait_for_change(1)
    complete(store)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert out == f"{settings.db_file.parent / 'public' / 'files' / 'clip.mp4'}\n"


@pytest.fixture
def usual_ctrl_c() -> Iterator[None]:
    """Ctrl-C raises, as on a terminal: a shell has programs in the background ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("usual_ctrl_c")
def test_the_first_ctrl_c_is_noted_and_the_second_is_as_usual() -> None:
    with Interrupt() as interrupt:
        signal.raise_signal(signal.SIGINT)
        assert interrupt.heard
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def has_opened(process: subprocess.Popen[str], file: Path) -> bool:
    for descriptor in Path(f"/proc/{process.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it was closed meanwhile
            if os.readlink(descriptor) == str(file):
                return True
    return False


@pytest.mark.skipif(
    not Path("/proc/self/fd").is_dir(), reason="this system does not tell which files a process has open"
)
def test_ctrl_c_leaves_the_task_and_says_so(root: Path, settings: Settings, store: SqliteStore) -> None:
    first, second = queued(store), queued(store)
    process = waiting(root, settings, "--id", first, "--id", second, "--timeout", "120")
    # It opens the database when it is about to wait; until then a signal would meet its imports.
    while not has_opened(process, settings.db_file.resolve()):
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (INTERRUPTED, "")
    assert f"task {first} is still Queued and goes on" in err and f"debug.py cancel {second}" in err
    assert {store.get(task).status for task in (first, second)} == {Status.QUEUED}
