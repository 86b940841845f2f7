"""What README and the tutorials tell people to type does what they say, as it stands there."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from documented import WORK, blocks, cloned, pattern, run_page, shell_environment
from process_end import at_process_end

from source.devstack.stack import Stack

#: pages on which every block says what becomes of it; those of them that have one to run are run
PAGES = (
    "README.md",
    "docs/tutorials/first-travel.md",
    "docs/tutorials/gpu-box.md",
    "docs/tutorials/supabase.md",
    "docs/how-to/add-a-task-type.md",
    "docs/how-to/add-a-parameter.md",
    "docs/how-to/add-a-model.md",
    "docs/how-to/write-a-lora-preset.md",
    "docs/how-to/deploy-a-fleet.md",
    "docs/runbook.md",
    "docs/maintaining.md",
)
ROOT = Path(__file__).resolve().parents[2]
_STOP = """
import pathlib
from source.devstack.stack import Stack
Stack(pathlib.Path(sys.argv[1])).down(erase=True)
"""
RUN = [page for page in PAGES if any(block.what == "run" for block in blocks(ROOT, page))]


@pytest.fixture
def clone(root: Path) -> Iterator[Path]:
    with cloned(root) as folder:
        stack = folder / ".devstack"
        at_process_end(_STOP, stack)
        yield folder
        Stack(stack).down(erase=True)


@pytest.mark.parametrize("page", PAGES)
def test_each_block_says_what_becomes_of_it(root: Path, page: str) -> None:
    known = {"patch", "run", "run: fails", "run: background"}
    for block in blocks(root, page):
        if block.language in WORK:
            assert block.mark in known or (block.what in ("file", "not run") and block.more), block.text
    reasons = " ".join(block.more for block in blocks(root, page) if block.what == "not run")
    for named in re.findall(r"tests/[\w/]+\.py", reasons):
        assert (root / named).is_file(), named


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", RUN)
def test_the_commands_of_a_page_do_what_it_says(root: Path, clone: Path, page: str) -> None:
    run_page(clone, blocks(root, page), shell_environment(clone, dict(os.environ) | {"OMP_NUM_THREADS": "1"}))


def test_a_line_stands_for_any_numbers_and_ids_and_for_nothing_else() -> None:
    line = pattern("output  files/8f1f2f3e-0c5e-4b57-9a39-0f6a3c7f4a11_x.mp4 in 0.2 s …")
    assert line.search("output files/00000000-0000-0000-0000-000000000000_x.mp4 in 13 s (cached)")
    assert not line.search("output files/8f1f2f3e_x.mp4 in 0.2 s")
    assert not pattern("2 Complete").search("2 Failed")
