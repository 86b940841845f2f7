"""A program of others: what it writes is heard and logged, within bounds, and it ends with all that it started."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from queue import SimpleQueue

import pytest

from headless.program import MAX_LOGGED_LINES, Program

#: holds a descriptor, as its own child does
TREE = """
import signal, subprocess, sys
wait = "import signal; print('up', flush=True); signal.pause()"
subprocess.Popen([sys.executable, "-c", wait], pass_fds=[int(sys.argv[1])])
signal.pause()
"""
FLOOD = f"for number in range({MAX_LOGGED_LINES + 50}): print('line', number)"


def test_a_flood_is_heard_to_its_end_and_logged_to_a_bound(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "headless.program")
    heard: SimpleQueue[str] = SimpleQueue()
    program = Program(
        "Flood", [sys.executable, "-c", FLOOD], folder=tmp_path, environment=os.environ, on_line=heard.put
    )
    assert program.ended.wait(30)
    assert heard.qsize() == MAX_LOGGED_LINES + 50
    logged = [each.getMessage() for each in caplog.records if each.getMessage().startswith("Flood: ")]
    assert len(logged) == MAX_LOGGED_LINES + 1 and "more is not logged" in logged[-1]
    assert program.farewell.startswith("exit code 0") and program.farewell.endswith(f"line {MAX_LOGGED_LINES + 49}")


def test_it_ends_with_what_it_started(tmp_path: Path) -> None:
    read, write = os.pipe()
    heard: SimpleQueue[str] = SimpleQueue()
    program = Program(
        "Tree", [sys.executable, "-c", TREE, str(write)], folder=tmp_path, environment=os.environ, pass_fds=[write],
        on_line=heard.put,
    )  # fmt: skip
    os.close(write)
    assert heard.get(timeout=30) == "up"
    program.end(stopping_s=0)
    assert program.ended.is_set() and program.farewell.startswith("killed by signal 9")
    with os.fdopen(read, "rb") as pipe:
        assert pipe.read() == b"", "nobody holds the other end any more"
