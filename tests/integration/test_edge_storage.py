"""The Edge Functions that store results: the Deno tests of supabase/functions/storage_tests, on the local stack."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from local_stack import LocalStack
from local_stack import stack as stack

from source.devstack.programs import program

FUNCTIONS = Path(__file__).resolve().parents[2] / "supabase" / "functions"


@pytest.mark.parametrize("tests", ["storage_test.ts", "completion_test.ts", "older_test.ts"])
def test_results_are_stored_and_checked(stack: LocalStack, tests: str) -> None:
    given = {"TEST_ADMIN_URL": stack.postgres.uri(), "TEST_OBJECTS": str(stack.objects), "NO_COLOR": "1"}
    # their types are checked by `make check`
    command = [program("deno"), "test", "--frozen", "--quiet", "--no-check", "--allow-all", f"storage_tests/{tests}"]
    done = subprocess.run(
        command, cwd=FUNCTIONS, env=dict(os.environ) | stack.functions_environment | given, check=False,
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
