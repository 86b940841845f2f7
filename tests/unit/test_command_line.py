"""The flags that the three commands share."""

from __future__ import annotations

import pytest

from source.command_line import CommandParser


def parsed(*arguments: str) -> dict[str, object]:
    flags = CommandParser("worker.py")
    flags.add_database()
    return {name: value for name, value in vars(flags.parse_args(arguments)).items() if value is not None}


def test_a_database_is_named_by_the_same_flags_everywhere() -> None:
    given = parsed("--db-type", "supabase", "--supabase-url", "https://a.supabase.co", "--reigh-access-token", "@token")
    assert given == {
        "db_type": "supabase", "supabase_url": "https://a.supabase.co", "supabase_access_token": "@token",
    }  # fmt: skip
    assert parsed() == {}


@pytest.mark.parametrize("flag", ["--supabase-access-token", "--reigh-access-token"])
def test_a_token_that_is_written_out_is_taken_with_a_warning(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert parsed(flag, "sbp_secret")["supabase_access_token"] == "sbp_secret"
    said = capsys.readouterr().err
    assert "SUPABASE_ACCESS_TOKEN" in said and "@FILE" in said
    assert "sbp_secret" not in said


def test_a_token_s_file_needs_no_warning(capsys: pytest.CaptureFixture[str]) -> None:
    parsed("--supabase-access-token", "@token")
    assert capsys.readouterr().err == ""
