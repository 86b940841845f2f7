"""`debug.py serve` as a command: what it refuses before it listens."""

from __future__ import annotations

import socket
from contextlib import closing
from pathlib import Path

import pytest

import debug
from source.store.sqlite import SqliteStore


@pytest.fixture
def database(tmp_path: Path) -> Path:
    SqliteStore(tmp_path / "tasks.db").close()
    return tmp_path / "tasks.db"


def answered(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], database: Path, *words: str
) -> tuple[int, str]:
    monkeypatch.setattr("sys.argv", ["debug.py", "serve", "--db-file", str(database), *words])
    code = debug.main()
    return code, capsys.readouterr().err


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "box.example"])
def test_other_machines_may_not_look_without_a_token(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], database: Path, host: str
) -> None:
    code, said = answered(monkeypatch, capsys, database, "--host", host, "--port", "0")
    assert code == 1 and "set PAGE_TOKEN or --token @FILE" in said


def test_a_token_that_can_be_guessed_is_refused_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], database: Path
) -> None:
    monkeypatch.setenv("PAGE_TOKEN", "hunter2")
    code, said = answered(monkeypatch, capsys, database, "--port", "0")
    assert code == 1 and "at least 16" in said and "hunter2" not in said


def test_a_port_that_is_taken_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], database: Path
) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = str(taken.getsockname()[1])
        code, said = answered(monkeypatch, capsys, database, "--port", port)
    assert code == 1 and port in said and "--port" in said


def test_a_database_that_does_not_exist_is_not_made(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, said = answered(monkeypatch, capsys, tmp_path / "none.db", "--port", "0")
    assert code == 2 and "there is no database" in said and not (tmp_path / "none.db").exists()
