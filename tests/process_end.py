"""Cleaning up when the process of the tests ends, however it ends."""

from __future__ import annotations

import atexit
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def at_process_end(code: str, *arguments: object) -> None:
    """Run Python code (with `sys.argv[1:]` = arguments) when this process is gone, SIGKILL included: another process
    waits for the end of a pipe that this one alone holds. A normal end waits for the code."""
    waiting = subprocess.Popen(
        [sys.executable, "-c", f"import sys; sys.stdin.read()\n{code}", *map(str, arguments)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip

    def end() -> None:
        assert waiting.stdin is not None
        waiting.stdin.close()
        waiting.wait(60)

    atexit.register(end)
