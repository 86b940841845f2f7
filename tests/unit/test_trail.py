"""The debug trail: categories and facts for programs, warnings for people, secrets for nobody."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from source.logs import REDACTED, configure_logging, task_context
from source.settings import load_settings
from source.trail import WARNING, Category, Trail

NAMES = ["FRAME", "SEGMENT", "WGP", "CHAIN", "STITCH", "CRITICAL", "STITCH_FINAL_ANALYSIS"]


pytestmark = pytest.mark.usefixtures("logging_as_before")


@pytest.fixture
def entries() -> list[tuple[str, str]]:
    """What the timeline was told."""
    return []


@pytest.fixture
def trail(entries: list[tuple[str, str]]) -> Trail:
    return Trail(lambda name, detail: entries.append((name, detail)))


def logged_to(file: Path, **settings: Any) -> io.StringIO:
    """Log to a file and to a console, whose text is returned."""
    stream = io.StringIO()
    configure_logging(load_settings(save_logging=file, **settings), Console(file=stream, width=200))
    return stream


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_there_is_a_category_for_every_stage() -> None:
    assert [str(category) for category in Category] == NAMES


@pytest.mark.parametrize("category", Category)
def test_a_record_carries_category_and_facts(
    trail: Trail, category: Category, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "source.trail"):
        trail.note(category, "segment 2", frames=17)
    (record,) = caplog.records
    assert (record.levelname, vars(record)["category"], vars(record)["facts"]) == ("DEBUG", category, {"frames": 17})
    assert record.getMessage() == f"{category}: segment 2 (frames 17)"


def test_a_mismatch_is_a_warning_in_the_log_and_in_the_timeline(
    trail: Trail, entries: list[tuple[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "source.trail"):
        assert trail.frames(Category.STITCH, "joined", expected=34, actual=34)
        assert not trail.frames(Category.STITCH, "joined", expected=34, actual=33, segments=2)
    assert [record.levelname for record in caplog.records] == ["DEBUG", "WARNING"]
    assert entries == [(WARNING, "STITCH: joined (expected 34, actual 33, segments 2)")]


def test_secrets_among_the_facts_reach_neither_log_nor_timeline(
    trail: Trail, entries: list[tuple[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    trail.warn(Category.FRAME, "gone", url="https://h/a.mp4?token=swordfish", api_key="hunter2")
    (record,) = caplog.records
    assert vars(record)["facts"] == {"url": f"https://h/a.mp4?token={REDACTED}", "api_key": REDACTED}
    for text in (record.getMessage(), entries[0][1]):
        assert "swordfish" not in text
        assert "hunter2" not in text


def test_secrets_in_what_happened_reach_neither_log_nor_timeline(
    trail: Trail, entries: list[tuple[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    """It may quote an error, and that a URL."""
    trail.warn(Category.CRITICAL, "failed: https://h/a.mp4?token=swordfish answered 403, api_key=hunter2")
    for text in (caplog.records[0].getMessage(), entries[0][1]):
        assert text == f"CRITICAL: failed: https://h/a.mp4?token={REDACTED} answered 403, api_key={REDACTED}"


def test_a_jsonl_file_holds_the_whole_trail_though_the_console_stays_quiet(trail: Trail, tmp_path: Path) -> None:
    file = tmp_path / "worker.jsonl"
    console = logged_to(file)
    with task_context("task-7"):
        trail.note(Category.CHAIN, "context", expected=8, actual=8, clip=tmp_path / "a.mp4")
        logging.getLogger("source.somewhere").info("hello")
        logging.getLogger("source.somewhere").debug("quiet")
    noted, said = lines(file)
    assert set(noted) == {"time", "level", "logger", "task", "category", "facts", "message"}
    assert (noted["task"], noted["level"], noted["category"]) == ("task-7", "DEBUG", "CHAIN")
    assert noted["facts"] == {"expected": 8, "actual": 8, "clip": str(tmp_path / "a.mp4")}
    assert (said["message"], "facts" in said) == ("hello", False)
    assert "CHAIN" not in console.getvalue()


def test_a_plain_log_file_stays_as_it_was(trail: Trail, tmp_path: Path) -> None:
    file = tmp_path / "worker.log"
    logged_to(file)
    trail.note(Category.CHAIN, "context")
    trail.warn(Category.CHAIN, "context", expected=8, actual=7)
    (line,) = file.read_text().splitlines()
    assert line.endswith("[-] CHAIN: context (expected 8, actual 7)")


def test_a_jsonl_file_holds_no_secret(tmp_path: Path) -> None:
    file = tmp_path / "worker.jsonl"
    logged_to(file, hf_token='quo"ted')
    log = logging.getLogger("source.somewhere")
    facts = {"password": "hunter2", "at": ["https://u:pass9@h/"], "given": 'quo"ted'}
    log.warning("seen", extra={"category": "FRAME", "facts": facts})
    try:
        raise ValueError("api_key=swordfish")
    except ValueError:
        log.exception("it failed: token=zyxwvut")
    text = file.read_text()
    assert "Traceback" in lines(file)[1]["traceback"]
    for secret in ("hunter2", "pass9", "swordfish", "zyxwvut", "quo"):
        assert secret not in text
