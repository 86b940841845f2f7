"""The task's id in every line, and no secret in any."""

from __future__ import annotations

import io
import logging
import time
from pathlib import Path

import pytest
from rich.console import Console

from source.logs import REDACTED, configure_logging, redact, redact_values, task_context
from source.redaction import secrets_in
from source.settings import load_settings

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTYifQ.abcDEF123_-x"


pytestmark = pytest.mark.usefixtures("logging_as_before")


@pytest.mark.parametrize(
    ("line", "secret"),
    [
        ("Authorization: Bearer abcdefghijklmnop1234", "abcdefghijklmnop1234"),
        (f"token {JWT} refused", JWT),
        ("GET https://x.org/a.png?token=s3cr3t&w=3", "s3cr3t"),
        ("GET https://x.org/a.png?w=3&X-Amz-Signature=deadbeef", "deadbeef"),
        ("GET https://x.org/a?apikey=kkk111", "kkk111"),
        ("postgres://user:hunter2@db/tasks", "hunter2"),
        ("api_key=hunter2 was refused", "hunter2"),
        ("{'service_key': 'hunter2', 'n': 1}", "hunter2"),
        ("hf_abcdefghijklmnopqrstuv is not valid", "hf_abcdefghijklmnopqrstuv"),
        ("who is pat_0123456789abcdef0123?", "pat_0123456789abcdef0123"),
    ],
)
def test_secrets_are_taken_out(line: str, secret: str) -> None:
    clean = redact(line)
    assert secret not in clean
    assert REDACTED in clean


@pytest.mark.parametrize(
    "line",
    [
        "travel_segment failed (bad_input): num_frames: -3",
        "https://host/folder/picture.png?width=3",
        "denoising 3/20, key frames at 0:48",
        "a bearer of basic photography",
    ],
)
def test_ordinary_lines_stay_as_they_are(line: str) -> None:
    assert redact(line) == line


def test_given_values_are_taken_out() -> None:
    assert redact("the value is swordfish", ["swordfish"]) == f"the value is {REDACTED}"


def test_values_under_secret_names_are_removed_and_prompts_are_not() -> None:
    params = {"prompt": "the secret: a garden", "api_key": "hunter2", "n": [1, {"url": "https://h/a?token=abc"}]}
    assert redact_values(params) == {
        "prompt": "the secret: a garden",
        "api_key": REDACTED,
        "n": [1, {"url": f"https://h/a?token={REDACTED}"}],
    }


def test_names_that_are_urls_lose_their_keys_too() -> None:
    params = {"additional_loras": {"https://h/a.safetensors?token=abc": 0.5}}
    assert redact_values(params) == {"additional_loras": {f"https://h/a.safetensors?token={REDACTED}": 0.5}}


def test_what_a_task_was_given_as_a_secret_is_taken_out_of_what_is_said_about_it(tmp_path: Path) -> None:
    params = {"api_key": "open sesame", "prompt": "a hidden door", "hook": {"auth_token": ["open sesame street"]}}
    assert secrets_in(params) == ("open sesame street", "open sesame")
    assert secrets_in({"api_key": "short", "password": 12345678}) == ()
    stream, _ = lines_of(tmp_path)
    log = logging.getLogger("source.somewhere")
    with task_context("task-7", params):
        log.info("the door said %s", "open sesame street is wrong")
        assert redact_values({"text": "open sesame!"}) == {"text": f"{REDACTED}!"}
    log.info("open sesame")
    assert "the door said *** is wrong" in stream.getvalue() and "[-] open sesame" in stream.getvalue()


def lines_of(tmp_path: Path, terminal: bool = False) -> tuple[io.StringIO, Path]:
    stream, file = io.StringIO(), tmp_path / "logs" / "worker.log"
    console = Console(file=stream, force_terminal=terminal, color_system=None, width=200)
    configure_logging(load_settings(save_logging=file), console)
    return stream, file


@pytest.mark.parametrize("terminal", [False, True])
def test_every_line_carries_the_task(tmp_path: Path, terminal: bool) -> None:
    stream, file = lines_of(tmp_path, terminal)
    log = logging.getLogger("source.somewhere")
    with task_context("task-7"):
        log.info("hello")
    log.info("outside")
    for text in (stream.getvalue(), file.read_text()):
        assert "[task-7] hello" in text
        assert "[-] outside" in text


def test_tracebacks_are_redacted_too(tmp_path: Path) -> None:
    stream, file = lines_of(tmp_path)
    try:
        raise ValueError(f"Bearer {JWT}")
    except ValueError:
        logging.getLogger("source.somewhere").exception("it failed")
    assert "ValueError" in stream.getvalue()
    assert JWT not in stream.getvalue() + file.read_text()


def test_debug_lines_show_only_when_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    stream = io.StringIO()
    configure_logging(load_settings(debug=False), Console(file=stream))
    logging.getLogger("source.somewhere").debug("quiet")
    configure_logging(load_settings(debug=True), Console(file=stream))
    logging.getLogger("source.somewhere").debug("loud")
    assert "quiet" not in stream.getvalue()
    assert "loud" in stream.getvalue()
    assert "loud" in (tmp_path / "logs" / "worker.log").read_text()


@pytest.mark.parametrize("word", ["a", "a_", "token", "eyJaaaaa", "eyJaaaaa-", "https://"])
def test_a_long_value_costs_no_more_than_its_length(word: str) -> None:
    """A picture inside the params, say. Time that grows with the square would be hours here."""
    text = word * (1_000_000 // len(word))
    started_at = time.process_time()
    redact(text)
    redact_values({"image": text})
    assert time.process_time() - started_at < 20
