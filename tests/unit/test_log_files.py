"""Log files of several processes, long values, JSON on the console, and a database that hangs."""

from __future__ import annotations

import io
import json
import logging
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from source.abbreviation import ENTRIES, LONGEST, ShortValues
from source.log_files import SharedLogFile
from source.logs import REDACTED, configure_logging, task_context
from source.settings import load_settings
from source.store import LogFilter
from source.store.sqlite import SqliteStore
from source.worker_logs import BATCH, CAPACITY, WorkerLogs

ROOT = Path(__file__).resolve().parents[2]
WRITER = """
import logging, sys
from source.log_files import SharedLogFile
log = logging.getLogger("writer")
log.setLevel(logging.INFO)
log.addHandler(SharedLogFile(sys.argv[1], max_bytes=int(sys.argv[2]), keep=int(sys.argv[3])))
print("ready", flush=True)
sys.stdin.readline()
for number in range(int(sys.argv[5])):
    log.info("%s %d %s", sys.argv[4], number, "x" * 60)
"""


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    """A logger of the test's own, with no root above it: what pytest captured would be part of its report."""
    logger = logging.Logger("source.test_log_files", logging.INFO)
    yield logger
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()


def written_by_processes(file: Path, *, max_bytes: int, keep: int, processes: int, lines: int) -> list[str]:
    """What is in the files, oldest first, after so many processes wrote at once."""
    given = [str(file), str(max_bytes), str(keep)]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, *given, f"process-{number}", str(lines)], cwd=ROOT, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        for number in range(processes)
    ]  # fmt: skip
    for process in started:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in started:
        process.communicate("go\n", timeout=60)
        assert process.returncode == 0
    numbered = sorted(file.parent.glob(f"{file.name}.[0-9]*"), key=lambda path: -int(path.suffix[1:]))
    return [line for path in (*numbered, file) for line in path.read_text().splitlines()]


def test_processes_share_a_file_and_no_line_is_lost_or_mixed(tmp_path: Path) -> None:
    found = written_by_processes(tmp_path / "worker.log", max_bytes=8_000, keep=100, processes=3, lines=300)
    expected = [f"process-{process} {number} {'x' * 60}" for process in range(3) for number in range(300)]
    assert sorted(found) == sorted(expected)
    sizes = [path.stat().st_size for path in tmp_path.glob("worker.log.[0-9]*")]
    assert len(sizes) >= 7 and max(sizes) <= 8_300


def test_a_file_is_bounded_in_size_and_number(tmp_path: Path, log: logging.Logger) -> None:
    file = tmp_path / "worker.log"
    log.addHandler(SharedLogFile(file, max_bytes=1000, keep=3))
    for number in range(200):
        log.info("line %03d %s", number, "y" * 40)
    files = [file, *(tmp_path / f"worker.log.{number}" for number in (1, 2))]
    assert sorted(tmp_path.glob("worker.log*")) == sorted([*files, tmp_path / "worker.log.lock"])
    assert all(path.stat().st_size <= 1000 for path in files)
    kept = [line for path in reversed(files) for line in path.read_text().splitlines()]
    assert kept == [f"line {number:03d} {'y' * 40}" for number in range(200 - len(kept), 200)]


def test_one_file_may_be_all(tmp_path: Path, log: logging.Logger) -> None:
    log.addHandler(SharedLogFile(tmp_path / "worker.log", max_bytes=100, keep=1))
    for number in range(10):
        log.info("line %d %s", number, "y" * 40)
    log.info("%s", "z" * 500)
    assert [path.name for path in tmp_path.glob("worker.log.[0-9]*")] == []
    assert (tmp_path / "worker.log").read_text() == "z" * 500 + "\n"


def test_a_file_that_somebody_moved_is_begun_again(tmp_path: Path, log: logging.Logger) -> None:
    file = tmp_path / "worker.log"
    log.addHandler(SharedLogFile(file, max_bytes=1000, keep=3))
    log.info("one")
    os.replace(file, tmp_path / "moved")
    log.info("two \ud800")
    assert (tmp_path / "moved").read_text() == "one\n" and file.read_text() == "two \\ud800\n"


