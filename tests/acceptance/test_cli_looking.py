"""The commands of debug.py that only look, on SQLite; tests/looking_contract.py is what holds on every database."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from looking_contract import LookingContract, Site

from source.diagnostics.logs import follow, log_filter
from source.diagnostics.views import View
from source.settings import Settings
from source.store.sqlite import SqliteStore
from source.store.types import NewTask

DEADLINE_S = 60.0


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Site]:
    database = tmp_path / "tasks.db"
    site = Site(lambda logs: SqliteStore(database, logs=logs), ("--db-file", str(database)), monkeypatch, capsys)
    yield site
    site.store.close()


class TestLookingOnSqlite(LookingContract):
    """All of it."""


def test_a_wrong_command_is_refused_with_the_nearest(site: Site) -> None:
    code, _, err = site.run("helth")
    assert code == 1 and "Did you mean 'health'" in err
    assert site.run("tasks", "--status", "Quued")[0] == 1


def test_every_command_has_examples(site: Site) -> None:
    for command in ("task", "why", "tasks", "worker", "workers", "logs", "watch", "health", "config", "orchestrator",
                    "cancel", "retry", "disk", "doctor", "visualize", "replay"):  # fmt: skip
        code, out, _ = site.run(command, "--help")
        assert code == 0 and f"python debug.py {command}" in out, command


def test_config_tells_where_each_setting_comes_from_and_no_secret(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("HEARTBEAT_S=11\nLEASE_S=70\nREPLICATE_API_TOKEN=r8_swordfish\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LEASE_S", "80")
    monkeypatch.setenv("SUPABASE_SERVICE_KEY", "swordfish")
    views = {view["name"]: view for view in site.view("config")}
    assert set(views) == set(Settings.model_fields)
    told = {name: (view["value"], view["origin"]) for name, view in views.items()}
    assert told["lease_s"] == (80, "environment") and told["heartbeat_s"] == (11, ".env")
    assert told["db_file"][1] == "flag" and told["max_attempts"] == (3, "default")
    assert told["supabase_access_token"] == ("set", "environment") and told["replicate_api_token"] == ("set", ".env")
    assert told["hf_token"] == ("unset", "default")
    code, out, _ = site.run("config", "--explain")
    assert code == 0 and "seconds a claim lasts without a heartbeat" in out and "swordfish" not in out


def test_log_lines_are_followed_as_they_come_and_each_is_shown_once(site: Site, tmp_path: Path) -> None:
    shown: list[list[str]] = []
    site.log("before")

    def show(lines: list[View]) -> None:
        shown.append([line["message"] for line in lines])
        if len(shown) <= 2:
            site.log(f"line {len(shown)}")

    with closing(SqliteStore(tmp_path / "tasks.db")) as another:
        follow(another, log_filter(), show, stopped=lambda: len(shown) > 2)  # type: ignore[arg-type]
    assert shown[0] == ["before"] and [line for lines in shown[1:] for line in lines] == ["line 1", "line 2"]


def test_looking_imports_nothing_heavy(site: Site, tmp_path: Path, root: Path) -> None:
    """Numbers, media, models, a web server: none of them is there when a task or the queue is looked at."""
    site.add("travel_orchestrator")
    parent = site.claim()
    stitch = NewTask.child(parent, "travel_stitch:0", "travel_stitch", {"segment_frames_expanded": [17]})
    site.store.fan_out(parent.claim, [stitch], final_child=stitch.id)
    program = f"""
import sys, debug
for words in (["tasks"], ["task", "{parent.id}"], ["why", "{stitch.id}"], ["workers"], ["health"], ["watch", "--once"]):
    sys.argv = ["debug.py", *words, "--db-file", "{tmp_path / "tasks.db"}"]
    debug.main()
print("heavy:", *sorted({{"numpy", "cv2", "av", "torch", "starlette", "uvicorn", "PIL"}} & set(sys.modules)))
"""
    run = subprocess.run([sys.executable, "-c", program], cwd=root, text=True, capture_output=True, check=True)
    assert run.stdout.splitlines()[-1] == "heavy:" and parent.id in run.stdout


class Terminal:
    """debug.py on a terminal of its own."""

    def __init__(self, *words: str, columns: int = 80, lines: int = 24) -> None:
        environment = os.environ | {"COLUMNS": str(columns), "LINES": str(lines), "TERM": "xterm-256color"}
        self._end, end = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "debug.py", *words], stdin=end, stdout=end, stderr=end, env=environment, close_fds=True
        )
        os.close(end)
        self.seen = b""

    def until(self, part: bytes) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while part not in self.seen:
            assert time.monotonic() < deadline, self.seen
            if select.select([self._end], [], [], 1.0)[0]:
                self.seen += self._read()

    def _read(self) -> bytes:
        try:
            return os.read(self._end, 65536)
        except OSError:  # the other end is closed
            return b""

    def press(self, keys: bytes) -> None:
        os.write(self._end, keys)

    def ends(self) -> int:
        """The exit code, and all that was written."""
        deadline = time.monotonic() + DEADLINE_S
        while self.process.poll() is None:
            assert time.monotonic() < deadline
            if select.select([self._end], [], [], 0.2)[0]:
                self.seen += self._read()
        while select.select([self._end], [], [], 0)[0] and (more := self._read()):
            self.seen += more
        self.hang_up()
        return self.process.returncode

    def hang_up(self) -> None:
        """Nobody is at this terminal any more."""
        os.close(self._end)


@pytest.mark.parametrize("leave", [lambda it: it.press(b"q"), lambda it: it.process.send_signal(signal.SIGINT)])
def test_watch_is_left_by_q_and_ctrl_c_and_leaves_the_terminal_as_it_was(
    site: Site, tmp_path: Path, leave: Callable[[Terminal], None]
) -> None:
    task_id = site.add()
    site.claim()
    site.beat()
    terminal = Terminal("watch", "--db-file", str(tmp_path / "tasks.db"))
    try:
        terminal.until(task_id[:8].encode())
        site.log("something came meanwhile")
        terminal.until(b"something came meanwhile")
        terminal.press(b"x\x1b[A")  # other keys do nothing
        leave(terminal)
        assert terminal.ends() == 0
    finally:
        terminal.process.kill()
        terminal.process.wait()
    assert b"\x1b[?1049h" in terminal.seen  # a screen of its own
    assert terminal.seen.rindex(b"\x1b[?1049l") > terminal.seen.rindex(b"\x1b[?1049h")
    assert b"\x1b[?25h" in terminal.seen  # the cursor is back
    assert b"Traceback" not in terminal.seen


def test_watch_ends_when_its_terminal_is_gone(site: Site, tmp_path: Path) -> None:
    task_id = site.add()
    site.claim()
    site.beat()
    terminal = Terminal("watch", "--db-file", str(tmp_path / "tasks.db"))
    try:
        terminal.until(task_id[:8].encode())
        terminal.hang_up()
        terminal.process.wait(timeout=DEADLINE_S)
    finally:
        terminal.process.kill()
        terminal.process.wait()
