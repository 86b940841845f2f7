"""`debug.py doctor` on a SQLite installation, with things broken on purpose."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from source.doctor.checks import State, examine
from source.doctor.examination import checks_of, examined
from source.doctor.machine import device, disk, ffmpeg
from source.doctor.weights import of_queued_rows, verified
from source.settings import Settings, load_settings
from source.store.sqlite import SqliteStore
from source.store.types import NewTask


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    SqliteStore(tmp_path / "tasks.db").close()
    return load_settings(
        db_file=tmp_path / "tasks.db", main_output_dir=tmp_path / "outputs", loras_dir=tmp_path / "loras",
        ckpts=tmp_path / "ckpts",
    )  # fmt: skip


def doctor(root: Path, settings: Settings, *arguments: str) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, "debug.py", "doctor", "--json", "--db-file", str(settings.db_file), *arguments]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def state_of(settings: Settings, name: str, **given: Any) -> tuple[State, str]:
    """What one of the checks of the database finds."""
    with ExitStack() as opened:
        wanted = [check for check in checks_of(settings, opened, **given) if check.name in ("database", "clock")]
        [finding] = [each.finding for each in examine(wanted) if each.check == name]
    return finding.state, f"{finding.measured} {finding.advice}"


def test_a_healthy_installation_passes(root: Path, settings: Settings) -> None:
    code, view = doctor(root, settings, "--model", "draft")
    found = {check["check"]: check for check in view["checks"]}
    assert (code, view["healthy"]) == (0, True), view
    assert set(found) == {"database", "clock", "gpu", "ffmpeg", "disk", "comfyui", "replicate", "weights of draft"}
    assert {check["state"] for check in view["checks"]} <= {"ok", "warning"}
    assert all(check["advice"] for check in view["checks"] if check["state"] == "warning")
    assert "WAL" in found["database"]["measured"]


def test_without_a_database_it_says_how_to_make_one_and_makes_none(root: Path, settings: Settings) -> None:
    settings.db_file.unlink()
    code, view = doctor(root, settings)
    [found] = [check for check in view["checks"] if check["check"] == "database"]
    assert (code, found["state"]) == (1, "failed")
    assert "--migrate-only" in found["advice"]
    assert not settings.db_file.exists()


def test_looking_changes_nothing(settings: Settings) -> None:
    before = settings.db_file.read_bytes()
    examined(settings)
    assert settings.db_file.read_bytes() == before
    assert sorted(path.name for path in settings.db_file.parent.iterdir()) == ["tasks.db"]


def test_a_damaged_file_is_found(settings: Settings) -> None:
    store = SqliteStore(settings.db_file)
    store.add_many([NewTask(task_type="t2v", params={"prompt": "x" * 500}) for _ in range(100)])
    store.close()
    content = bytearray(settings.db_file.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 20_000] = b"\xa5" * 20_000
    settings.db_file.write_bytes(content)
    state, told = state_of(settings, "database")
    assert state is State.FAILED
    assert ".recover" in told


def test_another_programs_file_and_text_are_no_database(settings: Settings) -> None:
    settings.db_file.write_text("this is no database " * 100)
    assert state_of(settings, "database")[0] is State.FAILED
    settings.db_file.unlink()
    connection = sqlite3.connect(settings.db_file)
    connection.execute("CREATE TABLE notes (text TEXT)")
    connection.commit()
    connection.close()
    state, told = state_of(settings, "database")
    assert state is State.FAILED
    assert "--migrate-only" in told


def test_a_file_of_a_newer_version_is_told_from_a_damaged_one(settings: Settings) -> None:
    connection = sqlite3.connect(settings.db_file)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    state, told = state_of(settings, "database")
    assert state is State.FAILED
    assert "99" in told
    assert "update the program" in told


@pytest.mark.parametrize(
    ("behind_s", "state"), [(0.0, State.OK), (1.0, State.OK), (5.0, State.WARNING), (40.0, State.FAILED)]
)
def test_rows_from_the_future_tell_of_a_clock_that_was_set_back(
    settings: Settings, behind_s: float, state: State
) -> None:
    store = SqliteStore(settings.db_file)
    store.heartbeat("w", [], lease_s=60)
    store.close()
    behind = timedelta(seconds=behind_s)
    assert state_of(settings, "clock", clock=lambda: datetime.now(UTC) - behind)[0] is state


def test_a_folder_that_is_a_file_and_a_full_disk_are_found(settings: Settings, tmp_path: Path) -> None:
    assert disk(settings, scarce_bytes=1, least_bytes=1).state is State.OK
    assert disk(settings, scarce_bytes=1 << 60, least_bytes=1).state is State.WARNING
    full = disk(settings, scarce_bytes=1 << 60, least_bytes=1 << 60)
    assert full.state is State.FAILED
    assert "GB free" in full.measured
    (tmp_path / "loras").write_text("a file")
    [found] = [check for check in examined(settings)["checks"] if check["check"] == "disk"]
    assert found["state"] == "failed"
    assert "loras" in found["measured"]


def test_ffmpeg_that_does_not_run_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ffmpeg().state is State.OK
    broken = tmp_path / "ffmpeg"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(broken))
    found = ffmpeg()
    assert found.state is State.FAILED
    assert str(broken) in found.measured


def test_a_device_that_is_not_there_is_found(settings: Settings) -> None:
    found = device(settings.model_copy(update={"device": "cuda:7"}))
    assert found.state is State.FAILED
    assert "cuda:7" in found.measured
    assert device(settings.model_copy(update={"device": "cpu"})).state is State.OK


def test_weights_that_queued_rows_ask_for_are_missed(settings: Settings) -> None:
    store = SqliteStore(settings.db_file)
    assert of_queued_rows(settings, lambda: SqliteStore(settings.db_file)).state is State.OK
    store.add(NewTask(task_type="generate_video", params={"prompt": "x", "model": "draft"}))
    assert of_queued_rows(settings, lambda: SqliteStore(settings.db_file)).state is State.OK
    store.add(NewTask(task_type="z_image_turbo", params={"prompt": "x"}))
    store.add(NewTask(task_type="generate_video", params={"prompt": "x", "model": "no_such_model"}))
    store.close()
    found = of_queued_rows(settings, lambda: SqliteStore(settings.db_file))
    assert found.state is State.FAILED
    assert "Wan2GP.models fetch z_image" in found.measured
    assert "no_such_model" in found.measured


def test_a_model_that_is_asked_for_is_looked_at_whole(settings: Settings) -> None:
    found = verified(settings, "z_image")
    assert found.state is State.FAILED
    assert "models fetch z_image" in found.measured
    assert verified(settings, "draft").state is State.OK


@pytest.mark.slow
def test_a_model_that_is_there_is_read_whole(settings: Settings) -> None:
    assert verified(settings, "tiny_wan_t2v").measured.startswith("whole")