def test_a_disk_that_refuses_costs_no_task(
    tmp_path: Path, log: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    log.addHandler(SharedLogFile(tmp_path / "missing" / "worker.log", max_bytes=1000, keep=3))
    for _ in range(5):
        log.info("said")
    assert capsys.readouterr().err.count("No such file or directory") == 1


@pytest.mark.usefixtures("logging_as_before")
@pytest.mark.parametrize("terminal", [False, True])
def test_the_console_may_be_json(terminal: bool) -> None:
    stream = io.StringIO()
    configure_logging(load_settings(log_format="json"), Console(file=stream, force_terminal=terminal, width=40))
    with task_context("task-7"):
        logging.getLogger("source.daemon").warning("token=%s refused", "swordfish")
    said: dict[str, Any] = json.loads(stream.getvalue())
    assert (said["task"], said["logger"], said["level"]) == ("task-7", "source.daemon", "WARNING")
    assert said["message"] == f"token={REDACTED} refused"


@pytest.mark.usefixtures("logging_as_before")
def test_lines_name_what_speaks(tmp_path: Path) -> None:
    stream = io.StringIO()
    configure_logging(load_settings(), Console(file=stream, width=200))
    logging.getLogger("source.store.sqlite").info("here")
    assert stream.getvalue().endswith(" INFO    sqlite [-] here\n")


def shortened(form: str, *args: Any, secrets: tuple[str, ...] = ()) -> str:
    record = logging.LogRecord("source", logging.INFO, "", 1, form, args, None)
    ShortValues(secrets).filter(record)
    return record.getMessage()


def test_long_values_are_cut_after_their_secrets_were_taken_out() -> None:
    assert shortened("%s and %d", "short", 3) == "short and 3"
    assert shortened("%s", "x" * 5000) == "x" * LONGEST + "… (5000 characters)"
    params = {"prompt": "p" * 900, "images": list(range(50)), "token": "swordfish", "deep": [[[["here"]]]], "n": 1}
    text = shortened("params %s of %s", params, "a task")
    assert "p" * 500 + "… (900 characters)" in text and "p" * 501 not in text
    assert f"{list(range(ENTRIES))}"[:-1] in text and f"{50 - ENTRIES} more" in text and "here" not in text
    assert "swordfish" not in text and "'n': 1" in text and text.endswith(" of a task")
    assert shortened("params %s", {"prompt": "x"}) == "params {'prompt': 'x'}"
    assert shortened("%(name)s", {"name": "y" * 2000}) == "y" * LONGEST + "… (2000 characters)"
    # Half of it would be known by nothing that looks for the whole.
    cut = shortened("%s", "k" * (LONGEST - 5) + "swordfish" + "k" * 100, secrets=("swordfish",))
    assert "sword" not in cut
    assert "eyJ" not in shortened(
        "%s", ValueError("a " * 495 + "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTYifQ.abcDEF123")
    )


def test_a_database_that_hangs_never_blocks_logging(tmp_path: Path, log: logging.Logger) -> None:
    """A heartbeat with lines waits for a lock meanwhile; what is logged is kept in memory up to a bound."""
    logs = WorkerLogs()
    log.addHandler(logs)
    with closing(SqliteStore(tmp_path / "tasks.db", logs=logs)) as store:
        began = time.perf_counter()
        for number in range(2 * CAPACITY):
            log.info("before %d", number)
        free_s = time.perf_counter() - began
        logs.take(CAPACITY)
        log.info("first")
        with closing(sqlite3.connect(store.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            beating = threading.Thread(target=lambda: store.heartbeat("w", [], lease_s=60))
            beating.start()
            while logs.waiting:  # the heartbeat has its lines
                assert beating.is_alive()
            began = time.perf_counter()
            for number in range(2 * CAPACITY):
                log.info("meanwhile %d", number)
            locked_s = time.perf_counter() - began
            assert beating.is_alive()
            other.execute("ROLLBACK")
        beating.join()
        assert locked_s < 10 * free_s + 1
        assert [line.message for line in store.logs(LogFilter())] == ["first"]
        store.heartbeat("w", [], lease_s=60)
        sent = [line.message for line in store.logs(LogFilter(text="meanwhile"), limit=BATCH)]
        assert sent == [f"meanwhile {number}" for number in range(CAPACITY, CAPACITY + BATCH)]
        [told] = store.logs(LogFilter(text="older log lines were dropped"))
        assert told.level == "WARNING" and logs.dropped >= CAPACITY
