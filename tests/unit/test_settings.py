"""One frozen `Settings`: flag > environment > .env > default."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from source.errors import ConfigurationError
from source.settings import Settings, child_environment, load_settings


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


# -- Supabase -------------------------------------------------------------------------------------------------------

URL = "https://abc.supabase.co"


@pytest.mark.parametrize(
    "name", ["SUPABASE_ACCESS_TOKEN", "REIGH_ACCESS_TOKEN", "SUPABASE_SERVICE_ROLE_KEY", "SUPABASE_SERVICE_KEY"]
)
def test_the_token_has_several_names_and_is_secret(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "tokentoken")
    settings = load_settings(db_type="supabase", supabase_url=f"{URL}/")
    assert settings.supabase_url == URL
    assert settings.supabase_access_token is not None
    assert settings.supabase_access_token.get_secret_value() == "tokentoken"
    assert "tokentoken" not in repr(settings)
    assert name not in child_environment()
    given = load_settings(db_type="supabase", supabase_url=URL, supabase_access_token="flag").supabase_access_token
    assert given is not None and given.get_secret_value() == "flag"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "SUPABASE_URL or --supabase-url"),
        ({"supabase_url": URL}, "SUPABASE_ACCESS_TOKEN .* --supabase-access-token @FILE"),
        ({"supabase_url": "abc.supabase.co"}, "supabase_url: must be an address such as"),
        ({"supabase_url": "https://u:p@abc.supabase.co"}, "supabase_url: must be an address"),
        ({"supabase_url": "http://10.0.0.5:8000"}, "unencrypted.*SUPABASE_ALLOW_HTTP"),
        ({"supabase_url": URL, "supabase_edge_claim_task_url": "http://10.0.0.5/claim"}, "10.0.0.5/claim.*unencrypted"),
        ({"supabase_url": URL, "postgres_table_name": "jobs"}, "postgres_table_name: 'jobs' cannot be used.*`tasks`"),
    ],
)  # fmt: skip
def test_what_supabase_needs_is_said(given: dict[str, str], says: str) -> None:
    token = {} if "ACCESS_TOKEN" in says else {"supabase_access_token": "tokentoken"}
    with pytest.raises(ConfigurationError, match=says) as refused:
        load_settings(db_type="supabase", **given, **token)
    assert "tokentoken" not in str(refused.value)


def test_http_is_for_this_machine_or_where_it_is_allowed() -> None:
    for values in ({"supabase_url": "http://127.0.0.1:54321"}, {"supabase_url": "http://localhost:54321"},
                   {"supabase_url": "http://10.0.0.5", "supabase_allow_http": True}):  # fmt: skip
        load_settings(db_type="supabase", supabase_access_token="tokentoken", **values)


def test_functions_may_have_addresses_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUPABASE_EDGE_CLAIM_TASK_URL", f"{URL}/functions/v2/claim")
    assert load_settings().edge_function_urls == {"claim-next-task": f"{URL}/functions/v2/claim"}


def test_progress_is_stored_less_often_where_each_report_is_a_request() -> None:
    supabase = {"db_type": "supabase", "supabase_url": URL, "supabase_access_token": "tokentoken"}
    assert (load_settings().report_interval_s, load_settings(**supabase).report_interval_s) == (1, 5)
    assert load_settings(progress_interval_s=2.0, **supabase).report_interval_s == 2
    assert (load_settings().show_interval_s, load_settings(**supabase).show_interval_s) == (2, 5)
    assert load_settings(preview_interval_s=0.5, **supabase).show_interval_s == 0.5
