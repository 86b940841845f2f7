"""One frozen `Settings`: flag > environment > .env > default."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from source.errors import ConfigurationError
from source.settings import Settings, load_settings


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory without a .env file."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_settings().lease_s == 60
    (folder / ".env").write_text("LEASE_S=70\nSOMETHING_ELSE=1\n")
    assert load_settings().lease_s == 70
    monkeypatch.setenv("LEASE_S", "80")
    assert load_settings().lease_s == 80
    assert load_settings(lease_s=90.0).lease_s == 90
    assert load_settings(lease_s=None).lease_s == 80


@pytest.mark.parametrize(("name", "field"), [("WORKER_ID", "worker"), ("WAN2GP_CACHE", "ckpts")])
def test_older_names_are_read_and_a_flag_beats_them(name: str, field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "environment")
    assert str(getattr(load_settings(), field)) == "environment"
    assert str(getattr(load_settings(**{field: "flag"}), field)) == "flag"


def test_a_folder_may_begin_with_the_home_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    (folder / ".env").write_text("LORAS_DIR=~/loras\nCKPTS=~/ckpts\nLORA_DIRS=~/more:/other\n")
    settings = load_settings()
    assert (settings.loras_dir, settings.ckpts) == (folder / "loras", folder / "ckpts")
    assert settings.lora_dirs == (folder / "more", Path("/other"))


def test_an_empty_variable_is_the_same_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Container files pass on variables that nobody set as empty ones."""
    for name in ("CKPTS", "LEASE_S", "WORKER", "DEBUG"):
        monkeypatch.setenv(name, "")
    settings = load_settings()
    assert (settings.ckpts, settings.lease_s, settings.worker, settings.debug) == (Path("ckpts"), 60, None, False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LEASE_S", "soon"),
        ("LEASE_S", "inf"),
        ("LEASE_S", "nan"),
        ("POLL_INTERVAL_S", "0"),
        ("MAX_ATTEMPTS", "0"),
        ("MAX_IN_FLIGHT", "99"),
        ("DB_TYPE", "oracle"),
        ("DEBUG", "perhaps"),
    ],
)
def test_a_wrong_value_is_named(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=f"^{name.lower()}: "):
        load_settings()


def test_heartbeats_must_fit_in_a_lease() -> None:
    with pytest.raises(ConfigurationError, match=r"heartbeat_s \(20\) must be shorter than lease_s \(10\)"):
        load_settings(lease_s=10.0)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_settings().lease_s = 1.0  # type: ignore[misc]


def test_results_lie_beside_the_database(folder: Path) -> None:
    assert Settings(db_file=Path("somewhere/tasks.db")).public_dir == folder / "somewhere" / "public"


@pytest.mark.parametrize(("flags", "kept"), [({}, False), ({"debug": True}, True), ({"skip_cleanup": True}, True)])
def test_scratch_is_kept_when_asked(flags: dict[str, bool], kept: bool) -> None:
    assert load_settings(**flags).keep_scratch is kept
