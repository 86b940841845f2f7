"""A folder for what programs of others shall read."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def ordinary_folder(name: str) -> Iterator[Path]:
    """A new folder, removed at the end. Not pytest's: it closes that one to other accounts, and as root Postgres runs
    as another. And not below /dev, where `make test` has its temporary files in memory: Deno reads nothing there."""
    usual = Path(tempfile.gettempdir())
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir="/tmp" if usual.is_relative_to("/dev") else usual))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
