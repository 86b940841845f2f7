"""The benchmarks run; what they measure is nobody's business here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_no_op_tasks_are_counted_by_the_second(root: Path) -> None:
    command = [sys.executable, "benchmarks/noop_tasks.py", "--tasks", "3", "--rounds", "1", "--json"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["tasks"], len(told["rounds_per_s"])) == (3, 1)
