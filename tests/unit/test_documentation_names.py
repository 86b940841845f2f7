"""What the documentation tells people to set, they can set."""

from __future__ import annotations

import re
from pathlib import Path

from headless.options import GenerationOptions, aliases
from source.task_registry import registry
from Wan2GP.parameters import PARAMETERS

#: decisions speak of the engine's insides
PAGES = ("README.md", "docs/*.md", "docs/tutorials/*.md", "docs/how-to/*.md", "docs/explanation/*.md")


def test_every_parameter_of_the_engine_that_a_page_names_can_be_set_by_a_row(root: Path) -> None:
    known = set(aliases(GenerationOptions)) | set(GenerationOptions.model_fields)
    known |= {name for kind in registry() for name in kind.params.model_fields}
    pages = [page for pattern in PAGES for page in root.glob(pattern)]
    named = {
        (page.name, name)
        for page in pages
        for name in re.findall(r"`([a-z0-9]+(?:_[a-z0-9]+)+)`", page.read_text(encoding="utf-8"))
        if name in PARAMETERS
    }
    assert len(named) > 50
    assert {(page, name) for page, name in named if name not in known} == set()
