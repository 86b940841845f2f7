"""The documentation can be found, and leaves out nothing that it says it tells."""

from __future__ import annotations

import re
from pathlib import Path

from source.errors import _UNFORESEEN, _VERDICTS, DISK_FULL, Outcome


def test_the_readme_is_read_to_its_end(root: Path) -> None:
    assert len((root / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


def test_the_runbook_tells_what_to_do_about_every_class_of_failure(root: Path) -> None:
    page = (root / "docs" / "runbook.md").read_text(encoding="utf-8")
    verdicts = [*(verdict for _, verdict in _VERDICTS), _UNFORESEEN]
    classes = {each.error_class for each in verdicts if each.outcome in (Outcome.FAIL, Outcome.RETRY)} | {DISK_FULL}
    assert {name for name in classes if f"`{name}`" not in page} == set()


def test_the_table_of_exit_codes_is_the_commands(root: Path) -> None:
    """Those of the worker, in the words of docs/commands.md, which is written from the code."""
    told = (root / "docs" / "fleet.md").read_text(encoding="utf-8").partition("## Exit codes of a worker")[2]
    commands = (root / "docs" / "commands.md").read_text(encoding="utf-8")
    worker = commands.partition("## worker.py\n")[2].partition("## add_task.py")[0]
    codes = re.findall(r"^\| (\d+) \|", worker, re.MULTILINE)
    assert len(codes) >= 5
    assert re.findall(r"^\| (\d+) \|", told, re.MULTILINE) == codes
