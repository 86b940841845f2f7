"""docs/reliability.md names tests that exist, and all faults."""

from __future__ import annotations

import re
from pathlib import Path

_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def test_every_test_that_the_page_names_exists(root: Path) -> None:
    named = _TEST.findall((root / "docs" / "reliability.md").read_text(encoding="utf-8"))
    assert len(named) > 50
    missing = [
        f"{file}::{name}"
        for file, name in named
        if not (root / file).is_file() or f"def {name}(" not in (root / file).read_text(encoding="utf-8")
    ]
    assert missing == []


def test_every_fault_has_a_test(root: Path) -> None:
    rows = re.findall(r"^\| (F\d+) \|.*$", (root / "docs" / "reliability.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == [f"F{number}" for number in range(1, 25)]
