"""How checks run and what is shown of them."""

from __future__ import annotations

import threading

import pytest
from rich.console import Console

from source.doctor.checks import Check, Finding, State, doubtful, examine, failed, healthy, well
from source.doctor.report import rendered_report, report
from source.errors import StoreError


def breaking(error: Exception) -> Finding:
    raise error


def test_what_breaks_in_one_check_stops_no_other() -> None:
    examined = examine(
        [
            Check("database", lambda: breaking(StoreError("out of reach")), "start it"),
            Check("disk", lambda: breaking(PermissionError("not yours"))),
            Check("bug", lambda: breaking(KeyError("now"))),
            Check("last", lambda: well("fine")),
        ]
    )
    assert [each.finding.state for each in examined] == [State.FAILED, State.FAILED, State.FAILED, State.OK]
    assert examined[0].finding == failed("out of reach", "start it")
    assert "KeyError" in examined[2].finding.measured
    assert not healthy(examined)


def test_a_check_that_hangs_fails_after_its_time() -> None:
    for_ever = threading.Event()
    hung, last = examine(
        [Check("hangs", lambda: well(str(for_ever.wait())), timeout_s=0.05), Check("last", lambda: well("fine"))]
    )
    assert hung.finding.state is State.FAILED
    assert "0.05 s" in hung.finding.measured
    assert last.finding.state is State.OK
    for_ever.set()


def test_what_would_say_nothing_new_is_left_out() -> None:
    looked = []
    examined = examine(
        [
            Check("database", lambda: failed("gone", "start it")),
            Check("clock", lambda: looked.append("clock") or well(""), needs="database"),
            Check("rows", lambda: looked.append("rows") or well(""), needs="clock"),
        ]
    )
    assert not looked
    assert [each.finding.state for each in examined[1:]] == [State.SKIPPED, State.SKIPPED]
    assert "database" in examined[1].finding.measured


def test_a_warning_leaves_an_installation_healthy() -> None:
    assert healthy(examine([Check("gpu", lambda: doubtful("none", "buy one"))]))


def test_the_names_are_told_before_they_are_looked_at() -> None:
    heard: list[str] = []
    examine([Check("one", lambda: well(",".join(heard))), Check("two", lambda: well(""))], heard.append)
    assert heard == ["one", "two"]


@pytest.mark.parametrize("width", [60, 80, 200])
def test_people_read_state_name_and_what_to_do_at_every_width(width: int) -> None:
    examined = examine(
        [
            Check("database", lambda: well("schema 1, WAL")),
            Check("gpu", lambda: doubtful("no GPU\x1b[2J", "use one, or set DEVICE=cpu " * 5)),
            Check("functions", lambda: failed("swordfish was refused", "deploy them")),
        ]
    )
    view = report("Supabase https://abc.supabase.co", examined, ["swordfish"])
    console = Console(width=width, color_system=None)
    with console.capture() as captured:
        console.print(rendered_report(view))
    lines = [line.rstrip() for line in captured.get().splitlines()]
    assert max(map(len, lines)) <= width
    assert lines[0] == "Supabase https://abc.supabase.co"
    assert lines[1].split() == ["ok", "database", "schema", "1,", "WAL"]
    assert any(line.strip().startswith("-> use one") for line in lines)
    assert lines[-1] == "1 ok, 1 warning, 1 failed"
    assert "swordfish" not in captured.get()
    assert "\x1b" not in captured.get()
