"""The benchmarks run; what they measure is nobody's business here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def told_by(root: Path, benchmark: str, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, f"benchmarks/{benchmark}.py", *arguments, "--json"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_no_op_tasks_are_counted_by_the_second(root: Path) -> None:
    told = told_by(root, "noop_tasks", "--tasks", "3", "--rounds", "1")
    assert (told["tasks"], len(told["rounds_per_s"])) == (3, 1)


@pytest.mark.slow
def test_claims_over_http_are_counted_by_the_second(root: Path) -> None:
    told = told_by(root, "supabase_claims", "--tasks", "20", "--claimers", "2")
    assert min(told["many_clients"]["claims_per_s"], told["noop_tasks_per_s"]) > 0
