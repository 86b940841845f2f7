"""The check of the documentation's links."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from links import broken_links

    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/models.md").write_text("# Models\n\n## Where weights come from\n")

    def of(text: str) -> list[str]:
        (tmp_path / "README.md").write_text(text)
        return broken_links(tmp_path)

    yield of
    sys.modules.pop("links", None)


@pytest.mark.parametrize(
    "text",
    [
        "[models](docs/models.md)",
        "[weights](docs/models.md#where-weights-come-from)",
        "# Top\n\n[up](#top)",
        "[elsewhere](https://example.org/nothing)",
        "`docs/models.md` and `docs/`",
        "`samples/tasks/NAME.json`, `docs/tasks/*.md`",
        "```\n[not a link](gone.md) `source/gone.py`\n```",
    ],
)
def test_what_is_there_is_no_broken_link(broken, text: str) -> None:
    assert broken(text) == []


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[models](docs/gone.md)", "docs/gone.md"),
        ("![picture](docs/gone.png)", "docs/gone.png"),
        ("[weights](docs/models.md#gone)", "docs/models.md#gone"),
        ("[up](#gone)", "#gone"),
        ("see `source/gone.py`", "source/gone.py"),
        ("run `python scripts/gone.py --all`", "scripts/gone.py"),
    ],
)
def test_what_is_not_there_is_named_with_its_page(broken, text: str, named: str) -> None:
    assert broken(text) == [f"README.md: {named}"]


def test_a_page_that_the_index_does_not_link_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from links import unlisted_pages

    for name in ("README", "found", "lost", "how-to/found", "how-to/lost", "decisions/0001-so"):
        (tmp_path / "docs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "docs" / f"{name}.md").write_text("[one](found.md#part) and [another](how-to/found.md)")
    assert unlisted_pages(tmp_path) == [
        "docs/README.md lacks a link to how-to/lost.md",
        "docs/README.md lacks a link to lost.md",
    ]
    sys.modules.pop("links", None)
