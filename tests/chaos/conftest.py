"""Folders in which a local stack may lie."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from process_end import at_process_end

from source.devstack.stack import Stack

_STOP = """
import pathlib, shutil
from source.devstack.stack import Stack
Stack(pathlib.Path(sys.argv[1]) / "stack").down(erase=True)
shutil.rmtree(sys.argv[1], ignore_errors=True)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Gone with the process, and a stack in it too. Not pytest's own: each session of pytest closes the folder of all
    sessions to other accounts, and Postgres runs as one."""
    made = Path(tempfile.mkdtemp(prefix="chaos-"))
    at_process_end(_STOP, made)
    yield made
    Stack(made / "stack").down(erase=True)
    shutil.rmtree(made, ignore_errors=True)
