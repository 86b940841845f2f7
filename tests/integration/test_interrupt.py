"""What signals do to a process at moments that are easily forgotten."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

#: a global is taken down after the interpreter has taken its handlers back
LEAVING = """
import os, signal, sys
from source.interrupt import when_told_to_stop

class Last:
    def __del__(self, kill=os.kill, own=os.getpid()):
        kill(own, {number})

last = Last()
signal.signal({number}, signal.SIG_DFL)  # a shell has programs in the background ignore Ctrl-C
if sys.argv[1] == "listening":
    when_told_to_stop(lambda: None)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_last_moments_of_a_process_that_leaves_in_order_are_no_death(root: Path, number: signal.Signals) -> None:
    def code(argument: str) -> int:
        command = [sys.executable, "-c", LEAVING.format(number=int(number)), argument]
        return subprocess.run(command, cwd=root, timeout=60).returncode

    assert code("listening") == 0
    assert code("deaf") == -number  # as it would be without
