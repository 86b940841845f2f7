"""What tests of travels, joins and edits share: a worker with the shipped fake, and pictures of plain colours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from travel_shop import Workshop, pictures


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Workshop]:
    workshop = Workshop(tmp_path)
    yield workshop
    workshop.store.close()


@pytest.fixture
def images(tmp_path: Path) -> list[str]:
    """One picture of each of the colours."""
    return pictures(tmp_path)
